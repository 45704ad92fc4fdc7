package e2e

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	_ "google.golang.org/grpc/encoding/gzip" // Clients may compress.
)

// receiver is an OTLP collector that accepts everything and keeps the bytes of each request: what left the router, nothing decoded.
type receiver struct {
	grpc, http string // addresses

	mu       sync.Mutex
	requests map[string][]byte // by signal: traces, metrics, logs
}

func receive(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{requests: map[string][]byte{}}
	plain := httptest.NewServer(http.HandlerFunc(r.post))
	t.Cleanup(plain.Close)
	r.http = plain.Listener.Addr().String()

	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.grpc = l.Addr().String()
	server := grpc.NewServer(grpc.ForceServerCodec(untouched{}), grpc.UnknownServiceHandler(r.call))
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	return r
}

func (r *receiver) post(w http.ResponseWriter, request *http.Request) {
	body := io.Reader(request.Body)
	if request.Header.Get("Content-Encoding") == "gzip" {
		unzipped, err := gzip.NewReader(body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		body = unzipped
	}
	content, err := io.ReadAll(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	r.keep(strings.TrimPrefix(request.URL.Path, "/v1/"), content)
	w.Header().Set("Content-Type", "application/x-protobuf") // An empty message: all was accepted.
}

func (r *receiver) call(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	for _, signal := range []string{"traces", "metrics", "logs"} {
		// The method is /opentelemetry.proto.collector.trace.v1.TraceService/Export, and so on.
		if !strings.Contains(method, ".collector."+strings.TrimSuffix(signal, "s")) {
			continue
		}
		var message []byte
		if err := stream.RecvMsg(&message); err != nil {
			return err
		}
		r.keep(signal, message)
		return stream.SendMsg(&[]byte{})
	}
	return errors.New("no signal has the method " + method)
}

func (r *receiver) keep(signal string, content []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests[signal] = append(r.requests[signal], content...)
}

// got is everything that came for a signal.
func (r *receiver) got(signal string) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Clone(r.requests[signal])
}

// untouched passes messages on as the bytes that they are.
type untouched struct{}

func (untouched) Name() string { return "proto" }

func (untouched) Marshal(v any) ([]byte, error) {
	if content, ok := v.(*[]byte); ok {
		return *content, nil
	}
	return nil, errors.New("not bytes")
}

func (untouched) Unmarshal(content []byte, v any) error {
	into, ok := v.(*[]byte)
	if !ok {
		return errors.New("not bytes")
	}
	*into = bytes.Clone(content)
	return nil
}
