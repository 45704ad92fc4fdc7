package edge

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
)

// The frames of HTTP/2 that these tests send or look for.
const (
	frameData     = 0
	frameHeaders  = 1
	frameReset    = 3
	frameSettings = 4
	frameGoAway   = 7

	endStream  = 1
	endHeaders = 4
)

func frame(kind, flags byte, stream uint32, payload string) string {
	head := make([]byte, 9)
	binary.BigEndian.PutUint32(head, uint32(len(payload))<<8|uint32(kind))
	head[4] = flags
	binary.BigEndian.PutUint32(head[5:], stream)
	return string(head) + payload
}

func readFrame(from io.Reader) (kind, flags byte, stream uint32, payload []byte, err error) {
	head := make([]byte, 9)
	if _, err = io.ReadFull(from, head); err != nil {
		return 0, 0, 0, nil, err
	}
	payload = make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
	_, err = io.ReadFull(from, payload)
	return head[3], head[4], binary.BigEndian.Uint32(head[5:]), payload, err
}

const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// fields2 writes header fields in HPACK's plainest form: literal, without index and Huffman code.
func fields2(pairs ...string) string {
	b := &strings.Builder{}
	for i := 0; i < len(pairs); i += 2 {
		b.WriteByte(0)
		for _, s := range pairs[i : i+2] {
			if n := len(s); n < 127 {
				b.WriteByte(byte(n))
			} else {
				b.WriteByte(127)
				for n -= 127; n >= 128; n >>= 7 {
					b.WriteByte(byte(n) | 128)
				}
				b.WriteByte(byte(n))
			}
			b.WriteString(s)
		}
	}
	return b.String()
}

// head2 is the head of a good request, without its body's length.
func head2(path string, more ...string) string {
	return fields2(append([]string{":method", "POST", ":scheme", "http", ":authority", "router", ":path", path, "x-api-key", key, "content-type", "application/json"}, more...)...)
}

// reply2 is what came back on stream 1.
type reply2 struct {
	status string // 2xx, 400, 404, or ? for one that HPACK's static table lacks
	body   string
	reset  bool
	gone   bool // the connection is told to end, or has ended
}

// exchange2 sends frames behind a preface and reads until the first stream ends, and once more for what follows it.
func exchange2(conn net.Conn, frames string) (reply reply2) {
	_, _ = io.WriteString(conn, preface+frame(frameSettings, 0, 0, "")+frames)
	for {
		kind, flags, stream, payload, err := readFrame(conn)
		switch {
		case err != nil:
			reply.gone = true
			return reply
		case kind == frameGoAway:
			reply.gone = true
			if graceful := len(payload) >= 8 && binary.BigEndian.Uint32(payload[4:]) == 0; graceful && reply.status == "" {
				continue // Streams that are open will still be answered.
			}
			return reply
		case stream != 1:
			continue
		case kind == frameReset:
			reply.reset = true
			return reply
		case kind == frameHeaders && len(payload) > 0:
			reply.status = map[byte]string{0x88: "200", 0x8c: "400", 0x8d: "404"}[payload[0]]
			if reply.status == "" {
				reply.status = "?"
			}
		case kind == frameData:
			reply.body += string(payload)
		}
		if flags&endStream != 0 && (kind == frameHeaders || kind == frameData) {
			return reply
		}
	}
}

