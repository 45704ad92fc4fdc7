package admin

import (
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/fault"
)

// The bounds of what may be written of organizations, projects and keys. The book has its own, which are no tighter.
const (
	maxName      = 200 // bytes
	maxScope     = 50  // models and endpoints and networks, of each
	maxModel     = 256 // bytes
	maxTags      = 32
	maxTagName   = 64  // bytes
	maxTagValue  = 256 // bytes
	maxMaxTokens = 1 << 30
	maxProblems  = 50
)

// newID is what the id of something new can be. Ids of longer ago may be longer.
var newID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// lastEnd is the last moment that a key may end at.
var lastEnd = time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)

// problems gather everything that is wrong with a request.
type problems struct {
	lines []string
	first string // the field of the first
}

// add takes a note. says never repeats what could be a secret.
func (p *problems) add(field, says string) {
	if len(p.lines) == 0 {
		p.first = field
	}
	if len(p.lines) < maxProblems {
		p.lines = append(p.lines, field+": "+says)
	}
}

// err is one error of all of them, each on a line of its own; nil where there are none.
func (p *problems) err(what string) error {
	if len(p.lines) == 0 {
		return nil
	}
	return fault.Newf(fault.InvalidRequest, "%s cannot be used, %s wrong:\n%s", what, count(len(p.lines), "thing is", "things are"), strings.Join(p.lines, "\n")).
		WithParam(p.first)
}

func (p *problems) id(field, id string) {
	if !newID.MatchString(id) {
		p.add(field, "an id is 1 to 64 of the characters A-Z a-z 0-9 . _ -")
	}
}

// line reports whether text is one line of at most so many bytes.
func line(text string, most int) bool {
	return len(text) <= most && utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) })
}

func (p *problems) name(field, name string) {
	if !line(name, maxName) {
		p.add(field, fmt.Sprintf("it must be one line of printable text, of at most %d bytes", maxName))
	}
}

// project checks the id of a project that something is for, if it is for one.
func (p *problems) project(field, id string) {
	if id != "" && !idForm.MatchString(id) {
		p.add(field, "an id is 1 to 128 of the characters A-Z a-z 0-9 . _ -")
	}
}

func (p *problems) reason(reason string) {
	if err := checkReason(reason); err != nil {
		p.add("reason", fmt.Sprintf("it must be one line of printable text, of at most %d bytes", maxReason))
	}
}

func (p *problems) zone(name string) {
	if _, err := time.LoadLocation(name); err != nil || name == "Local" {
		p.add("time_zone", "there is no such time zone: it is an IANA name such as Europe/Berlin, or nothing for UTC")
	}
}

// until is the end that a change names, as a moment or as a time from now on.
func (p *problems) until(at adminapi.Named[time.Time], in adminapi.Duration, now time.Time) adminapi.Named[time.Time] {
	switch {
	case at.There && in > 0:
		p.add("expires_in", "there is expires_at, too: send one of them")
	case in > 0:
		return adminapi.To(now.Add(time.Duration(in)).Truncate(time.Second))
	}
	return at
}

func (p *problems) end(field string, at, now time.Time) {
	switch {
	case at.IsZero():
	case !at.After(now):
		p.add(field, "it must be in the future")
	case at.After(lastEnd):
		p.add(field, "it must be before the year 2200")
	}
}

// scopes reads the scopes of a key. prefix is the path of their fields.
func (p *problems) scopes(prefix string, s *adminapi.Scopes) auth.Scopes {
	for field, list := range map[string][]string{"models": s.Models, "endpoints": s.Endpoints, "networks": s.Networks} {
		if len(list) > maxScope {
			p.add(prefix+field, fmt.Sprintf("there may be at most %d", maxScope))
			return auth.Scopes{}
		}
	}
	for i, model := range s.Models {
		if star := strings.IndexByte(model, '*'); model == "" || !line(model, maxModel) || star >= 0 && star != len(model)-1 {
			p.add(at(prefix+"models", i), `it must be the name of a model, or the beginning of names and then one "*"`)
		}
	}
	for i, path := range s.Endpoints {
		if !slices.Contains(adminapi.Endpoints(), path) {
			p.add(at(prefix+"endpoints", i), "it is none of "+strings.Join(adminapi.Endpoints(), ", "))
		}
	}
	networks := make([]netip.Prefix, 0, len(s.Networks))
	for i, text := range s.Networks {
		network, ok := readNetwork(text)
		if !ok {
			p.add(at(prefix+"networks", i), "it must be a network such as 10.0.0.0/8 or 2001:db8::/32, without bits after its length, or one address")
		}
		networks = append(networks, network)
	}
	if s.MaxTokens < 0 || s.MaxTokens > maxMaxTokens {
		p.add(prefix+"max_tokens", fmt.Sprintf("it must be from 0 to %d", maxMaxTokens))
	}
	if s.Signature != "" && s.Signature != auth.SignatureOptional && s.Signature != auth.SignatureRequired {
		p.add(prefix+"signature", "it is none of "+auth.SignatureOptional+", "+auth.SignatureRequired)
	}
	p.tags(prefix+"tags", s.Tags)
	return auth.Scopes{
		Models: s.Models, Endpoints: s.Endpoints, Networks: networks, Priority: s.Priority, MaxTokens: s.MaxTokens, Tags: s.Tags, Signature: s.Signature,
	}
}

func (p *problems) tags(field string, tags map[string]string) {
	if len(tags) > maxTags {
		p.add(field, fmt.Sprintf("there may be at most %d", maxTags))
		return
	}
	for _, name := range slices.Sorted(maps.Keys(tags)) {
		value := tags[name]
		switch {
		case !newID.MatchString(name):
			p.add(field, fmt.Sprintf("the name of a tag is 1 to %d of the characters A-Z a-z 0-9 . _ -", maxTagName))
		case !line(value, maxTagValue):
			p.add(field+"."+name, fmt.Sprintf("it must be one line of printable text, of at most %d bytes", maxTagValue))
		}
	}
}

// readNetwork reads a network or one address.
func readNetwork(text string) (netip.Prefix, bool) {
	if one, err := netip.ParseAddr(text); err == nil && one.Zone() == "" {
		one = one.Unmap()
		return netip.PrefixFrom(one, one.BitLen()), true
	}
	network, err := netip.ParsePrefix(text)
	return network, err == nil && network == network.Masked() && !network.Addr().Is4In6()
}

// at is the path of one of a list.
func at(field string, i int) string { return field + "[" + strconv.Itoa(i) + "]" }

// fingerprint reads one key of an import.
func (p *problems) fingerprint(i int, f *adminapi.Fingerprint, now time.Time) auth.Key {
	prefix := at("keys", i) + "."
	k := auth.Key{ID: auth.NewKeyID(), Project: f.Project, Name: f.Name, ExpiresAt: f.ExpiresAt, Scopes: p.scopes(prefix+"scopes.", &f.Scopes)}
	var err error
	if k.Digest, err = auth.ParseFingerprint(f.SHA256); err != nil {
		p.add(prefix+"sha256", err.Error())
	}
	if f.Scopes.Signature != "" {
		p.add(prefix+"scopes.signature", "a key of which only the SHA-256 is known cannot sign")
	}
	p.name(prefix+"name", f.Name)
	p.project(prefix+"project", f.Project)
	p.end(prefix+"expires_at", f.ExpiresAt, now)
	return k
}
