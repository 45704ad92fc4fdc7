package ops

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/ai-aas/api-router/test/rig"
)

const collectorFile = root + "/deploy/otel/collector.yaml"

func TestTheCollectorsPipelinesAreMadeOfPartsThatItHas(t *testing.T) {
	var c struct {
		Receivers, Processors, Exporters map[string]any
		Service                          struct {
			Pipelines map[string]struct{ Receivers, Processors, Exporters []string }
		}
	}
	readYAML(t, collectorFile, &c)
	for _, signal := range []string{"traces", "metrics", "logs"} {
		p, ok := c.Service.Pipelines[signal]
		if !ok || len(p.Receivers) == 0 || len(p.Exporters) == 0 {
			t.Errorf("%s: no pipeline from a receiver to an exporter", signal)
		}
		if len(p.Processors) == 0 || p.Processors[0] != "memory_limiter" || !slices.Contains(p.Processors, "batch") {
			t.Errorf("%s: the processors are %v, want memory_limiter first, and batch", signal, p.Processors)
		}
		for _, part := range []struct {
			there map[string]any
			named []string
		}{{c.Receivers, p.Receivers}, {c.Processors, p.Processors}, {c.Exporters, p.Exporters}} {
			for _, name := range part.named {
				if _, ok := part.there[name]; !ok {
					t.Errorf("%s: names %s, which is not there", signal, name)
				}
			}
		}
	}
	text := read(t, collectorFile)
	for _, port := range []string{"${env:OTLP_LISTEN_HOST:-127.0.0.1}:4317", "${env:OTLP_LISTEN_HOST:-127.0.0.1}:4318"} {
		if !strings.Contains(text, port) {
			t.Errorf("it does not listen on %s", port)
		}
	}
}

func TestTheCollectorTakesItsConfiguration(t *testing.T) {
	if out, err := exec.CommandContext(t.Context(), rig.Tool(t, "otelcol"), "validate", "--config", collectorFile).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