func TestHTTP2(t *testing.T) {
	r := start(t, nil)
	body := frame(frameData, endStream, 1, hello)
	open := func(head string) string { return frame(frameHeaders, endHeaders, 1, head) }
	chat2 := func(more ...string) string { return open(head2("/v1/chat/completions", more...)) + body }
	path := func(path string) string { return open(head2(path)) + body }
	for name, tc := range map[string]struct {
		frames string
		status string // "" for none: a reset or the connection's end
		code   string
		asked  int
	}{
		"a chat":                         {chat2(), "200", "", 1},
		"the right length":               {chat2("content-length", number(len(hello))), "200", "", 1},
		"Host equal to the authority":    {chat2("host", "router"), "200", "", 1},
		"Host against the authority":     {chat2("host", "other"), "400", "ambiguous_request", 0},
		"x-api-key twice":                {chat2("x-api-key", key), "400", "ambiguous_request", 0},
		"content-type twice":             {chat2("content-type", "application/json"), "400", "ambiguous_request", 0},
		"two different credentials":      {chat2("authorization", "Bearer test-other-1"), "400", "ambiguous_request", 0},
		"an underscore":                  {chat2("x_api_key", key), "400", "invalid_request", 0},
		"an absolute path":               {path("http://router/v1/chat/completions"), "400", "invalid_request", 0},
		"an asterisk":                    {path("*"), "400", "invalid_request", 0},
		"a doubled slash":                {path("//v1/chat/completions"), "404", "not_found", 0},
		"an escaped letter":              {path("/v1/ch%61t/completions"), "404", "not_found", 0},
		"two dots":                       {path("/v1/models/../chat/completions"), "404", "not_found", 0},
		"CONNECT":                        {frame(frameHeaders, endHeaders|endStream, 1, fields2(":method", "CONNECT", ":authority", "169.254.169.254:80")), "?", "method_not_allowed", 0},
		"CONNECT with a path":            {open(fields2(":method", "CONNECT", ":scheme", "http", ":authority", "a", ":path", "/v1/models")) + body, "", "", 0},
		"a connection header":            {chat2("connection", "keep-alive"), "400", "", 0},
		"an upgrade":                     {chat2("upgrade", "websocket"), "400", "", 0},
		"a transfer coding":              {chat2("transfer-encoding", "chunked"), "400", "", 0},
		"a length that is too short":     {chat2("content-length", "3"), "", "", 0},
		"a length that is too long":      {chat2("content-length", "1000"), "400", "invalid_request", 0},
		"two lengths":                    {chat2("content-length", number(len(hello)), "content-length", "3"), "400", "ambiguous_request", 0},
		"a name in capitals":             {chat2("X-Session-Id", "a"), "", "", 0},
		"a line feed in a value":         {chat2("x-session-id", "a\r\nx-api-key: b"), "", "", 0},
		"a zero byte in a value":         {chat2("x-session-id", "a\x00"), "", "", 0},
		"a colon in a name":              {chat2("x-session-id:", "a"), "", "", 0},
		"a space in a name":              {chat2("x session", "a"), "", "", 0},
		"two paths":                      {open(head2("/v1/chat/completions", ":path", "/v1/models")) + body, "", "", 0},
		"no path":                        {open(fields2(":method", "POST", ":scheme", "http", ":authority", "a")) + body, "", "", 0},
		"an empty path":                  {path(""), "", "", 0},
		"a space in the path":            {path("/v1/chat completions"), "404", "not_found", 0},
		"a value of 40 KiB":              {frame(frameHeaders, 0, 1, head2("/v1/chat/completions")) + continued(fields2("x-long", strings.Repeat("x", 40<<10))) + body, "", "", 0},
		"a thousand headers":             {frame(frameHeaders, 0, 1, head2("/v1/chat/completions")) + continued(strings.Repeat(fields2("x-long", "x"), 1000)) + body, "?", "", 0},
		"a bomb of continuations":        {frame(frameHeaders, 0, 1, head2("/v1/chat/completions")) + strings.Repeat(frame(9, 0, 1, strings.Repeat(fields2("a", "b"), 2000)), 200), "", "", 0},
		"trailers that hold a key":       {open(fields2(":method", "POST", ":scheme", "http", ":authority", "router", ":path", "/v1/chat/completions", "trailer", "x-api-key")) + frame(frameData, 0, 1, hello) + frame(frameHeaders, endHeaders|endStream, 1, fields2("x-api-key", key)), "?", "missing_api_key", 0},
		"a model stands twice":           {open(head2("/v1/chat/completions")) + frame(frameData, endStream, 1, `{"model":"m","model":"m"}`), "400", "ambiguous_request", 0},
		"a stream that the client opens": {frame(frameHeaders, endHeaders, 2, head2("/v1/chat/completions")), "", "", 0},
		"noise":                          {strings.Repeat("\xff", 1000), "", "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			before := r.backend.asked()
			conn := r.dial(t)
			got := exchange2(conn, tc.frames)
			code, _ := answer{body: got.body}.refusal()
			if got.status != tc.status || code != tc.code {
				t.Errorf("got %+v, want %q %q", got, tc.status, tc.code)
			}
			if tc.status == "" && !got.reset && !got.gone {
				t.Error("neither the stream nor the connection ends")
			}
			conn.Close()
			r.works(t)
			if n := r.backend.asked() - before - 1; n != tc.asked {
				t.Errorf("%d requests reached the backend, want %d", n, tc.asked)
			}
		})
	}
}

// continued puts text into CONTINUATION frames on stream 1, none of them too large.
func continued(text string) string {
	const most = 16 << 10
	b := &strings.Builder{}
	for len(text) > most {
		b.WriteString(frame(9, 0, 1, text[:most]))
		text = text[most:]
	}
	b.WriteString(frame(9, endHeaders, 1, text))
	return b.String()
}

func TestSlowClientsOfHTTP2AreLetGo(t *testing.T) {
	r := start(t, short)
	for name, tc := range map[string]struct {
		frames string
		code   string
	}{
		"half a head":                     {frame(frameHeaders, 0, 1, head2("/v1/chat/completions")), ""},
		"half a body":                     {frame(frameHeaders, endHeaders, 1, head2("/v1/chat/completions")) + frame(frameData, 0, 1, hello[:20]), "request_timeout"},
		"half a body, without a key":      {frame(frameHeaders, endHeaders, 1, strings.Replace(head2("/v1/chat/completions"), key, strings.Repeat("-", len(key)), 1)) + frame(frameData, 0, 1, "{"), "invalid_api_key"},
		"no request":                      {"", ""},
		"half a frame":                    {frame(frameHeaders, endHeaders, 1, head2("/v1/chat/completions"))[:20], ""},
		"a good request and then nothing": {frame(frameHeaders, endHeaders, 1, head2("/v1/chat/completions")) + frame(frameData, endStream, 1, hello), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := r.dial(t)
			got := exchange2(conn, tc.frames)
			if code, _ := (answer{body: got.body}).refusal(); code != tc.code {
				t.Errorf("got %+v, want %q", got, tc.code)
			}
			if _, err := io.Copy(io.Discard, conn); isTimeout(err) {
				t.Error("the connection stays open")
			}
		})
	}
}

func isTimeout(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}
