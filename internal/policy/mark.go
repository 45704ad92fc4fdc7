package policy

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// The states that a mark puts its target in.
const (
	Disabled = "disabled" // no request; what runs at a disabled backend is cut off
	Draining = "draining" // no new request; what runs may finish
	Degraded = "degraded" // only when there is nothing else
)

// states are sorted by strictness, the strictest first.
var states = []string{Disabled, Draining, Degraded}

const (
	maxReason = 500 // bytes
	maxActor  = 128
)

// Mark is an operator's hand on a backend, a model, or what an organization asks of a model. Exactly one of Backend, Model and
// Organization is set, or Model and Organization together.
type Mark struct {
	ID           string `json:"id"`
	Backend      string `json:"backend,omitempty"`
	Model        string `json:"model,omitempty"` // canonical or alias
	Organization string `json:"organization,omitempty"`
	State        string `json:"state"`
	// Reason is shown to operators; of a model or organization that is disabled or drained also to clients.
	Reason string    `json:"reason,omitempty"`
	Actor  string    `json:"actor,omitempty"`
	Since  time.Time `json:"since,omitzero"`
	// Until is when the mark ends by itself; zero: when somebody takes it away.
	Until time.Time `json:"until,omitzero"`
}

// Active says that the mark has not ended. Since does not matter: the clock of whoever set it may be ahead of this one.
func (m *Mark) Active(now time.Time) bool { return m.Until.IsZero() || now.Before(m.Until) }

// check reports what is wrong with m itself. Whether its target exists does not matter: a mark may come first.
func (m *Mark) check(f flaws) {
	f.form("id", m.ID, idForm, idRule)
	switch {
	case m.Backend != "" && (m.Model != "" || m.Organization != ""):
		f.addf("backend", "a mark has one target: a backend, or a model and perhaps an organization")
	case m.Backend == "" && m.Model == "" && m.Organization == "":
		f.addf("", "a mark needs its target: backend, model or organization")
	}
	if m.Backend != "" {
		f.form("backend", m.Backend, idForm, idRule)
	}
	if m.Model != "" {
		f.form("model", m.Model, modelForm, modelRule)
	}
	switch m.Organization {
	case "":
	case Everyone:
		f.addf("organization", "organization must be an organization's id: for all of them, leave it out and write a model")
	default:
		f.form("organization", m.Organization, idForm, idRule)
	}
	if m.State == "" {
		f.addf("state", "state is missing: it is one of %s", strings.Join(states, ", "))
	} else {
		f.oneOf("state", m.State, states)
	}
	f.line("reason", m.Reason, maxReason)
	f.line("actor", m.Actor, maxActor)
	f.moment("since", &m.Since)
	f.moment("until", &m.Until)
	if !m.Since.IsZero() && !m.Until.IsZero() && !m.Until.After(m.Since) {
		f.addf("until", "until must be after since")
	}
}

// line bounds text that is shown to people, in logs and answers, on one line.
func (f flaws) line(path, value string, limit int) {
	if len(value) > limit || !utf8.ValidString(value) || strings.ContainsFunc(value, func(r rune) bool { return !unicode.IsPrint(r) }) {
		f.addf(path, "%s must be at most %d bytes of printable text in one line", path, limit)
	}
}

// MarkID is the id of the mark on a target: the same for the same target, and never for two. It says what the target is, as in
// organization.acme.model.gpt-oss-20b. Where that does not fit an id or could be read as another target, it ends in a hash.
func MarkID(backend, model, organization string) string {
	to := target{backend, model, organization}
	plain := to.String()
	if idForm.MatchString(plain) && targetOf(plain) == to {
		return plain
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q", backend, model, organization))
	suffix := ".h" + hex.EncodeToString(sum[:8])
	plain = outsideID.ReplaceAllString(plain, "-")
	return plain[:min(len(plain), 128-len(suffix))] + suffix
}

// hashed are the endings that MarkID gives. A name that happens to have one is hashed too.
var hashed = regexp.MustCompile(`\.h[0-9a-f]{16}$`)

// target is what a mark is on.
type target struct{ backend, model, organization string }

func (t target) String() string {
	var parts []string
	if t.organization != "" {
		parts = append(parts, "organization", t.organization)
	}
	if t.model != "" {
		parts = append(parts, "model", t.model)
	}
	if t.backend != "" {
		parts = append(parts, "backend", t.backend)
	}
	return strings.Join(parts, ".")
}

// targetOf reads a target back from its plain text, and gives none for any other text.
func targetOf(text string) (t target) {
	if hashed.MatchString(text) {
		return target{}
	}
	var ok bool
	if t.backend, ok = strings.CutPrefix(text, "backend."); ok {
		return t
	}
	t.backend = ""
	if t.model, ok = strings.CutPrefix(text, "model."); ok {
		return t
	}
	t.model = ""
	if rest, ok := strings.CutPrefix(text, "organization."); ok {
		t.organization, t.model, _ = strings.Cut(rest, ".model.")
	}
	return t
}

// Marks lists all marks, sorted by id: also those that have ended and are not deleted yet.
func (t *Table) Marks() []Mark { return all(t, KindMark, func(d Document) Mark { return *d.Mark }) }

// Mark finds the strictest active mark on what this organization asks of route, which Lookup gave: on the model under any of its
// names, on the organization, or on both. Of equally strict ones it takes the one that lasts longest. It allocates nothing.
func (t *Table) Mark(route *Route, organization string, now time.Time) (Mark, bool) {
	if len(route.marks) == 0 && len(t.marked) == 0 {
		return Mark{}, false
	}
	var found *Mark
	for _, m := range route.marks {
		if (m.Organization == "" || m.Organization == organization) && m.Active(now) {
			found = m
			break
		}
	}
	for _, m := range t.marked[organization] {
		if m.Active(now) {
			if found == nil || stricter(m, found) < 0 {
				found = m
			}
			break
		}
	}
	if found == nil {
		return Mark{}, false
	}
	return *found, true
}

// Hides reports whether m is what holds where other holds, too: it is stricter, or lasts longer.
func (m *Mark) Hides(other *Mark) bool { return stricter(m, other) < 0 }

// stricter sorts the marks that hold before those that they hide.
func stricter(a, b *Mark) int {
	if order := cmp.Compare(slices.Index(states, a.State), slices.Index(states, b.State)); order != 0 {
		return order
	}
	if a.Until.IsZero() != b.Until.IsZero() {
		if a.Until.IsZero() {
			return -1
		}
		return 1
	}
	return cmp.Or(b.Until.Compare(a.Until), cmp.Compare(a.ID, b.ID))
}

// attach tells the routes of the marks on their models, and keeps the marks on whole organizations. The fleet has those on backends.
func (t *Table) attach() {
	named := make(map[string][]*Mark)
	for _, d := range t.documents {
		switch m := d.Mark; {
		case m == nil:
		case m.Model != "":
			named[m.Model] = append(named[m.Model], m)
		case m.Organization != "":
			if t.marked == nil {
				t.marked = make(map[string][]*Mark)
			}
			t.marked[m.Organization] = append(t.marked[m.Organization], m)
		}
	}
	for _, marks := range t.marked {
		slices.SortFunc(marks, stricter)
	}
	if len(named) == 0 {
		return
	}
	for at, route := range t.routes {
		route.marks = append(route.marks, named[at.name]...)
	}
	for _, routes := range t.listed {
		for _, route := range routes {
			slices.SortFunc(route.marks, stricter)
		}
	}
}
