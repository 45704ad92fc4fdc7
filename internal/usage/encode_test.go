package usage

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestRecordsAreEncodedAsTheirTagsSay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rec := rapid.Custom(func(t *rapid.T) Record {
			text := rapid.OneOf(rapid.Just(""), rapid.String(), rapid.StringMatching("[a-z0-9-]{1,40}"))
			count := rapid.Int64Range(0, 1<<40)
			millis := rapid.Float64Range(0, 1e9)
			return Record{
				RequestID: text.Draw(t, "id"), ClientRequestID: text.Draw(t, "client"), TraceID: text.Draw(t, "trace"), Endpoint: text.Draw(t, "endpoint"),
				Start:        time.UnixMicro(rapid.Int64Range(0, 1<<50).Draw(t, "start")).UTC(),
				Organization: text.Draw(t, "organization"), KeyID: text.Draw(t, "key"), Project: text.Draw(t, "project"),
				Tags: rapid.MapOfN(rapid.String(), rapid.String(), 0, 4).Draw(t, "tags"), Model: text.Draw(t, "model"),
				BackendModel: text.Draw(t, "backend model"), Backend: text.Draw(t, "backend"), Policy: text.Draw(t, "policy"),
				PolicyRevision: text.Draw(t, "revision"), Decision: text.Draw(t, "decision"), Warning: text.Draw(t, "warning"), Attempts: rapid.IntRange(0, 9).Draw(t, "attempts"),
				Stream: rapid.Bool().Draw(t, "stream"), PromptTokens: count.Draw(t, "prompt"), CachedTokens: count.Draw(t, "cached"),
				CompletionTokens: count.Draw(t, "completion"), ReasoningTokens: count.Draw(t, "reasoning"), UsageSource: text.Draw(t, "source"),
				Status: rapid.IntRange(0, 599).Draw(t, "status"), Code: text.Draw(t, "code"), StopReason: text.Draw(t, "stop"),
				Truncated: rapid.Bool().Draw(t, "truncated"), BytesIn: count.Draw(t, "in"), BytesOut: count.Draw(t, "out"),
				TTFTMillis: millis.Draw(t, "ttft"), LatencyMillis: millis.Draw(t, "latency"), RouterMillis: millis.Draw(t, "router"),
			}
		}).Draw(t, "record")
		want, err := json.Marshal(rec)
		if err != nil {
			t.Fatal(err)
		}
		var wanted, got map[string]any
		if err := json.Unmarshal(want, &wanted); err != nil {
			t.Fatal(err)
		}
		line := append(appendRecord([]byte(`{"x":0`), &rec), '}')
		if err := json.Unmarshal(line, &got); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		delete(got, "x")
		if diff := cmp.Diff(wanted, got); diff != "" {
			t.Error(diff)
		}
	})
}

func BenchmarkClose(b *testing.B) {
	r := NewRecorder(nil)
	rec := &Record{RequestID: "01a20722-804a-7d65-bb4e-cf5e51d5b42a", Organization: "acme", KeyID: "dev-1", Model: "gpt-oss-20b", Start: time.Now()}
	b.ReportAllocs()
	for b.Loop() {
		r.Close(rec)
	}
}

// BenchmarkKeep measures what keeping a closed record in memory costs, alone and with every processor at it.
func BenchmarkKeep(b *testing.B) {
	kept := newRing(keepRecords)
	rec := &Record{RequestID: "01a20722-804a-7d65-bb4e-cf5e51d5b42a", Organization: "acme", KeyID: "dev-1", Model: "gpt-oss-20b", Start: time.Now()}
	b.Run("alone", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			kept.add(rec)
		}
	})
	b.Run("crowd", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				kept.add(rec)
			}
		})
	})
}
