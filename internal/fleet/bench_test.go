package fleet

import (
	"testing"
	"time"
)

// BenchmarkPickMarked is BenchmarkPick of four with the operator's hand on some.
func BenchmarkPickMarked(b *testing.B) {
	later := time.Now().Add(time.Hour)
	for _, test := range []struct {
		name  string
		marks map[string]Mark
	}{
		{"none", nil},
		{"elsewhere", map[string]Mark{"z": {State: MarkDisabled}}},
		{"one disabled", map[string]Mark{"a": {State: MarkDisabled, Until: later}}},
		{"one draining", map[string]Mark{"a": {State: MarkDraining, Until: later}}},
		{"one degraded", map[string]Mark{"a": {State: MarkDegraded, Until: later}}},
		{"all degraded", map[string]Mark{"a": {State: MarkDegraded}, "b": {State: MarkDegraded}, "c": {State: MarkDegraded}, "d": {State: MarkDegraded}}},
	} {
		b.Run(test.name, func(b *testing.B) {
			f := fleetOf(b, 4)
			f.SetMarks(test.marks)
			list := candidates("a", "b", "c", "d")
			b.ReportAllocs()
			for b.Loop() {
				choice, err := f.Picker(Ask{Model: "m", Candidates: list}).Next()
				if err != nil {
					b.Fatal(err)
				}
				choice.Lease.Done(Result{Kind: Served})
			}
		})
	}
}

// A choice allocates its lease and nothing else beyond its Picker, marks or not.
func TestMarksCostNoAllocation(t *testing.T) {
	allocations := func(marks map[string]Mark) float64 {
		f := fleetOf(t, 4)
		f.SetMarks(marks)
		ask := Ask{Candidates: candidates("a", "b", "c", "d")}
		return testing.AllocsPerRun(1000, func() {
			choice, err := f.Picker(ask).Next()
			if err != nil {
				t.Fatal(err)
			}
			choice.Lease.Done(Result{Kind: Served})
		})
	}
	for _, marks := range []string{"", "a-", "a~ b-", "a?", "a? b? c? d?"} {
		if n := allocations(marked(marks)); n > 2 {
			t.Errorf("%q: %.0f allocations", marks, n)
		}
	}
}
