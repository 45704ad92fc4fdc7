package proxy

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/fleet"
	"github.com/ai-aas/api-router/internal/wire"
)

// keeper is a client's connection that fails and goes on to use what it was given, as net/http's does over HTTP/2: a frame that is on
// its way when the client resets the stream is still being written after Write has returned.
type keeper struct {
	http.ResponseWriter

	header http.Header
	kept   []byte
}

func (k *keeper) Header() http.Header { return k.header }
func (k *keeper) WriteHeader(int)     {}

func (k *keeper) Write(p []byte) (int, error) {
	k.kept = p
	return 0, errors.New("the stream is closed")
}

func TestAnAnswerThatCouldNotBeWrittenIsNotOverwritten(t *testing.T) {
	answer := `{"text":"` + strings.Repeat("a", 100<<10) + `"}`
	for range 8 { // A pool may lose what it is given.
		client := &keeper{header: http.Header{}}
		flight := &flight{opts: &Options{}, w: client, client: *http.NewResponseController(client), req: &Request{}, lease: &fleet.Lease{}}
		resp := &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, ContentLength: int64(len(answer))}
		if res := flight.answer(t.Context(), resp, strings.NewReader(answer)); res.err == nil {
			t.Fatal("no error")
		}
		other := wire.Borrow(len(answer))
		other.B = append(other.B, bytes.Repeat([]byte("b"), len(answer))...)
		if string(client.kept) != answer {
			t.Fatal("another request has written into an answer that is still on its way")
		}
	}
}

func TestABodyThatWasClosedIsNotReadAnyMore(t *testing.T) {
	for name, read := range map[string]func(b *outgoingBody) (int64, error){
		"Read": func(b *outgoingBody) (int64, error) {
			n, err := b.Read(make([]byte, 8))
			return int64(n), err
		},
		"WriteTo": func(b *outgoingBody) (int64, error) { return b.WriteTo(io.Discard) },
	} {
		t.Run(name, func(t *testing.T) {
			body := outgoing(t)
			if err := body.Close(); err != nil {
				t.Fatal(err)
			}
			if n, err := read(body); n != 0 || !errors.Is(err, http.ErrBodyReadAfterClose) {
				t.Errorf("%d bytes, %v", n, err)
			}
		})
	}
}

func TestABodyThatIsBeingReadIsNotFree(t *testing.T) {
	body := outgoing(t)
	closed := make(chan error)
	_, err := body.WriteTo(writer(func(p []byte) (int, error) {
		go func() { closed <- body.Close() }()
		time.Sleep(20 * time.Millisecond) // Time enough for a Close that does not wait.
		if body.closed.Load() {
			t.Error("closed while it was read")
		}
		return len(p), nil
	}))
	if err := errors.Join(err, <-closed); err != nil || !body.closed.Load() {
		t.Errorf("not closed: %v", err)
	}
}

type writer func(p []byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

// outgoing is a request's body before a transport has looked at it.
func outgoing(t *testing.T) *outgoingBody {
	t.Helper()
	content := []byte(`{"model":"m","messages":[{}]}`)
	scanned, err := wire.Scan(content, wire.Chat)
	if err != nil {
		t.Fatal(err)
	}
	body := scanned.Rewrite(content, wire.Rewrite{})
	return &outgoingBody{body: body, reader: body.Reader()}
}
