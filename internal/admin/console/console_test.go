package console

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/ai-aas/api-router/internal/adminapi"
)

// wild is a view that says text wherever a view can say something.
func wild(text string) View {
	now := time.Date(2026, 5, 4, 10, 0, 0, 0, time.UTC)
	return View{
		Now: now, Revision: text, Origin: text, Since: now, Actor: text, Role: text,
		Health: adminapi.Health{State: text, Version: text, At: now, Since: now, Components: []adminapi.Component{
			{Name: text, ID: text, State: text, Detail: text, Since: now, LastError: text, DataAsOf: now, Action: text},
			{Name: text, ID: text, State: text, LastError: text},
		}},
		Backends: []adminapi.Backend{{
			ID: text, URL: text, Engine: text, State: text, Since: now, Reason: text, LastError: text, Probe: text, InFlight: 3, MaxConcurrency: 8,
			Mark: &adminapi.Mark{Backend: text, State: text, Reason: text, Actor: text},
		}, {ID: text, Probe: "unknown"}},
		Policies: []Policy{{
			ID: text, Model: text, Organization: text, Strategy: text, Place: text, Aliases: []string{text, text}, Fallbacks: []string{text},
			Backends: []Candidate{{Backend: text, Tier: 1, Weight: 2, Degraded: true}, {Backend: text}}, Revision: 7,
		}},
		Marks: []adminapi.Mark{{ID: text, Model: text, Organization: text, State: text, Reason: text, Actor: text, Since: now, Until: now.Add(time.Hour)}},
		Requests: []adminapi.Decision{{
			RequestID: text, TraceID: text, Start: now, Organization: text, Model: text, Backend: text, Decision: text, Status: 503, Code: text, Stream: true,
			PromptTokens: 1, CompletionTokens: 2, TTFTMillis: 3, LatencyMillis: 40_000,
		}, {RequestID: text, Start: now}},
	}
}

var (
	tags   = regexp.MustCompile(`<[^>]*>?`)
	values = regexp.MustCompile(`"[^"]*"`)
)

// shape is the markup of a page without the values of its attributes. Where a text is escaped, it has no part in it.
func shape(page string) string {
	return values.ReplaceAllString(strings.Join(tags.FindAllString(page, -1), "\n"), `""`)
}

func render(t interface{ Fatal(...any) }, v View) string {
	var page, live bytes.Buffer
	if err := Page(&page, v); err != nil {
		t.Fatal(err)
	}
	if err := Live(&live, v); err != nil {
		t.Fatal(err)
	}
	return page.String() + live.String()
}

func TestNoTextOfAViewBecomesMarkup(t *testing.T) {
	plain := render(t, wild("plain"))
	want := shape(plain)
	for _, text := range []string{
		"<script>alert(1)</script>", `"><img src=x onerror=alert(1)>`, "' onmouseover='alert(1)", "</style><style>*{}", "</title></table>", "<!--", "-->", "]]>",
		"javascript:alert(1)", "&lt;script&gt;", "{{.}}", "`${alert(1)}`", "\x00", "\u202e", "\xff\xfe", "a\nb", strings.Repeat("x", 5000),
	} {
		page := render(t, wild(text))
		if got := shape(page); got != want {
			t.Errorf("%q changes the page", text)
		}
		if strings.ContainsAny(text, "<>") && strings.Contains(page, text) && !strings.Contains(plain, text) {
			t.Errorf("%q stands on the page as it is", text)
		}
	}
}

func TestAnyTextStaysText(t *testing.T) {
	want := shape(render(t, wild("plain")))
	rapid.Check(t, func(t *rapid.T) {
		text := "x" + rapid.StringOf(rapid.OneOf(rapid.SampledFrom([]rune(`<>"'&/=-!; `+"`\n")), rapid.Rune())).Draw(t, "text")
		if got := shape(render(t, wild(text))); got != want {
			t.Errorf("%q changes the page", text)
		}
	})
}

func TestNothingOfAPageIsInline(t *testing.T) {
	page := render(t, wild("plain"))
	for _, form := range []string{`<style`, `\sstyle=`, `\son[a-z]+=`, `<script(?: type="module")?>`, `javascript:`, `https?://[^p]`} {
		if found := regexp.MustCompile(form).FindString(page); found != "" {
			t.Errorf("it has %q", found)
		}
	}
	for path := range Assets() {
		if !strings.Contains(page, `"`+path+`"`) {
			t.Errorf("no page refers to %s", path)
		}
	}
}

