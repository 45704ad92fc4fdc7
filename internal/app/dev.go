package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/ai-aas/api-router/internal/fleet"
	"github.com/ai-aas/api-router/internal/policy"
	"github.com/ai-aas/api-router/internal/telemetry"
)

// exampleKey is the key that dev's banner shows, and exampleOrganization the one that it names. Any development key works.
const (
	exampleKey          = "test-vllm-key"
	exampleOrganization = "vllm"
)

// settleTime is how long the banner of dev waits for the backends to be seen alive.
const settleTime = 3 * time.Second

// DevOptions are the flags of dev.
type DevOptions struct {
	Listen string
	// AdminListen is the address of the admin listener, which only this machine can use. Empty: that of serve.
	AdminListen string
	// MetricsListen is the address of the metrics listener. Empty: the port that serve has, for this machine alone.
	MetricsListen string
	// Backends are the URLs of real engines. Empty: simulated ones, in this process.
	Backends []string
	// BackendKeys are the keys of Backends, literal or env:NAME: one for all, or one for each in their order.
	BackendKeys []string
	// Data is the directory of the state book and of the usage records. Empty: one in the user's cache directory.
	Data      string
	LogLevel  string
	LogFormat string
	// Env is the whole environment: OpenTelemetry's standard variables are read there. It may be nil.
	Env map[string]string
}

// Dev runs everything without a configuration, in the foreground, until ctx ends: simulated engines or real ones behind a router
// that accepts development keys. It is not for production: whoever reaches the listener can use it.
func Dev(ctx context.Context, p Process, o DevOptions) error {
	level := new(slog.LevelVar)
	setLevel(level, o.LogLevel)
	log := p.start(level, o.LogFormat)
	limitMemory(log)

	config := Default()
	config.Environment = Development
	config.Identity.DevelopmentKeys = true
	config.Listen.Public = o.Listen
	config.Log.Format = o.LogFormat
	config.Telemetry.Traces.Sample = 1 // Whoever looks for a trace here looks for that of the request just sent.
	registry := telemetry.NewRegistry(p.Version)
	sent, log := p.tell(o.Env, &config, registry, level, log)
	defer flush(sent, log, p.Force)
	config.Policy.Source, config.Policy.LastGood = SourceState, ""
	config.Server.DrainGrace, config.Server.DrainTimeout = 0, 5*time.Second
	config.Listen.Admin = cmp.Or(o.AdminListen, config.Listen.Admin)
	config.Listen.Metrics = cmp.Or(o.MetricsListen, "127.0.0.1"+config.Listen.Metrics)
	if len(o.BackendKeys) > 0 && len(o.Backends) == 0 {
		return errors.New("--backend-key is for the engines that --backend names, and there is no --backend")
	}
	home, err := openHome(o.Data, log)
	if err != nil {
		return err
	}
	defer home.close()
	records := home.file("usage.jsonl")
	pepper, err := home.pepper()
	if err != nil {
		return err
	}
	config.Identity.Peppers, config.Identity.Cache.File = []policy.SecretRef{pepper}, ""
	config.Usage.Sinks = []Sink{{Type: "jsonl", Path: records}}

	options := Options{
		Config: config, Logger: log, Level: level, Version: p.Version, Registry: registry, Telemetry: sent,
		Hints: true, OpenAdmin: true, MoveMetrics: true, Reload: p.Reload, Force: p.Force,
	}
	var found *discovery
	var documents []policy.Document
	if len(o.Backends) > 0 {
		if found, err = newDiscovery(log, o.Backends, o.BackendKeys); err != nil {
			return err
		}
		options.Keys = found.keys()
	} else {
		engines, err := startEngines(devEngines())
		if err != nil {
			return err
		}
		defer engines.stop()
		documents = engines.documents()
	}
	if options.place, err = home.book(ctx, documents); err != nil {
		return err
	}
	if found != nil {
		options.loops = []loop{{"discovery", (&keeper{log: log, book: options.place.book}).follow(found)}}
	}
	a, err := New(options)
	if err != nil {
		return err
	}
	banner := banner{app: a, found: found, home: home, process: p}
	announced := make(chan struct{})
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer close(announced)
		banner.announce(ctx)
	}()
	err = a.Run(ctx)
	cancel()
	<-announced
	return err
}

// banner tells a person what runs and how to try it.
type banner struct {
	app     *App
	found   *discovery // nil with simulated engines
	home    *home
	process Process
}

