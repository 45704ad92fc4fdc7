package edge

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	// mutants is how many damaged requests are sent; a tenth of them with -short.
	mutants = 20_000
	// seed makes the same mutants in every run.
	seed = 1
	// senders is how many connections are in use at a time.
	senders = 4
)

// Twenty thousand damaged requests: none of them makes the router panic, hang, leak or say that a fault is its own.
func TestMutants(t *testing.T) {
	n := mutants
	if testing.Short() {
		n /= 10
	}
	r := start(t, nil)
	r.works(t)
	before := runtime.NumGoroutine()
	var next atomic.Int64
	var wg sync.WaitGroup
	totals := make([]map[string]int, senders)
	for worker := range senders {
		wg.Go(func() {
			s := &sender{router: r, outcomes: map[string]int{}}
			defer s.drop()
			for i := next.Add(1); i <= int64(n) && !t.Failed(); i = next.Add(1) {
				raw := mutant(uint64(i))
				if err := s.send(t, raw); err != nil {
					t.Errorf("mutant %d: %v\n%q", i, err, raw)
				}
			}
			totals[worker] = s.outcomes
		})
	}
	wg.Wait()
	outcomes := map[string]int{}
	for _, total := range totals {
		for outcome, count := range total {
			outcomes[outcome] += count
		}
	}
	report := &strings.Builder{}
	for _, outcome := range slices.Sorted(maps.Keys(outcomes)) {
		fmt.Fprintf(report, "\n%6d %s", outcomes[outcome], outcome)
	}
	t.Logf("%d mutants, %d requests at the backend, answers:%s", n, r.backend.asked(), report)
	for _, common := range []string{"200", "400", "400 invalid_json", "400 invalid_request", "400 ambiguous_request", "401 invalid_api_key", "404 not_found"} {
		if outcomes[common] < n/1000 {
			t.Errorf("hardly any mutant gets %s: they are too wild or too tame", common)
		}
	}
	r.works(t)
	for deadline := time.Now().Add(hang); runtime.NumGoroutine() > before+10*senders; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
}

// sender sends mutants one after the other, on one connection as long as that is in order.
type sender struct {
	router   *router
	conn     *net.TCPConn
	from     *bufio.Reader
	outcomes map[string]int
}

func (s *sender) drop() {
	if s.conn != nil {
		_ = s.conn.SetLinger(0) // Twenty thousand connections in TIME_WAIT would be too many.
		s.conn.Close()
		s.conn = nil
	}
}

// send sends one mutant and judges what comes back.
func (s *sender) send(t *testing.T, raw []byte) error {
	methods, whole := requests(raw)
	whole = whole && !bytes.HasPrefix(raw, []byte("PRI * HTTP/2.0\r\n")) // The router waits for the preface's second half.
	if !whole {
		s.drop() // What it leaves behind must not meet the next one.
	}
	if s.conn == nil {
		s.conn = s.router.dial(t)
		s.from = bufio.NewReader(s.conn)
	}
	_ = s.conn.SetDeadline(time.Now().Add(hang))
	_, _ = s.conn.Write(raw)
	if !whole {
		defer s.drop()
		_ = s.conn.CloseWrite()
		if bytes.HasPrefix(raw, []byte("PRI * HTTP/2.0\r\n\r\nSM")) {
			return s.untilGoAway()
		}
	}
	for i := 0; whole && i < len(methods) || !whole; i++ {
		method := http.MethodPost
		if i < len(methods) {
			method = methods[i]
		}
		got := receive(s.from, method)
		for got.status == http.StatusContinue {
			got = receive(s.from, method)
		}
		if err := s.judge(got); err != nil {
			return err
		}
		if got.err != nil || got.closes {
			s.drop()
			return nil
		}
	}
	return nil
}

// untilGoAway reads frames until the router ends the connection, or says that it will.
func (s *sender) untilGoAway() error {
	for {
		kind, _, _, _, err := readFrame(s.from)
		if err != nil || kind == frameGoAway {
			return hung(err)
		}
	}
}

