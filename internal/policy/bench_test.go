package policy

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// The benchmarks are about 10,000 policies and 1,000 backends.

func BenchmarkLookup(b *testing.B) {
	table := Compile(Snapshot{Documents: manyPolicies(b, 10_000)}, nil)
	models := make([]string, 1024)
	for i := range models {
		models[i] = fmt.Sprintf("model-%d", i*9)
	}
	for _, organization := range []string{"org-1", "nobody"} {
		b.Run(organization, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				table.Lookup(organization, models[i&1023], "key-1")
			}
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	documents := manyPolicies(b, 10_000)
	last := Compile(Snapshot{Documents: documents}, nil).documents
	broken := Snapshot{Documents: slices.Clone(documents)}
	for i := range 100 { // Of these the last good version holds.
		d := broken.Documents[len(broken.Documents)-1-100*i]
		broken.Problems = append(broken.Problems, Problem{Kind: d.Kind(), ID: d.ID(), File: d.File, Message: "bad"})
	}
	broken.Documents = slices.DeleteFunc(broken.Documents, func(d Document) bool {
		return slices.ContainsFunc(broken.Problems, func(p Problem) bool { return p.Kind == d.Kind() && p.ID == d.ID() })
	})
	unchecked := Snapshot{Documents: slices.Clone(documents)}
	for i := range unchecked.Documents {
		unchecked.Documents[i].checked = false
	}
	for name, now := range map[string]Snapshot{"good": {Documents: documents}, "100 are bad": broken, "none is checked": unchecked} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Compile(now, last)
			}
		})
	}
}

// BenchmarkRecall is what a cold start reads.
func BenchmarkRecall(b *testing.B) {
	documents, err := json.Marshal(Compile(Snapshot{Documents: manyPolicies(b, 10_000)}, nil).documents)
	path := filepath.Join(b.TempDir(), "policy.json")
	must(b, err, replace(path, sealed(documents, time.Now())))
	b.SetBytes(int64(len(documents)))
	for b.Loop() {
		if snapshot, _, err := readLastGood(path); err != nil || len(snapshot.Documents) != 11_000 {
			b.Fatal(len(snapshot.Documents), err)
		}
	}
}

// BenchmarkSave is what a change costs aside from the path of publishing: encoding, writing and syncing all documents.
func BenchmarkSave(b *testing.B) {
	documents := Compile(Snapshot{Documents: manyPolicies(b, 10_000)}, nil).documents
	s := newSaver(filepath.Join(b.TempDir(), "policy.json"), slog.New(slog.DiscardHandler))
	for b.Loop() {
		if err := s.save(&offered{documents, time.Now()}, new("")); err != nil {
			b.Fatal(err)
		}
	}
}
