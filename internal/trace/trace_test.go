package trace_test

import (
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/ai-aas/api-router/internal/trace"
)

const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

func TestTraceparentsAreReadStrictly(t *testing.T) {
	long := parent + "-what-is-to-come"
	for name, tc := range map[string]struct {
		parent        string
		good, sampled bool
	}{
		"as the specification has it":    {parent, true, true},
		"not sampled":                    {parent[:53] + "00", true, false},
		"other flags alone":              {parent[:53] + "02", true, false},
		"a random id, and sampled":       {parent[:53] + "03", true, true},
		"a later version":                {"01" + parent[2:], true, true},
		"a later version that says more": {"01" + long[2:], true, true},
		"this version, and more":         {long, false, false},
		"a later version, run on":        {"01" + parent[2:] + "0", false, false},
		"the version that is none":       {"ff" + parent[2:], false, false},
		"nothing":                        {"", false, false},
		"cut off":                        {parent[:54], false, false},
		"no trace":                       {"00-" + strings.Repeat("0", 32) + parent[35:], false, false},
		"no span":                        {parent[:36] + strings.Repeat("0", 16) + "-01", false, false},
		"upper case":                     {strings.ToUpper(parent), false, false},
		"other dashes":                   {strings.ReplaceAll(parent, "-", "_"), false, false},
		"a letter that is no digit":      {parent[:10] + "g" + parent[11:], false, false},
		"spaces around":                  {" " + parent, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			c, ok := trace.Parse(tc.parent, "vendor=1")
			if ok != tc.good || c.Sampled != tc.sampled || c.IsZero() == tc.good {
				t.Fatalf("%+v, %v", c, ok)
			}
			if ok && c.State != "vendor=1" {
				t.Errorf("the state became %q", c.State)
			}
		})
	}
	if c, ok := trace.Parse(parent, strings.Repeat("a", 513)); !ok || c.State != "" {
		t.Errorf("a state without a bound is passed on: %v", ok)
	}
}

func TestAContextReadsBackAsItWasWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := trace.Context{Trace: trace.NewID(), Span: trace.NewSpanID(), Sampled: rapid.Bool().Draw(t, "sampled")}
		if got, ok := trace.Parse(c.Parent(), ""); !ok || got != c {
			t.Errorf("%+v became %+v", c, got)
		}
	})
}

func TestTheShareOfSampledTracesIsWhatWasAskedFor(t *testing.T) {
	for _, share := range []float64{0, 0.1, 0.5, 1} {
		const all = 100_000
		within := 0
		for range all {
			if trace.NewID().Within(share) {
				within++
			}
		}
		if got := float64(within) / all; math.Abs(got-share) > 0.01 { // Six standard deviations at one half.
			t.Errorf("a share of %g became %g", share, got)
		}
	}
	if trace.NewID().Within(math.NaN()) {
		t.Error("what is not a number samples")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(parent, "a=1,b=2")
	f.Add("01"+parent[2:]+"-x", "")
	f.Add("", "")
	f.Fuzz(func(t *testing.T, header, state string) {
		c, ok := trace.Parse(header, state)
		if ok == c.IsZero() {
			t.Fatalf("%q: %v with %+v", header, ok, c)
		}
		if ok && !strings.HasPrefix(c.Parent()[3:], header[3:53]) {
			t.Errorf("%q became %q", header, c.Parent())
		}
	})
}

func BenchmarkRequest(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		c, _ := trace.Parse(parent, "")
		c.Span = trace.NewSpanID()
		_ = c.Parent()
	}
}
