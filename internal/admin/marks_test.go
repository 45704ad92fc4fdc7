package admin

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/policy"
)

func TestAMarkIsSetShownAndLifted(t *testing.T) {
	h, ctx := newHouse(t), t.Context()
	h.furnish()
	c := h.client(adminapi.RoleOperator)
	before := time.Now().Add(-time.Second)
	set, err := c.Mark(ctx, adminapi.MarkRequest{Backend: "a", State: "disabled", Reason: "smoke", For: adminapi.Duration(time.Hour)})
	must(t, err)
	mark, problems := policy.ParseOne("", policy.KindMark, set.ID, set.Content)
	if len(problems) > 0 || set.Outcome != adminapi.Created || set.ID != policy.MarkID("a", "", "") {
		t.Fatalf("%+v, %v", set, problems)
	}
	if m := mark.Mark; m.Actor != "the-operator" || m.Reason != "smoke" || m.Since.Before(before) || m.Until.Sub(m.Since) != time.Hour {
		t.Errorf("%+v", m)
	}
	h.settle()
	fleet, err := c.Fleet(ctx)
	must(t, err)
	if b := fleet.Backends[0]; b.ID != "a" || b.State != "disabled" || b.Mark == nil || b.Mark.State != "disabled" || b.Mark.Reason != "smoke" || b.Mark.Actor != "the-operator" {
		t.Errorf("%+v, %+v", b, b.Mark)
	}
	milder, err := c.Mark(ctx, adminapi.MarkRequest{Backend: "a", State: "draining"})
	must(t, err)
	if milder.Outcome != adminapi.Changed || milder.ID != set.ID {
		t.Errorf("the second mark on one target: %+v", milder)
	}
	lifted, err := c.Delete(ctx, adminapi.Marks, set.ID, adminapi.If{Reason: "the smoke is gone"})
	must(t, err)
	if lifted.Outcome != adminapi.Deleted {
		t.Errorf("%+v", lifted)
	}
	eventually(t, "the backend is available", func() bool {
		fleet, err := c.Fleet(ctx)
		must(t, err)
		return fleet.Backends[0].State == "available" && fleet.Backends[0].Mark == nil
	})
	history, err := c.History(ctx, adminapi.Marks, set.ID, adminapi.HistoryPage{})
	must(t, err)
	if len(history.Items) != 3 || history.Items[2].Reason != "smoke" || history.Items[0].Actor != "the-operator" {
		t.Errorf("%+v", history)
	}
}

