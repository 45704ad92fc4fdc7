// Package console is the first page of the admin listener as a function of values: what it shows comes in as a View, and goes out as HTML.
//
// The page needs no build step. Its style and its script are files of their own, so that its Content-Security-Policy allows nothing
// inline; without the script it reloads itself. Every text of a View may be hostile: html/template escapes it where it stands.
package console

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"slices"
	"strings"
	"time"

	"github.com/ai-aas/api-router/internal/adminapi"
)

// Requests is how many requests the page shows at most, the newest first.
const Requests = 100

// maxRows bounds the other tables: who has more of something than fits a page has the command line. What is in trouble fits first.
const maxRows = 200

const (
	// Prefix is what the paths of everything but the page itself begin with.
	Prefix = "/console/"
	// LivePath is where Live is to be served: the script asks for it.
	LivePath = Prefix + "live"
)

// View is what the page shows.
type View struct {
	Now    time.Time
	Health adminapi.Health
	// Revision, Origin and Since are of the table of policies; empty while there is none.
	Revision, Origin string
	Since            time.Time
	Backends         []adminapi.Backend
	Policies         []Policy
	Marks            []adminapi.Mark // those that hold
	Requests         []adminapi.Decision
	// Actor and Role are who looks.
	Actor, Role string
}

// Policy is a routing policy as a line of the page.
type Policy struct {
	ID, Model, Organization, Strategy, Place string
	Aliases, Fallbacks                       []string
	Backends                                 []Candidate
	Revision                                 int64 // 0: none is kept
}

// Candidate is a backend that a policy names.
type Candidate struct {
	Backend      string
	Tier, Weight int
	Degraded     bool
}

// Profile is a line of the list of profiles.
type Profile struct {
	Name, About string
	Seconds     int // 0: it is there at once
	Count       int
}

// Asset is a file that pages refer to.
type Asset struct {
	Type    string
	Content []byte
}

//go:embed *.html style.css live.js icon.svg
var files embed.FS

// Assets are the files that pages refer to, by the path at which they are to be served.
func Assets() map[string]Asset {
	assets := map[string]Asset{}
	for name, kind := range map[string]string{
		"style.css": "text/css; charset=utf-8", "live.js": "text/javascript; charset=utf-8", "icon.svg": "image/svg+xml",
	} {
		content, err := files.ReadFile(name)
		if err != nil { // It is part of the program.
			panic("console: " + err.Error())
		}
		assets[Prefix+name] = Asset{kind, content}
	}
	return assets
}

var pages = template.Must(template.New("").Funcs(template.FuncMap{
	"age": age, "clock": clock, "stamp": stamp, "until": until, "millis": millis, "tone": tone, "answer": answer, "aim": aim, "tiers": tiers,
	"attention": attention, "fits": fits, "left": left, "plural": plural,
	"components": func(all []adminapi.Component) []adminapi.Component { return most(all, urgency) },
	"backends":   func(all []adminapi.Backend) []adminapi.Backend { return most(all, trouble) },
	"join":       func(list []string) string { return strings.Join(list, ", ") },
	"limit":      func() int { return Requests },
}).ParseFS(files, "*.html"))

// Page writes the whole page.
func Page(w *bytes.Buffer, v View) error { return pages.ExecuteTemplate(w, "page", v) }

// Live writes the parts of the page that change, each to take the place of the one with its name.
func Live(w *bytes.Buffer, v View) error { return pages.ExecuteTemplate(w, "live", v) }

// Profiles writes the list of profiles.
func Profiles(w *bytes.Buffer, list []Profile) error {
	return pages.ExecuteTemplate(w, "profiles", list)
}

// attention are the components that are not as they should be, the most urgent first.
func attention(all []adminapi.Component) []adminapi.Component {
	all = slices.DeleteFunc(slices.Clone(all), func(c adminapi.Component) bool { return c.OK })
	slices.SortStableFunc(all, func(a, b adminapi.Component) int { return urgency(a) - urgency(b) })
	return all
}

// urgency puts what needs a person first. Of backends there can be many, all for one reason: they come after the reason.
func urgency(c adminapi.Component) int {
	rank := 0
	if c.Name == adminapi.ComponentBackend {
		rank = 1
	}
	switch {
	case c.OK:
		rank += 4
	case c.Action == "":
		rank += 2
	}
	return rank
}

// trouble puts the backends first that get no request.
func trouble(b adminapi.Backend) int {
	return slices.Index([]string{"bad", "busy", "off", "good"}, tone(b.State))
}

// most is what a table shows of all: where not all of it fits, the lowest in rank, and otherwise in the order that it has.
func most[T any](all []T, rank func(T) int) []T {
	if len(all) <= maxRows {
		return all
	}
	all = slices.Clone(all)
	slices.SortStableFunc(all, func(a, b T) int { return rank(a) - rank(b) })
	return all[:maxRows]
}

// fits is how many of all a table shows, left how many that leaves out.
func fits(all int) int { return min(all, maxRows) }

func left(all int) int { return max(0, all-maxRows) }

func plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}

// age is how long ago t was, as coarse as it is long.
func age(now, t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return span(now.Sub(t))
}

func span(d time.Duration) string {
	switch d = max(d, 0); {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 10*time.Hour:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

// until is how long it is to t.
func until(now, t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return "in " + span(t.Sub(now).Round(time.Second))
}

func clock(t time.Time) string { return t.UTC().Format(time.TimeOnly) }

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// millis is a duration in milliseconds, as a person reads it.
func millis(ms float64) string {
	switch {
	case ms <= 0:
		return ""
	case ms < 0.1:
		return "< 0.1 ms"
	case ms < 10:
		return fmt.Sprintf("%.1f ms", ms)
	case ms < 10_000:
		return fmt.Sprintf("%.0f ms", ms)
	}
	return fmt.Sprintf("%.1f s", ms/1000)
}

// tone is how loud a state is: good, busy, off (as somebody wished) or bad.
func tone(state string) string {
	switch state {
	case "available", adminapi.StateReady, "loaded", "connected", "open", "read", "writing", "free", "none":
		return "good"
	case "full", "resting", adminapi.StateStarting, "loading", "opening", "connecting", "reading", "degraded", "last good", "nearly full":
		return "busy"
	case "disabled", adminapi.StateDraining, "off", "closed":
		return "off"
	case "unhealthy", "ejected", "failing", "empty", "no secret", "unreadable":
		return "bad"
	}
	if strings.Contains(state, "problem") {
		return "bad"
	}
	return "good"
}

// answer is how loud a status is.
func answer(status int) string {
	switch {
	case status >= 500:
		return "bad"
	case status >= 400:
		return "busy"
	}
	return "good"
}

// aim is what a mark is on.
func aim(m adminapi.Mark) string {
	var what []string
	for _, each := range [][2]string{{"backend", m.Backend}, {"model", m.Model}, {"organization", m.Organization}} {
		if each[1] != "" {
			what = append(what, each[0]+" "+each[1])
		}
	}
	return strings.Join(what, " for ")
}

// tiers groups candidates by their tier, the lowest first.
func tiers(all []Candidate) [][]Candidate {
	all = slices.Clone(all)
	slices.SortStableFunc(all, func(a, b Candidate) int { return a.Tier - b.Tier })
	var groups [][]Candidate
	for i, c := range all {
		if i == 0 || all[i-1].Tier != c.Tier {
			groups = append(groups, nil)
		}
		last := len(groups) - 1
		groups[last] = append(groups[last], c)
	}
	return groups
}
