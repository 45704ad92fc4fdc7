package subject

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// programs are the subjects that are processes of their own.
var programs = map[string]struct {
	version string // the argument that makes it tell its version
	hint    string // what to do where it is missing
	prepare func(dir, listen string, s Site) ([]string, error)
	env     []string
}{
	Router:  {"version", "make build makes it", prepareRouter, []string{"API_ROUTER_IDENTITY_DEVELOPMENT_KEYS=true"}},
	Nginx:   {"-v", "install it (Debian: apt-get install nginx)", prepareNginx, []string{"LC_ALL=C"}},
	HAProxy: {"-v", "install it (Debian: apt-get install haproxy)", prepareHAProxy, []string{"LC_ALL=C"}},
}

// The variants of the router that its telemetry is judged by.
const (
	Off    = "telemetry off"
	Traced = "traced"
	Unread = "silent collector"
)

// Variants are the router without telemetry; with every tenth request traced to a collector that answers, which is what tracing itself
// costs; and with all three signals for a collector that accepts and never answers. What is collected leaves often: within seconds, a
// silent collector has all that waits for it waiting.
func Variants(router *Subject) []*Subject {
	variant := func(name string, collector func(Site) string, more ...string) *Subject {
		v := *router
		v.Name = name
		v.extra = func(s Site) []string {
			address := collector(s)
			if address == "" {
				return nil
			}
			return append([]string{
				"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + address, "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
				"OTEL_TRACES_SAMPLER=parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG=0.1",
				"OTEL_BSP_SCHEDULE_DELAY=200", "OTEL_BLRP_SCHEDULE_DELAY=200", "OTEL_METRIC_EXPORT_INTERVAL=1000",
			}, more...)
		}
		return &v
	}
	return []*Subject{
		variant(Off, func(Site) string { return "" }),
		variant(Traced, func(s Site) string { return s.Collector }, "OTEL_METRICS_EXPORTER=none", "OTEL_LOGS_EXPORTER=none"),
		variant(Unread, func(s Site) string { return s.Silent }),
	}
}

func write(dir, name, format string, args ...any) (string, error) {
	path := filepath.Join(dir, name)
	return path, os.WriteFile(path, fmt.Appendf(nil, format, args...), 0o600)
}

// prepareRouter configures the router with everything on that it has: keys are checked, policies looked up, every request leaves a
// record in a file. Only the log line of each request is left out, as the others write none.
func prepareRouter(dir, listen string, s Site) ([]string, error) {
	var policies strings.Builder
	fmt.Fprintf(&policies, "kind: Backend\nid: bench\nurl: http://%s\nengine: vllm\n", s.Backend)
	for _, model := range s.Models {
		fmt.Fprintf(&policies, "---\nkind: RoutingPolicy\nid: %s\nmodel: %s\nbackends: [ { id: bench } ]\n", model, model)
	}
	documents, err := write(dir, "policies.yaml", "%s", policies.String())
	if err != nil {
		return nil, err
	}
	config, err := write(dir, "config.yaml", `environment: development
listen: { public: %q, metrics: "127.0.0.1:0" }
log: { level: warn }
policy: { source: file, file: { path: %q }, last_good: "" }
usage: { sinks: [ { type: jsonl, path: %q } ] }
server: { drain_grace: 0s, drain_timeout: 1s }
`, listen, documents, filepath.Join(dir, "usage.jsonl"))
	return []string{"serve", "--config", config}, err
}

// prepareNginx configures a plain reverse proxy that keeps its connections to the backend. Answers are not buffered, or events would
// be held back; bodies up to 512 KB stay in memory, or nginx would write them to disk.
func prepareNginx(dir, listen string, s Site) ([]string, error) {
	for _, d := range []string{"body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			return nil, err
		}
	}
	config, err := write(dir, "nginx.conf", `daemon off;
pid nginx.pid;
error_log stderr error;
worker_processes %d;
worker_rlimit_nofile 20000;
events { worker_connections 8192; }
http {
  access_log off;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  client_max_body_size 64m;
  client_body_buffer_size 512k;
  keepalive_timeout 120s;
  keepalive_requests 100000000;
  upstream bench {
    server %s;
    keepalive 2048;
    keepalive_requests 100000000;
    keepalive_timeout 120s;
  }
  server {
    listen %s backlog=4096;
    location / {
      proxy_pass http://bench;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }
  }
}
`, s.Workers, s.Backend, listen)
	return []string{"-p", dir, "-e", "stderr", "-c", config}, err
}

// prepareHAProxy configures a plain reverse proxy that shares its connections to the backend. Without http-no-delay each event of a
// stream waits for the next one.
func prepareHAProxy(dir, listen string, s Site) ([]string, error) {
	config, err := write(dir, "haproxy.cfg", `global
  nbthread %d
  maxconn 8192
defaults
  mode http
  timeout connect 5s
  timeout client 120s
  timeout server 120s
  timeout http-keep-alive 120s
  option http-no-delay
  http-reuse always
frontend bench
  bind %s backlog 4096
  default_backend bench
backend bench
  server bench %s
`, s.Workers, listen, s.Backend)
	return []string{"-db", "-f", config}, err
}
