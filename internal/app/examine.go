package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/ai-aas/api-router/internal/policy"
)

// sourceWait is how long doctor waits for the policy source.
const sourceWait = 5 * time.Second

// policies reads the documents as serve would, and tells how they and the marks on them are.
func (d *doctor) policies(ctx context.Context, c Config) (policy.Snapshot, bool) {
	snapshot, ok := d.documents(ctx, c)
	if !ok {
		return snapshot, false
	}
	table := policy.Compile(snapshot, nil)
	verdict := verdictOK
	if table.Routes() == 0 {
		verdict = verdictFail
	}
	text := counted(table) + " in " + snapshot.Origin
	var newest int64
	for _, each := range snapshot.Documents {
		newest = max(newest, each.Revision)
	}
	if newest > 0 {
		text += fmt.Sprintf(", the newest of revision %d", newest)
	}
	if verdict == verdictFail {
		text += ": every request gets 404; docs/policies.md shows what to write"
	}
	d.say(verdict, "policies", text)
	for _, p := range table.Problems() {
		d.say(verdictFail, "policies", p.String())
	}
	for _, m := range table.Marks() {
		if m.Active(time.Now()) {
			d.say(verdictWarn, "mark", describeMark(&m))
		}
	}
	return snapshot, true
}

// describeMark says what is marked, as what, until when and why.
func describeMark(m *policy.Mark) string {
	var what []string
	if m.Backend != "" {
		what = append(what, "backend "+m.Backend)
	}
	if m.Model != "" {
		what = append(what, "model "+m.Model)
	}
	if m.Organization != "" {
		what = append(what, "organization "+m.Organization)
	}
	text := strings.Join(what, " for ") + " is " + m.State
	if !m.Until.IsZero() {
		text += " until " + m.Until.Format(time.RFC3339)
	}
	if m.Reason != "" {
		text += ": " + m.Reason
	}
	return text
}

// documents reads what is in the policy source now.
func (d *doctor) documents(ctx context.Context, c Config) (policy.Snapshot, bool) {
	switch c.Policy.Source {
	case SourceState:
		if path, absent := absentState(c.State.URL); absent {
			d.writable("state book", path, "there can be no documents")
			d.say(verdictFail, "policies", "the state book is not there yet: serve makes it, and seed fills it")
			return policy.Snapshot{}, false
		}
	case SourceFile:
		snapshot, err := read([]string{c.Policy.File.Path}, c.Backends)
		if err != nil {
			d.say(verdictFail, "policies", err.Error())
		}
		return snapshot, err == nil
	}
	snapshot, err := look(ctx, &c)
	if err != nil {
		d.say(verdictFail, c.Policy.Source, err.Error()+"; "+advice(c.Policy.Source, err.Error()))
		return snapshot, false
	}
	d.say(verdictOK, c.Policy.Source, "it answers")
	return withExtra(snapshot, c.Backends), true
}

// absentState is the path of the state book, and whether there is no file: opening it would make one.
func absentState(text string) (string, bool) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "sqlite" {
		return "", false
	}
	path := cmp.Or(u.Path, u.Opaque) // The latter of a relative path.
	_, err = os.Stat(path)
	return path, errors.Is(err, fs.ErrNotExist)
}

// look takes one snapshot of a policy source. It changes nothing there.
func look(ctx context.Context, c *Config) (snapshot policy.Snapshot, err error) {
	only := *c
	only.State.Migrate = MigrateManual
	p, err := openPlace(&only, slog.New(slog.DiscardHandler))
	if err != nil {
		return snapshot, err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	ctx, cancel := context.WithTimeout(ctx, sourceWait)
	defer cancel()
	if err := p.wait(ctx); err != nil {
		return snapshot, err
	}
	seen := false
	err = p.source.Watch(ctx, func(s policy.Snapshot) {
		if !seen {
			snapshot, seen = s, true
			cancel()
		}
	})
	if seen {
		err = nil
	}
	return snapshot, err
}

// advice is what to do about a policy source that cannot be read.
func advice(source, reason string) string {
	has := func(words ...string) bool { return mentions(reason, words...) }
	switch {
	case source == SourceFile:
		return "make the documents readable, or set policy.file.path (API_ROUTER_POLICY_FILE_PATH, --policies)"
	case source == SourceState && has("api-router migrate"):
		return "run api-router migrate, or start a router with state.migrate: auto (API_ROUTER_STATE_MIGRATE)"
	case source == SourceState && has("takes no changes"):
		return "promote a standby, or name every host in state.url (API_ROUTER_STATE_URL, --state)"
	case source == SourceState && has("before a failover"):
		return "stop the server that was replaced"
	case source == SourceState && has("sslmode asks for"):
		return "correct sslmode and sslrootcert in state.url (API_ROUTER_STATE_URL, --state), or the server's certificate"
	case source == SourceState && has("postgres://"):
		return "start the database, or correct state.url (API_ROUTER_STATE_URL, --state) and state.password (API_ROUTER_STATE_PASSWORD)"
	case source == SourceState:
		return "mend the file or the database, or set state.url (API_ROUTER_STATE_URL, --state)"
	case has("username", "password", "may not"):
		return "correct policy.etcd.username and policy.etcd.password, or the user's role at etcd"
	case has("certificate", "authorities", "tls:", "x509"):
		return "correct policy.etcd.tls, or http:// and https:// in policy.etcd.endpoints"
	default:
		return "start it, or correct policy.etcd.endpoints (API_ROUTER_POLICY_ETCD_ENDPOINTS, --etcd)"
	}
}