func TestWhatIsEmptySaysWhatToDo(t *testing.T) {
	unread := render(t, View{Now: time.Now()})
	page := render(t, View{Now: time.Now(), Revision: "e3b0c44298fc"})
	for _, want := range []string{
		"Nothing needs a person", "no backends yet", "api-router apply -f backend.yaml", "There are no policies", "Nothing is switched off", "No request has come yet",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("it does not say %q", want)
		}
	}
	if strings.Contains(unread, "api-router apply") || strings.Count(unread, "have not been read yet") != 2*3 {
		t.Error("before anything was read, it says that there is nothing")
	}
}

func TestMoreThanFitsIsCounted(t *testing.T) {
	v := View{Now: time.Now()}
	for i := range maxRows + 7 {
		v.Backends = append(v.Backends, adminapi.Backend{ID: fmt.Sprint("backend-", i)})
		v.Policies = append(v.Policies, Policy{Model: fmt.Sprint("model-", i)})
		v.Marks = append(v.Marks, adminapi.Mark{Backend: fmt.Sprint("backend-", i)})
		v.Health.Components = append(v.Health.Components, adminapi.Component{Name: "backend", ID: fmt.Sprint(i)})
	}
	var live bytes.Buffer
	if err := Live(&live, v); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(live.String(), "And 7 more"); n != 5 || strings.Contains(live.String(), fmt.Sprint("model-", maxRows)) {
		t.Errorf("%d of 5 tables say how many are left out", n)
	}
}

func TestWhatNeedsAPersonIsNeverLeftOut(t *testing.T) {
	v := View{Now: time.Now()}
	for i := range 2 * maxRows {
		id := fmt.Sprint("calm-", i)
		v.Backends = append(v.Backends, adminapi.Backend{ID: id, State: "available"})
		v.Health.Components = append(v.Health.Components, adminapi.Component{Name: adminapi.ComponentBackend, ID: id, State: "resting"})
	}
	v.Backends = append(v.Backends, adminapi.Backend{ID: "gone", State: "unhealthy"})
	v.Health.Components = append(v.Health.Components,
		adminapi.Component{Name: adminapi.ComponentBackend, ID: "gone", State: "unhealthy", Action: "start it"},
		adminapi.Component{Name: adminapi.ComponentUsageSink, ID: "usage.jsonl", State: "failing", Action: "make it writable"})
	var live bytes.Buffer
	if err := Live(&live, v); err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{"gone", "usage.jsonl"} {
		want := map[string]int{"gone": 3, "usage.jsonl": 2}[what]
		if n := strings.Count(live.String(), ">"+what+"<"); n != want {
			t.Errorf("%s is there %d times, want %d", what, n, want)
		}
	}
	if sink, backend := strings.Index(live.String(), "usage.jsonl"), strings.Index(live.String(), "start it"); sink > backend {
		t.Error("a backend, of which there are many, stands before the usage")
	}
	if first, last := strings.Index(live.String(), "calm-0<"), strings.Index(live.String(), "calm-9<"); first > last {
		t.Error("what is equally urgent has lost its order")
	}
}

func TestTimesAreShort(t *testing.T) {
	now := time.Now()
	for ago, want := range map[time.Duration]string{
		-time.Second: "0 s", 0: "0 s", 59 * time.Second: "59 s", 61 * time.Second: "1 min", 119 * time.Minute: "1 h 59 min", 11 * time.Hour: "11 h", 72 * time.Hour: "3 days",
	} {
		if got := age(now, now.Add(-ago)); got != want {
			t.Errorf("%s ago is %q, want %q", ago, got, want)
		}
	}
	if age(now, time.Time{}) != "" || until(now, time.Time{}) != "" || until(now, now.Add(90*time.Second)) != "in 1 min" {
		t.Error("a time that is none, or a time to come")
	}
	for ms, want := range map[float64]string{0: "", 0.04: "< 0.1 ms", 0.26: "0.3 ms", 12.4: "12 ms", 12_345: "12.3 s"} {
		if got := millis(ms); got != want {
			t.Errorf("%v ms is %q, want %q", ms, got, want)
		}
	}
}
