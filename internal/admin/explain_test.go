package admin

import (
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/fleet"
	"github.com/ai-aas/api-router/internal/plan"
	"github.com/ai-aas/api-router/internal/policy"
	"github.com/ai-aas/api-router/internal/usage"
)

func TestExplainSaysWhoWouldAnswerAndWhy(t *testing.T) {
	h := newHouse(t)
	h.furnish()
	c := h.client(adminapi.RoleViewer)
	e, err := c.Explain(t.Context(), adminapi.ExplainRequest{Model: "alias", Organization: "acme", KeyID: "key"})
	must(t, err)
	if e.Choice != "a" || !slices.Equal(e.Next, []string{"b"}) || e.Error != nil || e.Revision != h.store.Table().Revision() {
		t.Errorf("%+v", e)
	}
	if len(e.Routes) != 1 {
		t.Fatalf("%+v", e.Routes)
	}
	r := e.Routes[0]
	if r.Policy != "p" || r.Revision == 0 || r.Alias != "alias" || r.Why == "" || len(r.Candidates) != 2 || r.Candidates[0].Order != 1 || r.Candidates[1].Tier != 1 {
		t.Errorf("%+v", r)
	}
	_, err = h.client(adminapi.RoleOperator).Mark(t.Context(), adminapi.MarkRequest{Model: "m", State: "disabled", Reason: "wrong answers"})
	must(t, err)
	h.settle()
	e, err = c.Explain(t.Context(), adminapi.ExplainRequest{Model: "m"})
	must(t, err)
	if e.Error == nil || e.Error.Code != "model_disabled" || e.Choice != "" || len(e.Routes) != 1 || e.Routes[0].Mark == nil || e.Routes[0].Mark.Reason != "wrong answers" {
		t.Errorf("%+v, %+v", e, e.Error)
	}
	if e, err := c.Explain(t.Context(), adminapi.ExplainRequest{Model: "unknown"}); err != nil || e.Error == nil || e.Error.Code != "model_not_found" {
		t.Errorf("%+v, %v", e, err)
	}
}

func TestExplainReadsABodyAsTheGatewayDoes(t *testing.T) {
	h := newHouse(t)
	h.furnish()
	const chat = `"messages":[{"role":"user","content":"x"}]`
	for name, tc := range map[string]struct {
		endpoint, body string
		want           string // code, choice, what the policy changes
	}{
		"a chat":             {"", `{"model":"alias",` + chat + `}`, ` a [max_tokens: + 100]`},
		"one that asks more": {"", `{"model":"m","max_tokens":100000,"stream":true,` + chat + `}`, ` a [max_tokens: 100000 -> 100]`},
		"one that is modest": {"", `{"model":"m","max_tokens":10,` + chat + `}`, ` a []`},
		"a completion":       {"/v1/completions", `{"model":"m","prompt":"x","max_tokens":1000}`, ` a [max_tokens: 1000 -> 100]`},
		"embeddings":         {"/v1/embeddings", `{"model":"m","input":["x"]}`, ` a []`},
		"no JSON":            {"", `{"model":"m",`, `invalid_json  `},
		"a name twice":       {"", `{"model":"m","model":"n",` + chat + `}`, `ambiguous_request  `},
		"no messages":        {"", `{"model":"m"}`, `invalid_request  `},
		"a template":         {"", `{"model":"m","chat_template":"x",` + chat + `}`, `invalid_request  []`},
		"an unknown model":   {"", `{"model":"other",` + chat + `}`, `model_not_found  []`},
	} {
		t.Run(name, func(t *testing.T) {
			ask := adminapi.ExplainRequest{Organization: "acme", Endpoint: tc.endpoint}
			must(t, ask.Text([]byte(tc.body)))
			e, err := h.client(adminapi.RoleViewer).Explain(t.Context(), ask)
			must(t, err)
			code, clamps := "", ""
			if e.Error != nil {
				code = e.Error.Code
			}
			if e.Request != nil {
				clamps = fmt.Sprint(e.Request.Clamps)
			}
			if got := code + " " + e.Choice + " " + clamps; got != tc.want {
				t.Errorf("%q, want %q", got, tc.want)
			}
			if (e.Choice == "") != (e.Error != nil) || len(e.Tries) > 0 && e.Choice == "" {
				t.Errorf("choice %q, error %v, %d tries", e.Choice, e.Error, len(e.Tries))
			}
		})
	}
}

// A request is clamped once its model may be used, and before a backend is looked for.
func TestExplainRefusesInTheOrderOfTheGateway(t *testing.T) {
	const refused = `{"model":"m","chat_template":"x","messages":[{"role":"user","content":"x"}]}`
	for want, targets := range map[string][]adminapi.MarkRequest{
		"invalid_request": {{Backend: "a"}, {Backend: "b"}},
		"model_disabled":  {{Model: "m"}},
	} {
		h := newHouse(t)
		h.furnish()
		for _, m := range targets {
			m.State, m.Reason = "disabled", "wrong answers"
			_, err := h.client(adminapi.RoleOperator).Mark(t.Context(), m)
			must(t, err)
		}
		h.settle()
		ask := adminapi.ExplainRequest{Organization: "acme"}
		must(t, ask.Text([]byte(refused)))
		e, err := h.client(adminapi.RoleViewer).Explain(t.Context(), ask)
		must(t, err)
		if e.Error == nil || e.Error.Code != want || e.Choice != "" {
			t.Errorf("%+v, want %s", e.Error, want)
		}
	}
}

