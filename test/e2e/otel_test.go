package e2e

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ai-aas/api-router/test/ports"
	"github.com/ai-aas/api-router/test/rig"
)

// collector is a real OpenTelemetry Collector that writes down in full what it gets.
type collector struct {
	*process
	grpc, http string // addresses
}

func startCollector(t *testing.T) *collector {
	t.Helper()
	path := rig.Tool(t, "otelcol")
	c := &collector{grpc: ports.Free(t), http: ports.Free(t)}
	config := filepath.Join(t.TempDir(), "collector.yaml")
	text := fmt.Sprintf(`receivers:
  otlp: { protocols: { grpc: { endpoint: %q }, http: { endpoint: %q } } }
exporters:
  debug: { verbosity: detailed, use_internal_logger: false }
service:
  telemetry: { metrics: { level: none } }
  pipelines:
    traces: { receivers: [otlp], exporters: [debug] }
    metrics: { receivers: [otlp], exporters: [debug] }
    logs: { receivers: [otlp], exporters: [debug] }
`, c.grpc, c.http)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c.process = start(t, path, nil, "--config", config)
	eventually(t, "the collector is ready", func() error {
		if !strings.Contains(c.log.String(), "Everything is ready") {
			return fmt.Errorf("it said %s", tail(c.log.String()))
		}
		return nil
	})
	return c
}

// batchHead is how the collector begins to tell of a batch of one signal.
var batchHead = regexp.MustCompile(`(?m)^Resource(Spans|Log|Metrics) #\d+$`)

// told is what the collector tells of one signal: Spans, Log or Metrics.
func (c *collector) told(signal string) string {
	text := c.log.String()
	var of strings.Builder
	heads := batchHead.FindAllStringSubmatchIndex(text, -1)
	for i, at := range heads {
		end := len(text)
		if i+1 < len(heads) {
			end = heads[i+1][0]
		}
		if text[at[2]:at[3]] == signal {
			of.WriteString(text[at[0]:end])
		}
	}
	return of.String()
}

// scrape reads /metrics as a scraper does that wants OpenMetrics.
func (r *router) scrape() (string, error) {
	request, err := http.NewRequest(http.MethodGet, "http://"+r.metrics+"/metrics", http.NoBody)
	if err != nil {
		return "", err
	}
	request.Header.Set("Accept", "application/openmetrics-text;version=1.0.0")
	response, err := r.client.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("/metrics: %s", response.Status)
	}
	return string(text), err
}

// talking makes a router say everything at once: each trace, and nothing waits long for its batch.
var talking = []string{"OTEL_TRACES_SAMPLER=always_on", "OTEL_BSP_SCHEDULE_DELAY=100", "OTEL_BLRP_SCHEDULE_DELAY=100", "OTEL_METRIC_EXPORT_INTERVAL=500"}

func TestOneTraceIdIsEverywhere(t *testing.T) {
	c := startCollector(t)
	p := stock(t, engine(t))
	for _, way := range []struct {
		over dependency
		at   string
	}{{onGRPC, c.grpc}, {onHTTP, c.http}} {
		t.Run(way.over.name, func(t *testing.T) {
			records := filepath.Join(t.TempDir(), "usage.jsonl")
			settings := append([]string{"policy.file.path=" + p.documents, "usage.sinks=jsonl:" + records}, talking...)
			r := serve(t, append(settings, way.over.use(way.at)...)...)
			eventually(t, "a policy routes", func() error { return r.served("north") })

			id := "0af7651916cd43dd8448eb211c80" + map[string]string{onGRPC.name: "0001", onHTTP.name: "0002"}[way.over.name]
			const parent = "b7ad6b7169203331"
			response, body := r.send(t, http.MethodPost, "/v1/chat/completions", chat(model, "Say hello.", false), "Traceparent", "00-"+id+"-"+parent+"-01")
			if response.StatusCode != http.StatusOK {
				t.Fatalf("got %s: %s", response.Status, body)
			}
			if got := response.Header.Get("X-Trace-Id"); got != id {
				t.Errorf("x-trace-id is %q, want %q", got, id)
			}

			says := func(what string, text func() string, wants ...string) {
				t.Helper()
				eventually(t, what, func() error {
					got := text()
					for _, want := range wants {
						if !regexp.MustCompile(want).MatchString(got) {
							return fmt.Errorf("no %q in\n%s", want, tail(got))
						}
					}
					return nil
				})
			}
			file := func() string {
				content, _ := os.ReadFile(records) // Not there yet is empty.
				return string(content)
			}
			metrics := func() string {
				text, err := r.scrape()
				if err != nil {
					return err.Error()
				}
				return text
			}
			says("the usage record has the trace id", file, `"trace_id":"`+id+`"`)
			says("the access line has the trace id", r.log.String, `"trace_id":"`+id+`"`)
			says("an exemplar has the trace id", metrics, `(?m)^api_router_gateway_request_duration_seconds_bucket\{.*# \{.*trace_id="`+id+`"`)
			// The request's own span has the client's as its parent; plan, attempt and settle lie below it.
			says("the spans arrive", func() string { return c.told("Spans") },
				`Trace ID\s*: `+id+`\n\s*Parent ID\s*: `+parent+`\n`, `(Trace ID\s*: `+id+`[\s\S]*){4}`, `service\.name: Str\(api-router\)`, `gen_ai\.request\.model: Str\(`+model+`\)`)
			says("the log line arrives", func() string { return c.told("Log") }, `Trace ID: `+id, `service\.name: Str\(api-router\)`)
			says("metrics arrive", func() string { return c.told("Metrics") }, `Name: api_router_gateway_requests`, `Name: api_router_build_info`, `service\.name: Str\(api-router\)`)
			if said := r.complaints(way.at); len(said) > 0 {
				t.Errorf("the log complains of a collector that is well: %s", strings.Join(said, ""))
			}
			r.ends(t)
		})
	}
}

// dropped is how much telemetry the router says that it has dropped, over all signals and reasons.
func (r *router) dropped() (total float64, err error) {
	text, err := r.scrape()
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "api_router_telemetry_dropped_total{") {
			continue
		}
		fields := strings.Fields(line[strings.Index(line, "}")+1:])
		if len(fields) == 0 {
			return 0, fmt.Errorf("no value in %q", line)
		}
		n, err := strconv.ParseFloat(fields[0], 64)
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}

func TestASilentCollectorUnderLoadCostsNoRequestAndNoMemory(t *testing.T) {
	p := stock(t, engine(t))
	length := 4 * prompt
	if testing.Short() {
		length = prompt
	}
	for _, over := range []dependency{onGRPC, onHTTP} {
		t.Run(over.name, func(t *testing.T) {
			settings := append([]string{"policy.file.path=" + p.documents}, talking...)
			r := serve(t, append(settings, over.use(silent(t))...)...)
			eventually(t, "a policy routes", func() error { return r.served("north") })
			l := r.load(t, 4)
			time.Sleep(length / 4) // The queues fill.
			before := r.rss(t)
			time.Sleep(length)
			after := r.rss(t)
			l.stop(t)
			t.Logf("resident memory %.1f MiB before, %.1f MiB after %s of load", before, after, length)
			if after > 2*before+32 {
				t.Errorf("the memory grew from %.1f to %.1f MiB", before, after)
			}
			eventually(t, "the drops are counted", func() error {
				n, err := r.dropped()
				if err == nil && n == 0 {
					err = errors.New("nothing was dropped")
				}
				return err
			})
			r.ends(t)
		})
	}
}
