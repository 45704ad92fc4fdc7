package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ai-aas/api-router/test/ports"
	"github.com/ai-aas/api-router/test/rig"
)

// What a start promises whatever its dependencies do, and what an end may take: the telemetry's last flush is most of it.
const (
	promisedLine  = 50 * time.Millisecond
	promisedDoor  = 300 * time.Millisecond
	promisedFlush = 3 * time.Second
)

// dependency is something that a router is told to use, and how.
type dependency struct {
	name string
	use  func(address string) []string
}

var (
	onEtcd = dependency{"etcd", func(at string) []string { return []string{"CONFIG_SERVICE_ENDPOINT=" + at} }}
	onGRPC = dependency{"OTLP over gRPC", func(at string) []string {
		return []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + at, "OTEL_EXPORTER_OTLP_PROTOCOL=grpc"}
	}}
	onHTTP = dependency{"OTLP over HTTP", func(at string) []string {
		return []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + at, "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"}
	}}
	onPostgres = dependency{"PostgreSQL", func(at string) []string {
		return []string{
			"policy.source=state", "state.url=postgres://router@" + at + "/router?sslmode=disable", "identity.order=development,state",
			"identity.peppers=env:PEPPER", "PEPPER=" + pepper,
		}
	}}
	onBackend = dependency{"a backend", func(at string) []string { return []string{"BACKEND_ENDPOINTS=spare:http://" + at} }}
)

// pantry is what a router without its dependencies lives on: policies in a file, and a last good file of the same.
type pantry struct{ documents, lastGood string }

func stock(t *testing.T, url string) pantry {
	t.Helper()
	dir := t.TempDir()
	p := pantry{filepath.Join(dir, "policies.yaml"), filepath.Join(dir, "policy.json")}
	text := fmt.Sprintf("kind: Backend\nid: north\nurl: %s\n---\nkind: RoutingPolicy\nid: global\nmodel: %s\nbackends: [{id: north}]\n", url, model)
	if err := os.WriteFile(p.documents, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	serve(t, "policy.source=file", "policy.file.path="+p.documents, "policy.last_good="+p.lastGood)
	eventually(t, "the last good file is there", func() error { _, err := os.Stat(p.lastGood); return err })
	return p
}

// born starts a router and holds it to what a start promises: the first log line, the door, and a request that a policy routes. Who waits for a
// dependency does so in each start; a start that was slow because the machine was busy is made again, twice at most.
func born(t *testing.T, p pantry, resolvConf string, settings ...string) *router {
	t.Helper()
	// The source is the default, a file, unless the settings name another.
	settings = append([]string{"policy.file.path=" + p.documents, "policy.last_good=" + p.lastGood}, settings...)
	for try := 1; ; try++ {
		r := launch(t, resolvConf, settings...)
		r.healthy(t)
		door := time.Since(r.begun)
		served := eventually(t, "a policy routes", func() error { return r.served("north") })
		eventually(t, "it logs", func() error { // What it has written comes by way of this process.
			if r.log.Begun().IsZero() {
				return errors.New("it is ready and has logged nothing")
			}
			return nil
		})
		line := r.log.Begun().Sub(r.begun)
		if try < 3 && (line > 10*promisedLine || max(door, served) > 10*promisedDoor) {
			t.Logf("start %d was slow: the first log line after %s, /healthz after %s, and an answer %s later", try, line, door, served)
			r.end(syscall.SIGKILL)
			continue
		}
		within(t, "from the start to the first log line", line, promisedLine)
		within(t, "from the start to /healthz", door, promisedDoor)
		within(t, "from /healthz to the first answer", served, promisedDoor)
		return r
	}
}

// ends holds a router to an orderly end that comes in time.
func (r *router) ends(t *testing.T) {
	t.Helper()
	asked := time.Now()
	if err := r.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-r.done:
	case <-time.After(10 * promisedFlush):
		t.Fatalf("it has not ended %s after SIGTERM", 10*promisedFlush)
	}
	within(t, "from SIGTERM to the end", time.Since(asked), promisedFlush)
	if code := r.ProcessState.ExitCode(); code != 0 {
		t.Errorf("it ended with %d", code)
	}
}

// ways are the deaths of the matrix. A full queue stands for dropped packets where none can be dropped.
var ways = []string{"refused", "SYN dropped", "queue full", "silent", "resetting", "NXDOMAIN", "dead resolver"}

