package report

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func fill(rounds ...map[string]float64) *Results {
	var r Results
	for i, figures := range rounds {
		for name, v := range figures {
			subject, metric, _ := strings.Cut(name, " ")
			r.Add(i, subject, metric, v)
		}
	}
	return &r
}

func TestMedianIsInTheMiddle(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   float64
	}{{[]float64{3}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 2, 9}, 3}} {
		if got, ok := Median(test.values); got != test.want || !ok {
			t.Errorf("%v: %v", test.values, got)
		}
	}
	if _, ok := Median(nil); ok {
		t.Error("nothing has a median")
	}
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Float64Range(-1e6, 1e6), 1, 20).Draw(t, "values")
		before := slices.Clone(values)
		m, _ := Median(values)
		var below, above int
		for _, v := range values {
			if v < m {
				below++
			}
			if v > m {
				above++
			}
		}
		if below > len(values)/2 || above > len(values)/2 || !slices.Equal(values, before) {
			t.Fatalf("median %v of %v", m, before)
		}
	})
}

func TestRatiosAreThoseOfTheRounds(t *testing.T) {
	// The machine is slower in the second round, and something disturbs the third.
	r := fill(
		map[string]float64{"a cpu": 30, "b cpu": 20},
		map[string]float64{"a cpu": 60, "b cpu": 40},
		map[string]float64{"a cpu": 30, "b cpu": 90},
		map[string]float64{"a cpu": 70},
		map[string]float64{"a cpu": 70, "b cpu": 0},
	)
	if v, ok := r.Ratio("a", "b", "cpu"); v != 1.5 || !ok {
		t.Error(v, ok)
	}
	if _, ok := r.Ratio("a", "c", "cpu"); ok {
		t.Error("a ratio to nobody")
	}
	noise := fill(map[string]float64{"a p": 3, "b p": 1}, map[string]float64{"a p": 3, "b p": -1})
	if v, ok := noise.Ratio("a", "b", "p"); ok {
		t.Errorf("the ratio of noise is %v", v)
	}
	if v, ok := r.Median("a", "cpu"); v != 60 || !ok {
		t.Error(v, ok)
	}
	if v, ok := r.Sum("b", "cpu"); v != 150 || !ok {
		t.Error(v, ok)
	}
	if _, ok := r.Sum("c", "cpu"); ok {
		t.Error("the sum of nothing")
	}
}

func TestSubtractIsWithinTheRound(t *testing.T) {
	r := fill(map[string]float64{"direct p": 10, "a p": 30, "b p": 15}, map[string]float64{"direct p": 20, "a p": 25}, map[string]float64{"a p": 7})
	r.Subtract("direct", "p", "added")
	for _, test := range []struct {
		round   int
		subject string
		want    float64
		ok      bool
	}{{0, "a", 20, true}, {0, "b", 5, true}, {1, "a", 5, true}, {2, "a", 0, false}, {0, "direct", 0, false}} {
		if got, ok := r.Get(test.round, test.subject, "added"); got != test.want || ok != test.ok {
			t.Errorf("round %d, %s: %v %v", test.round, test.subject, got, ok)
		}
	}
}

func TestWhatIsNoNumberIsNotKept(t *testing.T) {
	r := fill(map[string]float64{"a x": math.NaN(), "a y": math.Inf(1)})
	if _, ok := r.Median("a", "x"); ok {
		t.Error("NaN was kept")
	}
	if _, ok := r.Get(9, "a", "y"); ok {
		t.Error("a round that was not run")
	}
}

func TestFigure(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 0.0001: "0", 0.0123: "0.0123", 0.5: "0.5", 1.234: "1.23", -1.5: "-1.50", 7: "7", -70: "-70", 12.34: "12.3", 123.4: "123", 999.6: "1,000", 1234567: "1,234,567", -12345: "-12,345",
	} {
		if got := Figure(v, true); got != want {
			t.Errorf("%v: %q, want %q", v, got, want)
		}
	}
	if Figure(1, false) != "–" {
		t.Error("no figure")
	}
}

