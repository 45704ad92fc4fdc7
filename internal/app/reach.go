package app

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/fleet"
	"github.com/ai-aas/api-router/internal/telemetry"
)

const (
	// reachWithin is how long doctor waits for one connection, its handshake and its answer.
	reachWithin = 2 * time.Second
	// maxPage bounds what is read of a page that tells who serves it, in bytes.
	maxPage = 1 << 20
)

// doorway is a listener of serve, as doctor recognizes one that is open already.
type doorway struct {
	ways string // to move it
	// path is asked for without a credential. What one of us answers has the status and, of header and text, what is not empty.
	path   string
	status int
	header string // that is there
	text   string // that the page holds
}

// doorways are the listeners, by their settings.
var doorways = map[string]doorway{
	pathListenPublic: {
		"listen.public (API_ROUTER_LISTEN_PUBLIC, --listen)", "/v1/status/healthz", http.StatusOK, "X-Request-Id", `"components"`,
	},
	pathListenMetrics: {
		"listen.metrics (API_ROUTER_LISTEN_METRICS, --metrics-listen)", telemetry.PathMetrics, http.StatusOK, "", "api_router_build_info",
	},
	pathListenAdmin: {
		"listen.admin (API_ROUTER_LISTEN_ADMIN, --admin-listen)", adminapi.Prefix + "/fleet", http.StatusUnauthorized, "X-Request-Id", "",
	},
}

// listener tells whether serve could open the port of a listener, or is already there.
func (d *doctor) listener(ctx context.Context, setting, address string) {
	door := doorways[setting]
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	switch {
	case err == nil:
		_ = listener.Close() // It was opened for the question alone.
		d.say(verdictOK, "listen", address+" is free")
	case !errors.Is(err, syscall.EADDRINUSE):
		d.say(verdictFail, "listen", fmt.Sprintf("%s cannot be opened: %v; set %s", address, err, setting))
	case door.ours(ctx, setting, address):
		d.say(verdictOK, "listen", address+" is served by an api-router that is running")
	default:
		d.say(verdictFail, "listen", address+" is taken by another process; set "+door.ways)
	}
}

// ours asks whoever has the port of a listener whether it is one of us.
func (door *doorway) ours(ctx context.Context, setting, address string) bool {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	base := "http://" + net.JoinHostPort(host, port)
	transport, err := fleet.NewTransport(fleet.Spec{ID: setting, URL: base})
	if err != nil {
		return false
	}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, reachWithin)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, base+door.path, http.NoBody)
	if err != nil {
		return false
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return false
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxPage))
	return err == nil && response.StatusCode == door.status && (door.header == "" || response.Header.Get(door.header) != "") &&
		strings.Contains(string(text), door.text)
}

// collector is where one signal of telemetry goes.
type collector struct {
	signal  string // traces, metrics, logs
	address string // host:port
	tls     bool
	ca      string // PEM file of the authorities, "" for the system's
}

// signals are what is sent by OTLP.
var signals = []string{"traces", "metrics", "logs"}

// collectorsOf reads the standard variables of OpenTelemetry. Its error says which of them has no usable value.
//
// An endpoint without a scheme is spoken to in plain text, unless OTEL_EXPORTER_OTLP_INSECURE says false.
func collectorsOf(env map[string]string) ([]collector, error) {
	if disabled, _ := strconv.ParseBool(env["OTEL_SDK_DISABLED"]); disabled {
		return nil, nil
	}
	var all []collector
	for _, signal := range signals {
		if strings.EqualFold(env["OTEL_"+strings.ToUpper(signal)+"_EXPORTER"], "none") {
			continue
		}
		own := "OTEL_EXPORTER_OTLP_" + strings.ToUpper(signal) + "_"
		const shared = "OTEL_EXPORTER_OTLP_"
		text := strings.TrimSpace(cmp.Or(env[own+"ENDPOINT"], env[shared+"ENDPOINT"]))
		if text == "" {
			continue
		}
		plain := true
		if insecure, err := strconv.ParseBool(cmp.Or(env[own+"INSECURE"], env[shared+"INSECURE"])); err == nil {
			plain = insecure
		}
		address, secured, ok := endpointOf(text, plain)
		if !ok { // Its text is not repeated: it may hold a password.
			name := shared + "ENDPOINT"
			if env[own+"ENDPOINT"] != "" {
				name = own + "ENDPOINT"
			}
			return nil, fmt.Errorf("%s is not of the form host:port, http://host:port or https://host:port", name)
		}
		all = append(all, collector{signal, address, secured, cmp.Or(env[own+"CERTIFICATE"], env[shared+"CERTIFICATE"])})
	}
	return all, nil
}

// endpointOf reads where a collector is.
func endpointOf(text string, plain bool) (address string, secured, ok bool) {
	if !strings.Contains(text, "://") {
		scheme := "https://"
		if plain {
			scheme = "http://"
		}
		if _, port, err := net.SplitHostPort(text); err != nil || port == "" {
			text += ":4317"
		}
		text = scheme + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" {
		return "", false, false
	}
	port := u.Port()
	switch {
	case port != "":
	case u.Scheme == "https":
		port = "443"
	default:
		port = "80"
	}
	return net.JoinHostPort(u.Hostname(), port), u.Scheme == "https", true
}

// collectors connects to wherever telemetry goes, once for signals that go to the same place.
func (d *doctor) collectors(ctx context.Context, env map[string]string) {
	all, err := collectorsOf(env)
	if err != nil {
		d.say(verdictFail, "telemetry", err.Error()+"; correct it")
		return
	}
	type place struct {
		address, ca string
		tls         bool
	}
	at := map[place][]string{}
	var places []place
	for _, c := range all {
		p := place{c.address, c.ca, c.tls}
		if at[p] == nil {
			places = append(places, p)
		}
		at[p] = append(at[p], c.signal)
	}
	for _, p := range places {
		what := strings.Join(at[p], ", ")
		if err := reach(ctx, p.address, p.tls, p.ca); err != nil {
			d.say(verdictFail, "telemetry", fmt.Sprintf("the collector of %s at %s cannot be reached: %v; start it, or correct OTEL_EXPORTER_OTLP_ENDPOINT. "+
				"Until then telemetry is dropped, and requests are served all the same", what, p.address, err))
			continue
		}
		d.say(verdictOK, "telemetry", "the collector of "+what+" at "+p.address+" accepts connections")
	}
}

// reach connects, with a handshake where there is TLS, and closes again.
func reach(ctx context.Context, address string, secured bool, ca string) error {
	ctx, cancel := context.WithTimeout(ctx, reachWithin)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if !secured {
		return nil
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	config := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return fmt.Errorf("OTEL_EXPORTER_OTLP_CERTIFICATE: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return errors.New("OTEL_EXPORTER_OTLP_CERTIFICATE holds no certificate in PEM form")
		}
	}
	return tls.Client(conn, config).HandshakeContext(ctx)
}
