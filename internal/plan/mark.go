package plan

import (
	"fmt"
	"strings"
	"time"

	"github.com/ai-aas/api-router/internal/fault"
	"github.com/ai-aas/api-router/internal/policy"
)

// soonest bounds the Retry-After of a model that is switched off: a client waits that long, and no longer.
const soonest = time.Hour

// soon keeps a wait that a client can be asked for; 0 for a longer one.
func soon(wait time.Duration) time.Duration {
	if wait > soonest {
		return 0
	}
	return max(wait, 0)
}

// withdrawn says that a mark keeps the model from being used: what is off, why and until when, in words for the client. Of the mark
// only what was meant for clients is said: who set it is not.
func (p *Plan) withdrawn(mark *policy.Mark) error {
	var b strings.Builder
	switch {
	case mark.Organization == "":
		fmt.Fprintf(&b, "model %q", p.ask.Model)
	case mark.Model == "":
		b.WriteString("your organization's use of this router")
	default:
		fmt.Fprintf(&b, "your organization's use of model %q", p.ask.Model)
	}
	if mark.State == policy.Draining {
		b.WriteString(" is being drained")
	} else {
		b.WriteString(" is switched off")
	}
	if mark.Reason != "" {
		fmt.Fprintf(&b, " (reason: %s)", mark.Reason)
	}
	e := fault.New(fault.ModelDisabled, "").WithParam("model")
	advice := "use another model"
	if mark.Model == "" {
		advice = "ask the operator of this router"
	}
	if mark.Until.IsZero() {
		fmt.Fprintf(&b, "; %s", advice)
	} else {
		until := mark.Until.Add(time.Second - time.Nanosecond).Truncate(time.Second) // Never before it is over.
		fmt.Fprintf(&b, " until %s; %s, or come back then", until.UTC().Format(time.RFC3339), advice)
		e = e.WithRetryAfter(soon(mark.Until.Sub(p.ask.At)))
	}
	e.Message = b.String()
	return e
}

// How a degraded model or backend has to do with a choice.
const (
	uninvolved = iota
	avoided
	used
)

// warnings are the values of the x-routing-warning header: by model, then by backend.
var warnings = [...][3]string{
	uninvolved: {uninvolved: "", avoided: "degraded backend avoided", used: "degraded backend used"},
	avoided: {
		uninvolved: "degraded model avoided",
		avoided:    "degraded model avoided, degraded backend avoided",
		used:       "degraded model avoided, degraded backend used",
	},
	used: {
		uninvolved: "degraded model used",
		avoided:    "degraded model used, degraded backend avoided",
		used:       "degraded model used, degraded backend used",
	},
}

// warn sets the warning of a choice from its backend's part in it and the model's.
func (p *Plan) warn(backendUsed, backendAvoided bool) {
	p.warning = warnings[part(p.order.last, p.order.avoided)][part(backendUsed, backendAvoided)]
}

func part(isUsed, isAvoided bool) int {
	switch {
	case isUsed:
		return used
	case isAvoided:
		return avoided
	}
	return uninvolved
}
