package auth

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// everything are the scopes of a principal without any.
var everything Scopes

// Held are the principal's scopes; never nil.
func (p *Principal) Held() *Scopes {
	if p.Scopes == nil {
		return &everything
	}
	return p.Scopes
}

// clone is a copy that nobody else has.
func (s *Scopes) clone() *Scopes {
	c := *s
	c.Models, c.Endpoints, c.Networks, c.Tags = slices.Clone(s.Models), slices.Clone(s.Endpoints), slices.Clone(s.Networks), maps.Clone(s.Tags)
	return &c
}

// Model reports whether any of these names of one model may be used: what a client wrote, and the model's own name.
func (s *Scopes) Model(names ...string) bool {
	if s == nil || len(s.Models) == 0 {
		return true
	}
	for _, pattern := range s.Models {
		prefix, open := strings.CutSuffix(pattern, "*")
		for _, name := range names {
			if name == pattern || open && strings.HasPrefix(name, prefix) {
				return true
			}
		}
	}
	return false
}

// Endpoint reports whether the path of an inference may be used.
func (s *Scopes) Endpoint(path string) bool {
	return s == nil || len(s.Endpoints) == 0 || slices.Contains(s.Endpoints, path)
}

// Address reports whether it may be used from there. From an address that is not known it may not, where that matters.
func (s *Scopes) Address(from netip.Addr) bool {
	if s == nil || len(s.Networks) == 0 {
		return true
	}
	from = from.Unmap().WithZone("")
	return from.IsValid() && slices.ContainsFunc(s.Networks, func(n netip.Prefix) bool {
		if n.Addr().Is4In6() && n.Bits() >= 96 {
			n = netip.PrefixFrom(n.Addr().Unmap(), n.Bits()-96)
		}
		return n.Contains(from)
	})
}
