package telemetry

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The signals, as OpenTelemetry calls the kinds of telemetry.
const (
	Traces  = "traces"
	Metrics = "metrics"
	Logs    = "logs"
)

// settings is what the environment says of OTLP, read once. See docs/telemetry.md for the rules.
type settings struct {
	traces, metrics, logs collector
	spans, lines          batching
	interval              time.Duration // between two exports of the metrics
	budget                time.Duration // of one export of the metrics
	sampler               sampler
	resource              []pair
	notes                 []note
}

// batching is how a signal is gathered before it is sent.
type batching struct {
	queue  int           // entries that wait at most
	batch  int           // spans or lines that are sent together
	delay  time.Duration // that an entry waits for others
	budget time.Duration // of one export, with all its attempts
}

// note is something that the log should say of the settings. It names variables and never repeats a value: a value may be a secret.
type note struct {
	level   slog.Level
	message string
	attrs   []any
}

type pair struct{ key, value string }

// Bounds on what the environment may ask for: nothing here may wait for ever or grow without end.
const (
	maxWait  = 10 * time.Minute
	maxDelay = 24 * time.Hour
	maxQueue = 1 << 20
	maxBatch = 1 << 14
)

// readSettings reads the standard variables. What cannot be used is a note. Where it says how to reach the collector, the signal is off
// then; where it is only a number or a name, the default stays.
func readSettings(env map[string]string, share float64) settings {
	r := &reader{env: env}
	s := settings{
		sampler:  r.sampler(share),
		resource: r.resource(),
		spans:    r.batching("OTEL_BSP_", 5*time.Second),
		lines:    r.batching("OTEL_BLRP_", time.Second),
		interval: r.milliseconds("OTEL_METRIC_EXPORT_INTERVAL", time.Minute, maxDelay),
		budget:   r.milliseconds("OTEL_METRIC_EXPORT_TIMEOUT", 30*time.Second, maxWait),
	}
	off := false
	if err := readTruth(r.text("OTEL_SDK_DISABLED"), &off); err != nil {
		r.warn("OTEL_SDK_DISABLED", err, "nothing is disabled")
	}
	for _, signal := range []struct {
		name string
		to   *collector
	}{{Traces, &s.traces}, {Metrics, &s.metrics}, {Logs, &s.logs}} {
		*signal.to = collector{off: "OTEL_SDK_DISABLED is true"}
		if !off {
			*signal.to = r.collector(signal.name)
		}
	}
	s.notes = r.notes
	return s
}

// reader reads variables and gathers what is wrong with them.
type reader struct {
	env   map[string]string
	notes []note
}

// text is the variable's value; an empty one counts as not set.
func (r *reader) text(name string) string { return strings.TrimSpace(r.env[name]) }

func (r *reader) warn(name string, err error, consequence string) {
	r.notes = append(r.notes, note{slog.LevelWarn, "an environment variable has no usable value: " + consequence, []any{"name", name, "error", err.Error()}})
}

func readTruth(text string, to *bool) error {
	switch strings.ToLower(text) {
	case "true":
		*to = true
	case "false", "":
		*to = false
	default:
		return errors.New("it is neither true nor false")
	}
	return nil
}

func (r *reader) milliseconds(name string, standard, most time.Duration) time.Duration {
	text := r.text(name)
	if text == "" {
		return standard
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 || n > most.Milliseconds() {
		r.warn(name, fmt.Errorf("it is not a number of milliseconds from 1 to %d", most.Milliseconds()), "the default "+standard.String()+" is used")
		return standard
	}
	return time.Duration(n) * time.Millisecond
}

func (r *reader) count(name string, standard, most int) int {
	text := r.text(name)
	if text == "" {
		return standard
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		r.warn(name, fmt.Errorf("it is not a number from 1 to %d", most), fmt.Sprintf("the default %d is used", standard))
		return standard
	}
	return n
}

func (r *reader) batching(prefix string, delay time.Duration) batching {
	return batching{
		queue:  r.count(prefix+"MAX_QUEUE_SIZE", 2048, maxQueue),
		batch:  r.count(prefix+"MAX_EXPORT_BATCH_SIZE", 512, maxBatch),
		delay:  r.milliseconds(prefix+"SCHEDULE_DELAY", delay, maxDelay),
		budget: r.milliseconds(prefix+"EXPORT_TIMEOUT", 30*time.Second, maxWait),
	}
}

// sampler reads OTEL_TRACES_SAMPLER. Without it, a caller's decision holds, and of the traces that begin here the share is sampled.
func (r *reader) sampler(share float64) sampler {
	const name, argument = "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"
	standard := sampler{parent: true, share: share}
	kind, text := strings.ToLower(r.text(name)), r.text(argument)
	if kind == "" {
		if text != "" {
			r.notes = append(r.notes, note{
				slog.LevelWarn, "an environment variable has no effect, because another is not set",
				[]any{"name", argument, "needs", name},
			})
		}
		return standard
	}
	rest, parent := strings.CutPrefix(kind, "parentbased_")
	switch rest {
	case "always_on":
		return sampler{parent: parent, share: 1}
	case "always_off":
		return sampler{parent: parent}
	case "traceidratio":
	default:
		r.warn(name, errors.New("it is none of always_on, always_off, traceidratio and these after parentbased_"),
			"telemetry.traces.sample is used, parent-based")
		return standard
	}
	ratio := 1.0
	if text != "" {
		var err error
		if ratio, err = strconv.ParseFloat(text, 64); err != nil || !(ratio >= 0 && ratio <= 1) {
			r.warn(argument, errors.New("it is not a number from 0 to 1"), "telemetry.traces.sample is used")
			ratio = share
		}
	}
	return sampler{parent: parent, share: ratio}
}

// resource reads who this process is: OTEL_RESOURCE_ATTRIBUTES, of which a part that cannot be read voids the whole, as specified.
func (r *reader) resource() []pair {
	const name = "OTEL_RESOURCE_ATTRIBUTES"
	pairs, err := readPairs(r.text(name))
	if err != nil {
		r.warn(name, err, "none of it is used")
		pairs = nil
	}
	if service := r.text("OTEL_SERVICE_NAME"); service != "" {
		pairs = slices.DeleteFunc(pairs, func(p pair) bool { return p.key == serviceName })
		pairs = append(pairs, pair{serviceName, service})
	}
	return pairs
}

// readPairs reads key=value,key=value with percent-encoded values, the form of W3C Baggage. Of a key that stands twice the last counts.
// Its error names a place and no value.
func readPairs(text string) ([]pair, error) {
	var pairs []pair
	entry := 0
	for part := range strings.SplitSeq(text, ",") {
		entry++
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		key, value, found := strings.Cut(part, "=")
		key, keyErr := url.PathUnescape(strings.TrimSpace(key))
		value, valueErr := url.PathUnescape(strings.TrimSpace(value))
		switch {
		case !found || key == "":
			return nil, fmt.Errorf("entry %d is not of the form key=value", entry)
		case keyErr != nil || valueErr != nil:
			return nil, fmt.Errorf("entry %d is not percent-encoded: a plain %% is written %%25", entry)
		}
		pairs = slices.DeleteFunc(pairs, func(p pair) bool { return p.key == key })
		pairs = append(pairs, pair{key, value})
	}
	return pairs, nil
}

// validShare makes a share of all traces out of any number.
func validShare(share float64) float64 {
	if math.IsNaN(share) {
		return 0
	}
	return min(max(share, 0), 1)
}