func TestSectionsLeaveOutWhatWasNotMeasured(t *testing.T) {
	r := fill(map[string]float64{"a cpu": 30, "b cpu": 20, "a lost": 1}, map[string]float64{"a cpu": 30, "b cpu": 20, "a lost": 2})
	got := r.Write([]Section{
		{Title: "One", Note: "A note.", Rows: []Row{{Label: "CPU", Metric: "cpu"}, {Label: "none", Metric: "x"}, {Label: "lost", Metric: "lost", Total: true}}},
		{Title: "Two", Rows: []Row{{Label: "none", Metric: "x"}}},
	}, []string{"b", "a"}, Ratio{"a", "b"}, Ratio{"b", "a"})
	want := `### One

A note.

|  | b | a | a ÷ b | b ÷ a |
|---|---:|---:|---:|---:|
| CPU | 20 | 30 | 1.50 | 0.67 |
| lost | – | 3 | – | – |

`
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestBudgetsSayWhetherTheyAreMet(t *testing.T) {
	got := Budgets([]Budget{
		{"speed", 1.7, " ×", 1.7, true}, {"memory", 48, " KB", 50, true}, {"other", 5, "", 0, false},
	})
	for _, line := range []string{
		"| speed | ≤ 1.7 × | 1.70 × | met |", "| memory | ≤ 48 KB | 50 KB | **missed** |", "| other | ≤ 5 | – | not measured |",
	} {
		if !strings.Contains(got, line+"\n") {
			t.Errorf("no line %q in:\n%s", line, got)
		}
	}
}

func TestUpdateReplacesWhatIsBetweenTheMarksOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "page.md")
	text := "# Title\n\nBefore.\n\n" + beginMark + "\nold\n" + endMark + "\n\nAfter.\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // The second time changes nothing.
		if err := Update(path, "\nnew\n\n"); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if want := strings.Replace(text, "\nold\n", "\n\nnew\n\n", 1); err != nil || string(got) != want {
			t.Errorf("got:\n%s\nwant:\n%s", got, want)
		}
	}
	if files, err := os.ReadDir(filepath.Dir(path)); err != nil || len(files) != 1 {
		t.Error("a draft was left behind", files, err)
	}
}

func TestUpdateMakesAPageButSpoilsNone(t *testing.T) {
	dir := t.TempDir()
	if err := Update(filepath.Join(dir, "new.md"), "x"); err != nil {
		t.Error(err)
	}
	if err := Update(filepath.Join(dir, "no", "such", "dir.md"), "x"); err == nil {
		t.Error("wrote into a directory that is not there")
	}
	for name, text := range map[string]string{"none": "# Page\n", "one": beginMark + "\n", "reversed": endMark + "\n" + beginMark + "\n"} {
		path := filepath.Join(dir, name+".md")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		err := Update(path, "x")
		if got, _ := os.ReadFile(path); err == nil || string(got) != text {
			t.Errorf("%s: %v %q", name, err, got)
		}
	}
}

const benchOutput = `goos: linux
pkg: example.com/wire
cpu: Some CPU
BenchmarkScan/prose/1KB-2         	  981234	      1000 ns/op	 900.10 MB/s	      16 B/op	       1 allocs/op
BenchmarkScan/prose/1KB-2         	  981234	      3000 ns/op	 900.10 MB/s	      16 B/op	       1 allocs/op
BenchmarkScan/prose/1KB-2         	  981234	      1100 ns/op	 900.10 MB/s	      16 B/op	       3 allocs/op
BenchmarkPlain 	     100	     0.5 ns/op
BenchmarkWith-dash/a-b-16 	     100	     7 ns/op	 0 B/op	 0 allocs/op
BenchmarkBroken-2
--- FAIL: BenchmarkBroken-2
PASS
ok  	example.com/wire	3.2s
`

func TestParseMicro(t *testing.T) {
	got := ParseMicro(benchOutput)
	if len(got) != 3 {
		t.Fatalf("%+v", got)
	}
	if got[0] != (Micro{"BenchmarkScan/prose/1KB", 1100, 1}) || got[2] != (Micro{"BenchmarkWith-dash/a-b", 7, 0}) {
		t.Errorf("%+v", got)
	}
	if got[1].Name != "BenchmarkPlain" || got[1].Nanos != 0.5 || !math.IsNaN(got[1].Allocs) {
		t.Errorf("%+v", got[1])
	}
}

func FuzzParseMicro(f *testing.F) {
	f.Add(benchOutput)
	f.Fuzz(func(t *testing.T, output string) {
		for _, m := range ParseMicro(output) {
			if !strings.HasPrefix(m.Name, "Benchmark") {
				t.Errorf("%+v", m)
			}
		}
	})
}
