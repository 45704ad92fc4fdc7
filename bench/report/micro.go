package report

import (
	"math"
	"strconv"
	"strings"
)

// Micro is a line of `go test -bench -benchmem`, or the median of several of the same name.
type Micro struct {
	Name   string // without the number of processors: BenchmarkScan/prose/1KB
	Nanos  float64
	Allocs float64 // NaN where the benchmark does not count them
}

// ParseMicro reads the output of `go test -bench`. Lines of one name are one result: their medians. The order is that of the first lines.
func ParseMicro(output string) []Micro {
	var names []string
	nanos, allocs := map[string][]float64{}, map[string][]float64{}
	for line := range strings.Lines(output) {
		fields := strings.Fields(line)
		if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		if _, err := strconv.Atoi(fields[1]); err != nil {
			continue
		}
		name := withoutProcessors(fields[0])
		for i := 2; i+1 < len(fields); i += 2 {
			value, err := strconv.ParseFloat(fields[i], 64)
			if err != nil {
				break
			}
			switch fields[i+1] {
			case "ns/op":
				if nanos[name] == nil {
					names = append(names, name)
				}
				nanos[name] = append(nanos[name], value)
			case "allocs/op":
				allocs[name] = append(allocs[name], value)
			}
		}
	}
	results := make([]Micro, 0, len(names))
	for _, name := range names {
		m := Micro{Name: name, Allocs: math.NaN()}
		m.Nanos, _ = Median(nanos[name])
		if v, ok := Median(allocs[name]); ok {
			m.Allocs = v
		}
		results = append(results, m)
	}
	return results
}

// withoutProcessors takes off the -8 that Go appends to a benchmark's name unless GOMAXPROCS is 1.
func withoutProcessors(name string) string {
	i := strings.LastIndexByte(name, '-')
	if i < 0 {
		return name
	}
	if _, err := strconv.Atoi(name[i+1:]); err != nil {
		return name
	}
	return name[:i]
}