func TestExplainRefusesWhatItCannotRead(t *testing.T) {
	h := newHouse(t)
	h.furnish()
	for body, want := range map[string]string{
		`{}`: "which model?",
		`{"model":"m","endpoint":"/v1/completions"}`:                "there is none",
		`{"endpoint":"/v1/images","body":{}}`:                       "endpoint must be one of",
		`{"model":"n","body":{"model":"m","messages":[{"a":"b"}]}}`: "differ",
		`{"models":"m"}`:         "models",
		`{"model":1}`:            "wrong type",
		`{"model":"m"} {}`:       "more than one",
		`{"model":"m"`:           "ends too early",
		`{"model":m}`:            "not valid JSON",
		`{"body":"\ud800 \u00e"`: "not valid JSON",
	} {
		got := h.send(adminapi.RoleViewer, http.MethodPost, adminapi.Prefix+"/explain", body)
		if got.StatusCode != http.StatusBadRequest || !strings.Contains(string(got.body), want) {
			t.Errorf("%s: %d %s", body, got.StatusCode, got.body)
		}
	}
}

// The two ends of the explanation are in rooms that do not know each other.
func TestTheExplanationIsPassedOnWhole(t *testing.T) {
	names := func(of reflect.Type) []string {
		var names []string
		for f := range of.Fields() {
			if f.Name != "Request" && f.Name != "Key" { // They are the admin API's own.
				names = append(names, f.Name+" "+f.Tag.Get("json"))
			}
		}
		return names
	}
	for _, pair := range [][2]reflect.Type{
		{reflect.TypeFor[plan.Explanation](), reflect.TypeFor[adminapi.Explanation]()},
		{reflect.TypeFor[plan.Route](), reflect.TypeFor[adminapi.Route]()},
		{reflect.TypeFor[plan.Candidate](), reflect.TypeFor[adminapi.Candidate]()},
		{reflect.TypeFor[plan.Try](), reflect.TypeFor[adminapi.Try]()},
		{reflect.TypeFor[plan.Refusal](), reflect.TypeFor[adminapi.Refusal]()},
		{reflect.TypeFor[policy.Clamps](), reflect.TypeFor[adminapi.Clamps]()},
		{reflect.TypeFor[policy.Fields](), reflect.TypeFor[adminapi.Fields]()},
	} {
		if a, b := names(pair[0]), names(pair[1]); !slices.Equal(a, b) {
			t.Errorf("%s and %s differ:\n%s\n%s", pair[0], pair[1], a, b)
		}
	}
	full := func(v reflect.Value) { // Every field that is set must arrive.
		for _, f := range v.Fields() {
			switch f.Kind() {
			case reflect.String:
				f.SetString("x")
			case reflect.Int, reflect.Int64:
				f.SetInt(7)
			case reflect.Bool:
				f.SetBool(true)
			case reflect.Float64:
				f.SetFloat(7)
			}
		}
	}
	e := plan.Explanation{
		Since: time.Now(), Next: []string{"x"}, Clamps: &policy.Clamps{}, Fields: &policy.Fields{}, Error: &plan.Refusal{},
		Tries: make([]plan.Try, 1), Routes: []plan.Route{{Mark: &policy.Mark{}, Candidates: []plan.Candidate{{Mark: &policy.Mark{}}}}},
	}
	full(reflect.ValueOf(&e).Elem())
	full(reflect.ValueOf(&e.Routes[0]).Elem())
	full(reflect.ValueOf(&e.Routes[0].Candidates[0]).Elem())
	shown := showExplanation(&e)
	for _, v := range []any{*shown, shown.Routes[0], shown.Routes[0].Candidates[0]} {
		for f, value := range reflect.ValueOf(v).Fields() {
			if f.Name != "Request" && f.Name != "Key" && value.IsZero() {
				t.Errorf("%T.%s is lost", v, f.Name)
			}
		}
	}
}

func TestDecisionsAreTheLatestRequests(t *testing.T) {
	h := newHouse(t)
	for i := range 3 {
		h.record.Close(&usage.Record{
			RequestID: fmt.Sprint(i), Start: time.Now(), Endpoint: "/v1/chat/completions", Organization: "acme", Model: "m", Backend: "a",
			Policy: "p", PolicyRevision: "r", Decision: "FAILOVER", Warning: "degraded backend used", Attempts: 2, Status: 200, StopReason: usage.StopDone,
		})
	}
	got, err := h.client(adminapi.RoleViewer).Decisions(t.Context(), 2)
	must(t, err)
	if len(got.Items) != 2 || got.Items[0].RequestID != "2" || got.Items[1].RequestID != "1" {
		t.Fatalf("%+v", got)
	}
	if d := got.Items[0]; d.Backend != "a" || d.Policy != "p" || d.Decision != "FAILOVER" || d.Warning == "" || d.Attempts != 2 || d.Organization != "acme" {
		t.Errorf("%+v", d)
	}
}

func TestFleetShowsTheTableAndTheBackends(t *testing.T) {
	h := newHouse(t, func(o *Options) {
		status := o.Fleet
		o.Fleet = func() []fleet.Status {
			all := status()
			for i := range all { // What probes and requests would have brought.
				all[i].Since, all[i].Probed, all[i].LastError, all[i].Reason = time.Now(), time.Now(), "refused", "refused"
			}
			return all
		}
	})
	h.furnish()
	got, err := h.client(adminapi.RoleViewer).Fleet(t.Context())
	must(t, err)
	if got.Revision != h.store.Table().Revision() || got.Origin == "" || got.Since.IsZero() || got.Policies != 1 || len(got.Backends) != 3 {
		t.Errorf("%+v", got)
	}
	if b := got.Backends[0]; b.ID != "a" || b.LastError != "refused" || b.Reason != "refused" || b.Probed.IsZero() || b.Since.IsZero() {
		t.Errorf("%+v", b)
	}
}