func TestMarksThatAreOverAreShownSo(t *testing.T) {
	h := newHouse(t)
	h.furnish()
	id := policy.MarkID("", "m", "")
	_, err := h.Book.Write(t.Context(), policy.Write{Kind: policy.KindMark, ID: id, Content: []byte(`{"model":"m","state":"draining","until":"2020-01-01T00:00:00Z"}`)})
	must(t, err)
	h.settle()
	if got, err := h.client(adminapi.RoleViewer).Get(t.Context(), adminapi.Marks, id); err != nil || got.Status != adminapi.Expired {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestMarksThatCannotBeMeantAreRefused(t *testing.T) {
	h := newHouse(t)
	h.furnish()
	for body, want := range map[string]struct {
		status int
		says   string
	}{
		`{"backend":"a","state":"disabled"}`:                                                      {400, "reason is missing"},
		`{"backend":"a","state":"disabled","reason":" "}`:                                         {400, "reason is missing"},
		`{"backend":"a","state":"off","reason":"x"}`:                                              {400, "state must be one of disabled, draining, degraded"},
		`{"state":"draining"}`:                                                                    {400, "a mark is on a backend"},
		`{"backend":"a","model":"m","state":"draining"}`:                                          {400, "a mark is on a backend"},
		`{"backend":"a","state":"draining","for":"-1h"}`:                                          {400, "a duration is above 0"},
		`{"backend":"a","state":"draining","for":"0s"}`:                                           {400, "a duration is above 0"},
		`{"backend":"a","state":"draining","for":"soon"}`:                                         {400, "written as in 90s"},
		`{"backend":"a","state":"draining","for":"1h","until":"2999-01-01T00:00:00Z"}`:            {400, "send one of them"},
		`{"backend":"a","state":"draining","until":"2020-01-01T00:00:00Z"}`:                       {400, "over already"},
		`{"backend":"a","state":"draining","untl":"2999-01-01T00:00:00Z"}`:                        {400, "untl"},
		`{"backend":"a","state":"draining","reason":"two\nlines"}`:                                {400, "one line"},
		`{"backend":"from-the-environmentt","state":"draining"}`:                                  {404, `does not exist; did you mean from-the-environment?`},
		`{"model":"aliass","state":"draining"}`:                                                   {404, `did you mean alias?`},
		`{"model":"other","organization":"acme","state":"draining"}`:                              {404, `does not exist`},
		`{"organization":"*","state":"draining"}`:                                                 {400, "for all of them, leave it out"},
		`{"model":"alias","organization":"acme","state":"draining","for":"90s"}`:                  {201, "organization.acme.model.alias"},
		`{"organization":"acme","state":"degraded","until":"2999-01-01T00:00:00Z","reason":"ok"}`: {201, "organization.acme"},
		`{"backend":"from-the-environment","state":"draining"}`:                                   {201, "backend.from-the-environment"},
	} {
		got := h.send(adminapi.RoleOperator, http.MethodPost, adminapi.Prefix+"/marks", body)
		if says := strings.ReplaceAll(string(got.body), `\"`, `"`); got.StatusCode != want.status || !strings.Contains(says, want.says) {
			t.Errorf("%s: %d %s", body, got.StatusCode, got.body)
		}
	}
}

func TestAMarkAsADocumentHasTheIDOfItsTarget(t *testing.T) {
	h := newHouse(t)
	h.furnish()
	put := func(id, body string) response {
		return h.send(adminapi.RoleOperator, http.MethodPut, adminapi.Prefix+"/marks/"+id, body)
	}
	if got := put("mine", `{"backend":"a","state":"draining"}`); got.StatusCode != http.StatusBadRequest || !strings.Contains(string(got.body), "has the id backend.a") {
		t.Errorf("%d %s", got.StatusCode, got.body)
	}
	if got := put("backend.c", `{"backend":"c","state":"draining"}`); got.StatusCode != http.StatusNotFound {
		t.Errorf("%d %s", got.StatusCode, got.body)
	}
	if got := put("backend.a", `{"backend":"a","state":"draining"}`); got.StatusCode != http.StatusCreated {
		t.Errorf("%d %s", got.StatusCode, got.body)
	}
}

func TestValidateFindsWhatIsWrongTogether(t *testing.T) {
	h := newHouse(t)
	h.furnish()
	c := h.client(adminapi.RoleViewer)
	for name, tc := range map[string]struct {
		documents string
		valid     bool
		want      string
	}{
		"one that is good":          {backendA, true, "1 []"},
		"those in force again":      {backendA + "\n---\n" + backendB + "\n---\n" + policyP, true, "3 []"},
		"a policy and its backend":  {"kind: Backend\nid: c\nurl: http://127.0.0.1:1\n---\n{kind: RoutingPolicy, id: q, model: x, backends: [{id: c}]}\n", true, "2 []"},
		"a model taken away":        {"kind: RoutingPolicy\nid: p\nmodel: y\nbackends: [{id: a}]\n---\n{kind: RoutingPolicy, id: q, model: m, backends: [{id: a}]}\n", true, "2 []"},
		"a fallback to nowhere":     {"kind: RoutingPolicy\nid: q\nmodel: y\nfallback_models: [m, z]\nbackends: [{id: a}]\n", true, `fallback model "z" has no routing policy: it is passed over (a good version keeps serving)`},
		"a mistake with a position": {"kind: Backend\nid: c\nurl: x\n---\nkind: Backend\nid: d\nurl: http://127.0.0.1:1\n", false, "request:3:6: Backend c: url must begin with http"},
		"a second price":            {"kind: Price\nid: one\nmodel: m\nvalid_from: 2026-01-01T00:00:00Z\nusd_per_million: {input: 1, output: 1}\n---\nkind: Price\nid: two\nmodel: m\nvalid_from: 2026-01-01T00:00:00Z\nusd_per_million: {input: 1, output: 1}\n", false, "request:7: Price two: model \"m\" has a price"},
		"a model that is routed":    {"kind: RoutingPolicy\nid: q\nmodel: m\nbackends: [{id: a}]\n", false, `model "m" of organization "*" is already routed by policy`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := c.Validate(t.Context(), []byte(tc.documents))
			must(t, err)
			if says := fmt.Sprint(got.Documents, got.Problems); got.Valid != tc.valid || !strings.Contains(says, tc.want) {
				t.Errorf("valid %v, %s; want %s", got.Valid, says, tc.want)
			}
		})
	}
	for name, documents := range map[string]string{"nothing": "", "a comment": "# nothing\n"} {
		if _, err := c.Validate(t.Context(), []byte(documents)); refusal(t, err).Code != "invalid_request" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDocumentsThatContradictEachOtherAreNotGood(t *testing.T) {
	h := newHouse(t)
	h.furnish()
	twice := "kind: Backend\nid: c\nurl: http://127.0.0.1:1\n---\n" + backendA + "\n---\nkind: Backend\nid: c\nurl: http://127.0.0.1:2\n"
	v, err := h.client(adminapi.RoleViewer).Validate(t.Context(), []byte(twice))
	must(t, err)
	if v.Valid || len(v.Problems) != 2 || v.Problems[0].Line != 1 || v.Problems[1].Line != 7 {
		t.Errorf("%+v", v)
	}
	d, err := h.client(adminapi.RoleViewer).Diff(t.Context(), []byte(twice))
	must(t, err)
	if len(d.Items) != 1 || d.Items[0].ID != "a" || len(d.Problems) != 2 {
		t.Errorf("%+v", d)
	}
	for document, wrong := range map[string]string{
		"kind: Mark\nbackend: c\nstate: draining\n---\nkind: Backend\nid: c\nurl: http://127.0.0.1:1\n": "",
		"kind: Mark\nbackend: a\nstate: draining\n":                                                     "",
		"kind: Mark\nbackend: nobody\nstate: draining\n":                                                "does not exist",
		"kind: Mark\nid: mine\nbackend: a\nstate: draining\n":                                           "has the id",
		"kind: Mark\nbackend: a\nstate: disabled\n":                                                     "reason",
	} {
		v, err := h.client(adminapi.RoleViewer).Validate(t.Context(), []byte(document))
		must(t, err)
		if v.Valid != (wrong == "") || wrong != "" && !strings.Contains(v.Problems[0].Message, wrong) {
			t.Errorf("%s: %+v, want %q", document, v, wrong)
		}
	}
}

func TestDiffSaysWhatPutWouldDo(t *testing.T) {
	h, ctx := newHouse(t), t.Context()
	h.furnish()
	c := h.client(adminapi.RoleAdmin)
	files := `
id: a # the same in another order
kind: Backend
url: http://127.0.0.1:9001
---
{kind: Backend, id: c, url: "http://127.0.0.1:9003"}
---
{kind: RoutingPolicy, id: p, model: m, backends: [{id: a, weight: 5}], strategy: weighted, clamps: {max_tokens: 100}}
---
{kind: Backend, id: broken}
`
	diff, err := c.Diff(ctx, []byte(files))
	must(t, err)
	if len(diff.Items) != 3 || len(diff.Problems) != 1 || diff.Problems[0].ID != "broken" {
		t.Fatalf("%+v", diff)
	}
	var fields []string
	for _, f := range diff.Items[2].Fields {
		fields = append(fields, f.String())
	}
	want := `aliases: - ["alias"]
backends[0].weight: + 5
backends[1]: - {"id":"b","tier":1}
strategy: + "weighted"`
	if got := strings.Join(fields, "\n"); got != want {
		t.Errorf("fields:\n%s\nwant\n%s", got, want)
	}
	for round, outcomes := range [][]adminapi.Outcome{
		{adminapi.Unchanged, adminapi.Created, adminapi.Changed}, {adminapi.Unchanged, adminapi.Unchanged, adminapi.Unchanged},
	} {
		diff, err := c.Diff(ctx, []byte(files))
		must(t, err)
		for i, d := range diff.Items {
			if d.Outcome != outcomes[i] || (d.Revision == 0) != (d.Outcome == adminapi.Created) || (len(d.Fields) == 0) != (d.Outcome != adminapi.Changed) {
				t.Errorf("round %d: %+v, want %s", round, d, outcomes[i])
			}
			kind, err := policy.KindOf(d.Kind)
			must(t, err)
			written, err := c.Put(ctx, kind.Collection(), d.ID, d.Content, adminapi.If{Revision: &d.Revision})
			must(t, err)
			if written.Outcome != d.Outcome {
				t.Errorf("round %d: %s was %s, and the diff said %s", round, d.ID, written.Outcome, d.Outcome)
			}
		}
	}
}
