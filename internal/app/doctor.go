package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ai-aas/api-router/internal/fleet"
	"github.com/ai-aas/api-router/internal/policy"
)

// doctorWait is how long the backends have to answer: two probes with their pause, and a list of models.
const doctorWait = 6 * time.Second

// The verdicts of doctor.
const (
	verdictOK   = "ok"
	verdictWarn = "warn"
	verdictFail = "fail"
)

// Doctor tries everything that a configuration depends on and prints one line each: what it is, how it is, and what to do.
// It changes nothing. It returns ErrFound when something needs a person.
func Doctor(ctx context.Context, out io.Writer, sources Sources) error {
	d := doctor{out: out}
	config, notes, err := Load(sources)
	switch problems := AsProblems(err); {
	case problems != nil:
		for _, p := range problems {
			d.say(verdictFail, "configuration", p.Where+": "+p.Text)
		}
		return ErrFound
	case err != nil:
		return err
	}
	d.say(verdictOK, "configuration", "environment "+config.Environment)
	for _, n := range notes {
		if n.Level >= slog.LevelWarn {
			d.say(verdictWarn, "configuration", n.Message+attrText(n))
		}
	}
	d.listener(ctx, pathListenPublic, config.Listen.Public, config.Listen.TLS)
	d.certificate("listen.tls", config.Listen.TLS)
	d.admins(ctx, config)
	if config.Listen.Metrics != "" {
		d.listener(ctx, pathListenMetrics, config.Listen.Metrics, ListenTLS{})
	}
	d.collectors(ctx, sources.Env)
	d.identity(ctx, &config)
	d.sinks(config.Usage.Sinks)
	if config.Policy.LastGood != "" && config.Policy.LastGood != defaultLastGood {
		d.writable("last good", config.Policy.LastGood, "no copy of the policies is kept for a start without their source")
	}
	if snapshot, ok := d.policies(ctx, config); ok {
		d.backends(ctx, snapshot)
	}
	if d.failed {
		return ErrFound
	}
	return nil
}

type doctor struct {
	out    io.Writer
	failed bool
}

func (d *doctor) say(verdict, subject, text string) {
	d.failed = d.failed || verdict == verdictFail
	fmt.Fprintf(d.out, "%-5s %-14s %s\n", verdict, subject, text)
}

// admins tells who can use the admin API.
func (d *doctor) admins(ctx context.Context, c Config) {
	if !c.opensAdmin(false) {
		d.say(verdictOK, "admin", "the admin listener stays closed: identity.admin_tokens is empty")
		return
	}
	d.listener(ctx, pathListenAdmin, c.Listen.Admin, c.Listen.AdminTLS)
	d.certificate("listen.admin_tls", c.Listen.AdminTLS)
	for _, t := range c.Identity.AdminTokens {
		if _, err := t.resolve(); err != nil {
			d.say(verdictFail, "admin", fmt.Sprintf("the token %s does not work: %v; mend it, or take it out of identity.admin_tokens", t.Name, err))
			continue
		}
		d.say(verdictOK, "admin", fmt.Sprintf("the token %s (%s) can be read", t.Name, t.Role))
	}
}

func (d *doctor) sinks(sinks []Sink) {
	if len(sinks) == 0 {
		d.say(verdictWarn, "usage", "no sink is configured: usage shows in the log only; set usage.sinks to keep it")
	}
	for _, s := range sinks {
		d.writable("usage", s.Path, "usage records will be lost")
	}
}

// writable tells whether a file can be written, without making it.
func (d *doctor) writable(subject, path, otherwise string) {
	err := tryWrite(path)
	if err != nil {
		d.say(verdictFail, subject, fmt.Sprintf("%s cannot be written, %s: %v", path, otherwise, err))
		return
	}
	d.say(verdictOK, subject, path+" is writable")
}