// announce prints the banner once there is something to call. Its last line is the call.
func (b *banner) announce(ctx context.Context) {
	base := "http://" + display(b.app.Addr())
	if b.found != nil {
		fmt.Fprintf(b.process.Stdout, "api-router dev listens on %s and asks what is behind it: %s\n", base, strings.Join(b.found.urls(), ", "))
	}
	table := b.await(ctx)
	if table == nil {
		return
	}
	models := table.Models(exampleOrganization, "")
	var lines strings.Builder
	fmt.Fprintf(&lines, "\napi-router dev is ready on %s (version %s)\n\n", base, b.process.Version)
	fmt.Fprintf(&lines, "  keys      any of the form test-ORGANIZATION-ID or dev-ORGANIZATION-ID, such as %s\n", exampleKey)
	for i, model := range models {
		label := "models"
		if i > 0 {
			label = ""
		}
		if i == maxListed {
			fmt.Fprintf(&lines, "  %-9s and %d more: GET /v1/models lists them\n", label, len(models)-i)
			break
		}
		fmt.Fprintf(&lines, "  %-9s %s: %s\n", label, model, b.servers(table, model))
	}
	fmt.Fprintf(&lines, "  usage     %s\n", b.home.file("usage.jsonl"))
	fmt.Fprintf(&lines, "  documents %s\n", b.home.says())
	fmt.Fprintf(&lines, "  console   http://%s/\n", display(b.app.AdminAddr()))
	fmt.Fprintf(&lines, "  admin     http://%s/admin/v1, for this machine alone and without a token; try: %s\n", display(b.app.AdminAddr()), adminCall(b.app.AdminAddr()))
	if addr := b.app.MetricsAddr(); addr != nil {
		fmt.Fprintf(&lines, "  metrics   http://%s%s\n", display(addr), telemetry.PathMetrics)
	}
	fmt.Fprintf(&lines, "  real keys api-router org create acme%[1]s && api-router key create --org acme%[1]s\n", elsewhere(b.app.AdminAddr()))
	fmt.Fprintf(&lines, "  stop      Ctrl-C\n\n")
	if len(models) > 0 { // The newest table may have none again.
		lines.WriteString(call(base, models[0]) + "\n")
	}
	fmt.Fprint(b.process.Stdout, lines.String())
}

// maxListed bounds how many models the banner lists.
const maxListed = 10

// await returns the table once it routes a model and its backends were seen alive, or settleTime has passed after that; nil when ctx ends first.
func (b *banner) await(ctx context.Context) *policy.Table {
	empty := func() bool {
		table := b.app.store.Table()
		return table == nil || len(table.Models(exampleOrganization, "")) == 0
	}
	for empty() {
		if pause(ctx, 10*time.Millisecond); ctx.Err() != nil {
			return nil
		}
	}
	settled, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	for settled.Err() == nil && (b.missing() || b.app.MetricsAddr() == nil || slices.ContainsFunc(b.app.fleet.Status(), func(s fleet.Status) bool { return s.Probe != "healthy" || len(s.Models) == 0 })) {
		pause(settled, 10*time.Millisecond)
	}
	return b.app.store.Table()
}

// missing reports whether a server that was named on the command line has not said yet what it is.
func (b *banner) missing() bool {
	return b.found != nil && len(b.app.store.Table().Backends()) < len(b.found.targets)
}

// servers says who serves a model.
func (b *banner) servers(table *policy.Table, model string) string {
	route, ok := table.Lookup(exampleOrganization, model, "")
	if !ok {
		return "nobody"
	}
	if b.found == nil {
		return fmt.Sprintf("%d simulated vLLM", len(route.Candidates))
	}
	by := map[string]int{}
	for _, c := range route.Candidates {
		if backend, ok := b.app.fleet.Backend(c.Backend); ok {
			spec := backend.Spec()
			by[spec.Engine+" at "+spec.URL]++
		}
	}
	return strings.Join(slices.Sorted(maps.Keys(by)), ", ")
}

// call is the command that tries the router, on one line.
func call(base, model string) string {
	return fmt.Sprintf(`curl -X POST %s/v1/chat/completions -H "X-API-Key: %s" -H "Content-Type: application/json" `+
		`-d '{"model": "%s", "messages": [{"role": "user", "content": "Hello!"}]}'`, base, exampleKey, model)
}

// adminCall is a command that tries the admin API.
func adminCall(addr net.Addr) string {
	return "api-router get policies" + elsewhere(addr)
}

// elsewhere is what a command needs that asks an admin API which is not at its usual address.
func elsewhere(addr net.Addr) string {
	if addr.String() == Default().Listen.Admin {
		return ""
	}
	return " --server http://" + display(addr)
}

// display is the address as a client on this machine would write it.
func display(addr net.Addr) string {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return addr.String()
	}
	if tcp.IP.IsUnspecified() || tcp.IP.IsLoopback() {
		return fmt.Sprintf("localhost:%d", tcp.Port)
	}
	return tcp.String()
}
