package telemetry

import "github.com/ai-aas/api-router/internal/trace"

// sampler decides at the head of a trace whether it is kept.
type sampler struct {
	parent bool    // a caller's decision holds
	share  float64 // of all other traces
}

func (s sampler) sample(id trace.ID, parent trace.Context) bool {
	if s.parent && !parent.IsZero() {
		return parent.Sampled
	}
	return id.Within(s.share)
}