func hung(err error) error {
	if isTimeout(err) {
		return fmt.Errorf("it hangs: %w", err)
	}
	return nil
}

// judge holds an answer to what may be answered to anything. No answer is in order: the client may have left.
func (s *sender) judge(got answer) error {
	code, _ := got.refusal()
	s.outcomes[strings.TrimSpace(fmt.Sprint(got.status, " ", code))]++
	if got.err != nil {
		return hung(got.err)
	}
	ours := got.header.Get("X-Request-Id") != ""
	switch {
	case got.status == http.StatusNotImplemented || got.status == http.StatusHTTPVersionNotSupported:
		if ours {
			return fmt.Errorf("status %d is ours", got.status)
		}
	case got.status >= 500:
		return fmt.Errorf("status %d: %s", got.status, got.body)
	case got.status >= 400 && ours && code == "" && got.body != "":
		return fmt.Errorf("status %d without an envelope: %s", got.status, got.body)
	case got.status < 400 && !ours:
		return fmt.Errorf("status %d without a request id", got.status)
	}
	return nil
}

// requests reads raw as net/http's server would. whole says that it is requests and nothing else, the last one complete.
func requests(raw []byte) (methods []string, whole bool) {
	from := bufio.NewReader(bytes.NewReader(raw))
	for {
		if _, err := from.Peek(1); err != nil {
			return methods, len(methods) > 0
		}
		r, err := http.ReadRequest(from)
		if err != nil {
			return methods, false
		}
		methods = append(methods, r.Method)
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return methods, false
		}
	}
}

