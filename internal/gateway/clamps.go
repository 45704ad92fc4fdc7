package gateway

import (
	"github.com/ai-aas/api-router/internal/policy"
	"github.com/ai-aas/api-router/internal/wire"
)

// clamps gives the bounds of a route in wire's words: rooms of one floor do not know each other. What is not plainly allowed is refused.
func clamps(route *policy.Route) (wire.Clamps, wire.Refused) {
	return wire.Clamps(route.Clamps), wire.Refused{
		ChatTemplate:       route.Fields.ChatTemplate != policy.Allow,
		ChatTemplateKwargs: route.Fields.ChatTemplateKwargs != policy.Allow,
		RemoteMedia:        route.Fields.RemoteMedia != policy.Allow,
	}
}
