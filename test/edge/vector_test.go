package edge

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// vector is a piece of raw bytes and what must come of it.
type vector struct {
	name string
	send string
	// status of the first answer; 0 for none at all.
	status int
	// code and param of our envelope. A refusal without a code is net/http's own, from before any handler.
	code, param string
	// closes says that the connection ends with the answer. Otherwise it must serve a further request.
	closes bool
	// asked counts the requests that reach the backend.
	asked int
	// then are the statuses of further answers on the same connection.
	then []int
	// end closes the client's side after the bytes: nothing more will come.
	end bool
}

// fields are the headers of every good request.
const fields = "Host: router\r\nX-API-Key: " + key + "\r\nContent-Type: application/json\r\n"

// hello is a good body, and good a good request.
const hello = `{"model":"m","messages":[{"role":"user","content":"Hi"}]}`

var good = chat(hello)

// chat is a request for a chat completion with further header lines.
func chat(body string, lines ...string) string { return post("/v1/chat/completions", body, lines...) }

func post(path, body string, lines ...string) string {
	return request("POST "+path+" HTTP/1.1", append(lines, fmt.Sprintf("Content-Length: %d", len(body)))...) + body
}

func get(path string, lines ...string) string { return request("GET "+path+" HTTP/1.1", lines...) }

// request is a request's head with the usual headers.
func request(line string, lines ...string) string {
	return line + "\r\n" + fields + strings.Join(append(lines, "\r\n"), "\r\n")
}

// chunks is a request whose body comes in the given bytes, which need not be chunks.
func chunks(raw string, lines ...string) string {
	return request("POST /v1/chat/completions HTTP/1.1", append(lines, "Transfer-Encoding: chunked")...) + raw
}

// chunk is one chunk.
func chunk(text string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(text), text) }

// play sends each vector on a connection of its own.
func play(t *testing.T, vectors []vector) {
	t.Helper()
	r := start(t, nil)
	for _, v := range vectors {
		t.Run(v.name, func(t *testing.T) {
			before := r.backend.asked()
			r.send(t, v)
			if got := r.backend.asked() - before; got != v.asked {
				t.Errorf("%d requests reached the backend, want %d", got, v.asked)
			}
			r.works(t)
		})
	}
}

func (r *router) send(t *testing.T, v vector) {
	t.Helper()
	conn := r.dial(t)
	defer conn.Close()
	_, _ = io.WriteString(conn, v.send) // The router may close before it has read all.
	if v.end {
		_ = conn.CloseWrite()
	}
	from := bufio.NewReader(conn)
	method, _, _ := strings.Cut(v.send, " ")
	got := receive(from, method)
	if got.status != v.status || v.code != "" && got.err != nil { // net/http's own refusals may end in a reset.
		t.Fatalf("got %+v, want status %d", got, v.status)
	}
	if v.status == 0 {
		if !closed(from) {
			t.Error("the connection stays open")
		}
		return
	}
	code, param := got.refusal()
	if code != v.code || param != v.param {
		t.Errorf("code %q param %q, want %q %q: %s", code, param, v.code, v.param, got.body)
	}
	if ours := got.header.Get("X-Request-Id") != ""; ours != (v.code != "" || v.status < 400) && method != http.MethodHead {
		t.Errorf("an x-request-id is there: %v", ours)
	}
	if v.status == http.StatusMethodNotAllowed && got.header.Get("Allow") == "" {
		t.Error("no Allow")
	}
	for _, status := range v.then {
		if got = receive(from, http.MethodGet); got.status != status {
			t.Fatalf("a further answer is %+v, want %d", got, status)
		}
	}
	if v.closes {
		if !got.closes || !closed(from) {
			t.Errorf("the connection stays open, announced: %v", got.closes)
		}
		return
	}
	_, _ = io.WriteString(conn, get("/healthz"))
	if got := receive(from, http.MethodGet); got.status != http.StatusOK || got.body != "ok\n" {
		t.Errorf("the connection's next request gets %+v", got)
	}
}

// count tells how many vectors there are, each with a name of its own.
func count(t *testing.T, tables ...[]vector) (n int) {
	t.Helper()
	seen := map[string]bool{}
	for _, table := range tables {
		for _, v := range table {
			if seen[v.name] {
				t.Errorf("two vectors are called %q", v.name)
			}
			seen[v.name] = true
			n++
		}
	}
	return n
}

func TestThereAreEnoughVectors(t *testing.T) {
	if n := count(t, doorVectors(), framingVectors(), jsonVectors()); n < 60 {
		t.Errorf("%d vectors", n)
	} else {
		t.Logf("%d vectors", n)
	}
}