// corpus is what mutants are made of.
var corpus = []string{
	good,
	chat(`{"model":"org/m","stream":true,"stream_options":{"include_usage":true},"n":2,"messages":[{"role":"system","content":"Grüße, \ud83d\ude00"},{"role":"user","content":[{"type":"text","text":"Hi"}]}]}`),
	chat(`{"stream":true,"temperature":0.7,"max_tokens":64,"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{}}}}],"messages":[{"role":"user","content":"x\n\"y\""}],"model":"m"}`,
		"Accept: text/event-stream", "X-Session-Id: s-1", "Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
	post("/v1/completions", `{"model":"m","prompt":["a","b"],"max_tokens":16,"stream":true,"stop":["\n"],"logprobs":1,"seed":-7}`, "Authorization: Bearer "+key),
	post("/v1/completions", `{"model":"m","prompt":[1,2,3],"best_of":1,"echo":false,"max_tokens":1e1}`),
	post("/v1/embeddings", `{"input":["a","b"],"model":"m","encoding_format":"base64"}`, "User-Agent: OpenAI/Python 2.0.0", "X-Request-Id: abc"),
	get("/v1/models"), get("/v1/models/org%2Fm?x=1"), get("/healthz"), get("/v1/status/readyz"),
	chunks(chunk(hello[:20]) + chunk(hello[20:]) + "0\r\n\r\n"),
	chat(hello, "Expect: 100-continue", "Connection: keep-alive"),
	"GET /readyz HTTP/1.0\r\n\r\n",
	good + get("/healthz"),
	preface + frame(frameSettings, 0, 0, "") + frame(frameHeaders, endHeaders, 1, head2("/v1/chat/completions", "content-length", number(len(hello)))) + frame(frameData, endStream, 1, hello),
}

// tokens are put where they do not belong.
var tokens = []string{
	"\r\n", "\n", "\r", "\x00", " ", "\t", ":", "%", "%2F", "//", "/../", "?", "#", "\xff", "\xc0\xaf", "\ufeff", "\"", "\\", `\u0000`, `\ud800`, "{", "}", "[", "]", ",", "[[[[[[[[",
	"Content-Length: 0\r\n", "Content-Length: 99999999999999999999\r\n", "Content-Length: -1\r\n", "Transfer-Encoding: chunked\r\n", "Transfer-Encoding: gzip\r\n", "Host: b\r\n",
	"X-API-Key: test-b-1\r\n", "Authorization: Bearer x\r\n", "X_A: b\r\n", "Connection: close\r\n", "Connection: X-API-Key\r\n", "Upgrade: h2c\r\n", "Expect: 100-continue\r\n", "Expect: x\r\n",
	"Content-Encoding: gzip\r\n", "Content-Type: text/plain\r\n", "Trailer: X-API-Key\r\n", "HTTP/1.0", "HTTP/2.0", "CONNECT ", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "0\r\n\r\n", "ffffffffffffffff\r\n",
	`"model":"m",`, `"Model":"x",`, `"stream":true,`, `"stream":"true",`, `"n":100000,`, `"n":0,`, `"max_tokens":1e999,`, `"messages":null,`, `"stream_options":{},`, `"x":`,
	"null", "true", "NaN", "-", "0", "00", "1e5", "-1", "9223372036854775808", "0.1", "GET / HTTP/1.1\r\n\r\n",
}

// mutant makes the i-th damaged request. It depends on i and the seed alone.
func mutant(i uint64) []byte {
	random := rand.New(rand.NewPCG(seed, i))
	raw := []byte(corpus[random.IntN(len(corpus))])
	from := 0
	if at := bytes.Index(raw, []byte("\r\n\r\n")); random.IntN(2) == 0 {
		from = at + 4 // The head stays as it is, so that something reads the body.
	}
	for range 1 + random.IntN(3) {
		raw = append(raw[:from:from], damage(random, slices.Clone(raw[from:]))...)
	}
	if from > 0 && random.IntN(4) > 0 {
		raw = mend(raw)
	}
	return raw
}

// damage changes one thing.
func damage(random *rand.Rand, raw []byte) []byte {
	if len(raw) == 0 {
		return []byte(corpus[random.IntN(len(corpus))])
	}
	at := random.IntN(len(raw))
	until := min(at+1+random.IntN(20), len(raw))
	switch random.IntN(10) {
	case 0: // Flip a bit.
		raw[at] ^= 1 << random.IntN(8)
		return raw
	case 1: // Any byte.
		raw[at] = byte(random.IntN(256))
		return raw
	case 2: // The rest is missing.
		return raw[:at]
	case 3: // A piece is missing.
		return slices.Delete(raw, at, until)
	case 4: // A piece is there twice.
		return slices.Insert(raw, random.IntN(len(raw)), slices.Clone(raw[at:until])...)
	case 5: // The rest of another request.
		other := corpus[random.IntN(len(corpus))]
		return append(raw[:at], other[random.IntN(len(other)):]...)
	case 6: // Two lines in each other's place, or one of them twice.
		lines := bytes.SplitAfter(raw, []byte("\r\n"))
		a, b := random.IntN(len(lines)), random.IntN(len(lines))
		if random.IntN(2) == 0 {
			lines[a], lines[b] = lines[b], lines[a]
		} else {
			lines[a] = lines[b]
		}
		return bytes.Join(lines, nil)
	case 7: // Another case.
		for ; at < until; at++ {
			if c := raw[at] | 0x20; 'a' <= c && c <= 'z' {
				raw[at] ^= 0x20
			}
		}
		return raw
	case 8: // A token in place of something.
		return slices.Replace(raw, at, until, []byte(tokens[random.IntN(len(tokens))])...)
	default: // A token more.
		return slices.Insert(raw, at, []byte(tokens[random.IntN(len(tokens))])...)
	}
}

var lengthLine = regexp.MustCompile(`(?i)content-length: ?\d+\r\n`)

// mend makes the length true again, so that the damage to a body gets as far as the scanner.
func mend(raw []byte) []byte {
	head, body, ok := bytes.Cut(raw, []byte("\r\n\r\n"))
	if !ok {
		return raw
	}
	head = lengthLine.ReplaceAllLiteral(append(slices.Clone(head), "\r\n"...), fmt.Appendf(nil, "Content-Length: %d\r\n", len(body)))
	return slices.Concat(head, []byte("\r\n"), body)
}
