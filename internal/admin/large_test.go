package admin

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/policy"
)

// pad makes a document as large as one can be, give or take a little.
var pad = strings.Repeat("x", 250<<10)

// enlarge gives the backend "large" a past of so many changes, each of half a megabyte, and tells their reasons, the newest first.
func enlarge(t *testing.T, book policy.Book, versions int) (reasons []string) {
	t.Helper()
	for version := range versions {
		reason := fmt.Sprint("version ", version)
		content := fmt.Appendf(nil, `{"kind":"Backend","id":"large","url":"http://127.0.0.1:9","max_concurrency":%d,"pad":%q}`, version+1, pad)
		_, err := book.Write(t.Context(), policy.Write{Kind: policy.KindBackend, ID: "large", Content: content, Actor: "olga", Reason: reason})
		must(t, err)
		reasons = append([]string{reason}, reasons...)
	}
	return reasons
}

// allOf reads page after page of a path, and gives the reasons and how many pages there were. None is larger than a page may be.
func (h *house) allOf(path string) (reasons []string, pages int) {
	h.t.Helper()
	for before := ""; ; pages++ {
		query := url.Values{"limit": {fmt.Sprint(maxLimit)}}
		if before != "" {
			query.Set("before", before)
		}
		got := h.send(adminapi.RoleAuditor, http.MethodGet, adminapi.Prefix+path+"?"+query.Encode(), "")
		var page struct {
			Items []struct{ Reason string }
			Next  string
		}
		must(h.t, json.Unmarshal(got.body, &page))
		if most := policy.HistoryBytes + 3*len(pad); got.StatusCode != http.StatusOK || len(got.body) > most {
			h.t.Fatalf("%d, %d bytes, want at most %d", got.StatusCode, len(got.body), most)
		}
		for _, item := range page.Items {
			reasons = append(reasons, item.Reason)
		}
		if before = page.Next; before == "" {
			return reasons, pages + 1
		}
	}
}

func TestALargePastIsToldInPagesOfASize(t *testing.T) {
	separate, elsewhere, _ := apart(t)
	for where, h := range map[string]*house{"in the state book": newHouse(t), "beside it": separate} {
		t.Run(where, func(t *testing.T) {
			h.t = t
			var book policy.Book = elsewhere
			if h != separate {
				book = h.Book
			}
			want := enlarge(t, book, 20)
			for _, path := range []string{"/audit", "/backends/large/history", "/audit/entries"} {
				if got, pages := h.allOf(path); !slices.Equal(got, want) || pages < 3 {
					t.Errorf("%s tells in %d pages of %q, want %q", path, pages, got, want)
				}
			}
		})
	}
}

func TestAPageOfAHistoryTakesMemoryByItsOwnSizeAlone(t *testing.T) {
	h := newHouse(t)
	enlarge(t, h.Book, 10)
	takes := func(path string) uint64 {
		t.Helper()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if got := h.send(adminapi.RoleAuditor, http.MethodGet, adminapi.Prefix+path+"?limit=1000", ""); got.StatusCode != http.StatusOK {
			t.Fatalf("%d %s", got.StatusCode, got.body)
		}
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	short := map[string]uint64{}
	for _, path := range []string{"/audit", "/backends/large/history", "/audit/entries"} {
		short[path] = takes(path)
	}
	enlarge(t, h.Book, 20)
	for path, of := range short {
		if took := takes(path); took > 2*of {
			t.Errorf("%s takes %d MiB for a page of a long history, and %d MiB of a short one", path, took>>20, of>>20)
		}
	}
}

func TestARollbackReachesBehindWhatIsLarge(t *testing.T) {
	h := newHouse(t)
	c := h.client(adminapi.RoleAdmin)
	small := `{"kind":"Backend","id":"large","url":"http://127.0.0.1:9"}`
	first, err := c.Put(t.Context(), adminapi.Backends, "large", []byte(small), adminapi.If{})
	must(t, err)
	enlarge(t, h.Book, 10)
	back, err := c.Rollback(t.Context(), adminapi.Backends, "large", adminapi.Rollback{Revision: first.Revision})
	if err != nil || back.Outcome != adminapi.Changed || strings.Contains(string(back.Document.Content), "pad") {
		t.Errorf("%v: %s", err, back.Outcome)
	}
	for _, revision := range []int64{first.Revision + 1000, 1<<63 - 1} {
		if _, err := c.Rollback(t.Context(), adminapi.Backends, "large", adminapi.Rollback{Revision: revision}); refusal(t, err).Code != "not_found" {
			t.Errorf("revision %d: %v", revision, err)
		}
	}
}

func TestAHistoryGoesOnWhereAPageEnded(t *testing.T) {
	h := newHouse(t)
	h.furnish()
	c := h.client(adminapi.RoleViewer)
	all, err := c.Audit(t.Context(), adminapi.HistoryPage{})
	must(t, err)
	if len(all.Items) < 3 || all.Next != "" {
		t.Fatalf("%d changes, next %q", len(all.Items), all.Next)
	}
	for limit := 1; limit <= len(all.Items); limit++ {
		var revisions, want []int64
		for page := (adminapi.HistoryPage{Limit: limit}); ; {
			found, err := c.Audit(t.Context(), page)
			must(t, err)
			for _, change := range found.Items {
				revisions = append(revisions, change.Revision)
			}
			if len(found.Items) == 0 || found.Next == "" {
				break
			}
			page.Before = found.Next
		}
		for _, change := range all.Items {
			want = append(want, change.Revision)
		}
		if !slices.Equal(revisions, want) {
			t.Errorf("in pages of %d: %v, want %v", limit, revisions, want)
		}
	}
	one, err := c.History(t.Context(), adminapi.Backends, "a", adminapi.HistoryPage{Limit: 1})
	if err != nil || len(one.Items) != 1 || one.Next != "" {
		t.Errorf("the only change of a backend: %+v, %v", one, err)
	}
	for _, before := range []string{"0", "-1", "x", "1e3", "007", "99999999999999999999"} {
		for _, path := range []string{"/audit", "/backends/a/history", "/marks/backend.a/history"} {
			got := h.send(adminapi.RoleViewer, http.MethodGet, adminapi.Prefix+path+"?before="+before, "")
			if got.StatusCode != http.StatusBadRequest || !strings.Contains(string(got.body), "the next of the page before") {
				t.Errorf("%s?before=%s: %d %s", path, before, got.StatusCode, got.body)
			}
		}
	}
}
