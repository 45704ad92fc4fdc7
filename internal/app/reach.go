package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/ai-aas/api-router/internal/adminapi"
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
func (d *doctor) listener(ctx context.Context, setting, address string, secure ListenTLS) {
	door := doorways[setting]
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	switch {
	case err == nil:
		_ = listener.Close() // It was opened for the question alone.
		d.say(verdictOK, "listen", address+" is free")
	case !errors.Is(err, syscall.EADDRINUSE):
		d.say(verdictFail, "listen", fmt.Sprintf("%s cannot be opened: %v; set %s", address, err, setting))
	case door.ours(ctx, address, secure):
		d.say(verdictOK, "listen", address+" is served by an api-router that is running")
	default:
		d.say(verdictFail, "listen", address+" is taken by another process; set "+door.ways)
	}
}

// ours asks whoever has the port of a listener whether it is one of us.
func (door *doorway) ours(ctx context.Context, address string, secure ListenTLS) bool {
	base, err := localURL(address, secure)
	if err != nil {
		return false
	}
	transport, err := localTransport(base, secure)
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

// collectors sends nothing to wherever telemetry goes, and tells what the collector says to that.
func (d *doctor) collectors(ctx context.Context, env map[string]string) {
	ctx, cancel := context.WithTimeout(ctx, reachWithin)
	defer cancel()
	for _, t := range telemetry.Try(ctx, env, "api-router doctor") {
		switch {
		case t.Off:
		case t.Endpoint == "":
			d.say(verdictFail, "telemetry", fmt.Sprintf("no %s are sent: %v; correct it", t.Signal, t.Err))
		case t.Err != nil:
			d.say(verdictFail, "telemetry", fmt.Sprintf("%s at %s (%s) are not taken: %v; mend the collector, or correct OTEL_EXPORTER_OTLP_ENDPOINT and what is beside it. "+
				"Until then they are dropped, and requests are served all the same", t.Signal, t.Endpoint, t.Protocol, t.Err))
		default:
			d.say(verdictOK, "telemetry", fmt.Sprintf("%s at %s (%s) are taken", t.Signal, t.Endpoint, t.Protocol))
		}
	}
}