func tryWrite(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err == nil {
		return f.Close()
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// Not there yet: can the nearest directory that is there take a file?
	dir := filepath.Dir(path)
	for {
		info, err := os.Stat(dir)
		if err == nil && !info.IsDir() {
			return fmt.Errorf("%s is not a directory", dir)
		}
		if err == nil {
			break
		}
		if parent := filepath.Dir(dir); errors.Is(err, fs.ErrNotExist) && parent != dir {
			dir = parent
			continue
		}
		return err
	}
	f, err = os.CreateTemp(dir, ".api-router-doctor-*")
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// backends probes every backend the way serve does, and compares what they serve with what the policies ask of them.
func (d *doctor) backends(ctx context.Context, snapshot policy.Snapshot) {
	backends := policy.Compile(snapshot, nil).Backends()
	f := fleet.New(fleet.Options{})
	var specs []fleet.Spec
	for i := range backends {
		spec, err := resolve(&backends[i])
		if err != nil {
			d.say(verdictFail, "backend", fmt.Sprintf("%s: %v; it gets no request until this is mended", spec.ID, err))
			continue
		}
		specs = append(specs, spec)
	}
	if err := f.Apply(specs); err != nil {
		d.say(verdictFail, "backend", err.Error())
	}
	ctx, cancel := context.WithTimeout(ctx, doctorWait)
	defer cancel()
	probing := make(chan struct{})
	go func() {
		defer close(probing)
		_ = f.Run(ctx) // It ends with its context, and that is all.
	}()
	for ctx.Err() == nil && slices.ContainsFunc(f.Status(), undecided) {
		pause(ctx, 20*time.Millisecond)
	}
	for _, s := range f.Status() {
		d.backend(f, s, asked(snapshot, s.ID))
	}
	cancel()
	<-probing
}

// undecided reports whether a further probe may still tell more.
func undecided(s fleet.Status) bool {
	return s.Probe == "unknown" || s.Probe == "healthy" && len(s.Models) == 0 && s.Listing == ""
}

// asked lists the models that policies want from a backend.
func asked(snapshot policy.Snapshot, backend string) []string {
	var models []string
	for _, document := range snapshot.Documents {
		if document.Policy == nil {
			continue
		}
		if slices.ContainsFunc(document.Policy.Backends, func(c policy.Candidate) bool { return c.Backend == backend }) {
			models = append(models, document.Policy.Model)
		}
	}
	slices.Sort(models)
	return slices.Compact(models)
}

// backend judges one backend.
func (d *doctor) backend(f *fleet.Fleet, s fleet.Status, models []string) {
	where := s.ID + " (" + s.URL + "): "
	backend, ok := f.Backend(s.ID)
	switch {
	case !ok:
		return
	case s.Probe == "unhealthy":
		d.say(verdictFail, "backend", where+s.Reason+"; start it, or correct its url")
		return
	case s.Probe != "healthy":
		d.say(verdictFail, "backend", where+"no answer yet; start it, or correct its url")
		return
	case strings.Contains(s.Listing, "API key"): // Requests will be refused just so.
		d.say(verdictFail, "backend", where+s.Listing+"; correct its api_key")
		return
	case len(models) == 0:
		d.say(verdictWarn, "backend", where+"healthy, but no policy names it")
		return
	case s.Listing != "":
		d.say(verdictWarn, "backend", where+"healthy, but "+s.Listing+"; what it serves cannot be compared with the policies")
		return
	}
	var served []string
	for _, m := range s.Models {
		served = append(served, m.ID)
	}
	var good []string
	for _, model := range models {
		name, known := backend.ModelName(model)
		switch {
		case !known || !slices.Contains(served, name):
			d.say(verdictFail, "backend", fmt.Sprintf("%sdoes not serve %s, it serves %s; name the right one in its models, as in models: { %s: ITS_NAME }",
				where, name, strings.Join(served, ", "), model))
		case name != model:
			good = append(good, model+" as "+name)
		default:
			good = append(good, model)
		}
	}
	if len(good) > 0 {
		d.say(verdictOK, "backend", where+"healthy, serves "+strings.Join(good, ", "))
	}
}