func TestAStartWaitsForNobody(t *testing.T) {
	p := stock(t, engine(t))
	for _, way := range ways {
		t.Run(way, func(t *testing.T) {
			for _, dead := range [][]dependency{{onEtcd}, {onPostgres}, {onGRPC}, {onHTTP}, {onBackend}, {onPostgres, onHTTP, onBackend}, {onEtcd, onGRPC}, {onEtcd, onHTTP, onBackend}} {
				names := make([]string, 0, len(dead))
				for _, d := range dead {
					names = append(names, d.name)
				}
				t.Run(strings.Join(names, " and "), func(t *testing.T) {
					var settings []string
					for _, d := range dead {
						settings = append(settings, d.use(deaths[way].at(t))...)
					}
					r := born(t, p, deaths[way].resolvConf(t), settings...)
					t.Parallel() // Starts are measured one after the other; the ends may wait beside each other.
					r.ends(t)
				})
			}
		})
	}
}

func TestAStartWaitsForNobodyHoweverDependenciesMix(t *testing.T) {
	p := stock(t, engine(t))
	for _, mix := range []struct {
		etcd, collector string
		over            dependency
	}{
		{"silent", "refused", onGRPC},
		{"refused", "silent", onHTTP},
		{"dead resolver", "resetting", onGRPC},
		{"resetting", "dead resolver", onHTTP},
		{"queue full", "NXDOMAIN", onGRPC},
		{"NXDOMAIN", "SYN dropped", onHTTP},
	} {
		t.Run(fmt.Sprintf("etcd %s, %s %s", mix.etcd, mix.over.name, mix.collector), func(t *testing.T) {
			etcd, collector := deaths[mix.etcd], deaths[mix.collector]
			settings := append(onEtcd.use(etcd.at(t)), mix.over.use(collector.at(t))...)
			resolver := etcd.resolvConf(t)
			if resolver == "" {
				resolver = collector.resolvConf(t)
			}
			r := born(t, p, resolver, settings...)
			t.Parallel()
			r.ends(t)
		})
	}
}

// Whoever is dialed asks the router at once whether it is there. A dial that nobody waits for may slip through; a router that is slow never fails.
func TestNothingIsDialedBeforeTheRouterListens(t *testing.T) {
	p := stock(t, engine(t))
	for _, dialed := range []dependency{onEtcd, onGRPC, onHTTP, onBackend} {
		t.Run(dialed.name, func(t *testing.T) {
			public, asked := ports.Free(t), make(chan error, 1)
			at := acceptor(t, func(net.Conn) {
				c, err := net.DialTimeout("tcp", public, hang)
				if err == nil {
					_ = c.Close()
				}
				select {
				case asked <- err:
				default: // The first connection tells.
				}
			})
			settings := []string{"policy.file.path=" + p.documents, "policy.last_good=" + p.lastGood, "listen.public=" + public, "OTEL_METRIC_EXPORT_INTERVAL=100"}
			r := launch(t, "", append(settings, dialed.use(at)...)...)
			r.public = public
			select {
			case err := <-asked:
				if err != nil {
					t.Errorf("%s was dialed, and the router did not listen: %v", dialed.name, err)
				}
			case <-time.After(hang):
				t.Error("nobody was dialed: nothing was proved")
			}
			r.healthy(t)
			r.ends(t)
		})
	}
}

// complaints are the warnings and errors of a log that say a word.
func (r *router) complaints(word string) []string {
	var found []string
	for line := range strings.Lines(r.log.String()) {
		var entry struct{ Level string }
		if json.Unmarshal([]byte(line), &entry) == nil && (entry.Level == "WARN" || entry.Level == "ERROR") && strings.Contains(line, word) {
			found = append(found, line)
		}
	}
	return found
}

// The earlier service waited for its collector before it listened: with this endpoint, and nobody there, it never served.
func TestAnUnreachableCollectorAtStartIsNotEvenNoticedByClients(t *testing.T) {
	const endpoint = "localhost:4318"
	if c, err := net.DialTimeout("tcp", endpoint, prompt); err == nil {
		_ = c.Close()
		rig.Lacking(t, "somebody listens on "+endpoint+": the test needs that nobody does")
	}
	p := stock(t, engine(t))
	for _, protocol := range []string{"grpc", "http/protobuf", ""} {
		t.Run("protocol "+protocol, func(t *testing.T) {
			r := born(t, p, "", "OTEL_EXPORTER_OTLP_ENDPOINT="+endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL="+protocol)
			if err := r.get("/readyz"); err != nil {
				t.Error(err)
			}
			for range 20 {
				if err := r.served("north"); err != nil {
					t.Error(err)
				}
			}
			eventually(t, "the log says what is wrong", func() error {
				if len(r.complaints(endpoint)) == 0 {
					return errors.New("no warning names " + endpoint)
				}
				return nil
			})
			time.Sleep(2 * prompt) // Long enough for what is said again and again to be said again.
			const signals = 3
			if said := r.complaints(endpoint); len(said) > signals {
				t.Errorf("the log says it %d times, and once for each signal is enough:\n%s", len(said), strings.Join(said, ""))
			}
			r.ends(t)
		})
	}
}
