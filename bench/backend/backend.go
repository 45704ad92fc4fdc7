// Package backend is the inference server at the far end of a benchmark: it answers chat completions with bytes made beforehand, and does so
// little that it leaves the machine to what is measured. A request's head is searched for its length, its body for the model's name
// and the two usage options, and nothing else is read of it.
package backend

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	bufferSize   = 16 << 10
	idleTimeout  = 5 * time.Minute
	writeTimeout = 20 * time.Second
)

// Backend serves the models of its shapes.
type Backend struct {
	answers map[string]*answer // by model
	models  []byte             // the whole reply to GET /v1/models
}

// New makes a backend with one model for each shape.
func New(shapes ...Shape) *Backend {
	b := &Backend{answers: make(map[string]*answer, len(shapes))}
	var list strings.Builder
	for i, s := range shapes {
		b.answers[s.Model()] = s.build()
		if i > 0 {
			list.WriteByte(',')
		}
		fmt.Fprintf(&list, `{"id":%q,"object":"model","created":1767225600,"owned_by":"bench"}`, s.Model())
	}
	b.models = reply(`{"object":"list","data":[` + list.String() + `]}`)
	return b
}

// Serve answers on l until ctx ends, then closes l and every connection.
func (b *Backend) Serve(ctx context.Context, l net.Listener) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() }) // Nobody could be told.
	defer stop()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accept: %w", err)
		}
		wg.Go(func() {
			free := context.AfterFunc(ctx, func() { _ = conn.Close() }) // It has nothing more to say.
			defer free()
			defer func() { _ = conn.Close() }()
			b.serve(ctx, conn)
		})
	}
}

// serve answers one request after the other until the other side leaves or says something that is not understood: there is nobody to tell.
func (b *Backend) serve(ctx context.Context, conn net.Conn) {
	r := bufio.NewReaderSize(conn, bufferSize)
	for {
		if conn.SetReadDeadline(time.Now().Add(idleTimeout)) != nil {
			return
		}
		q, err := readRequest(r)
		if err != nil || conn.SetWriteDeadline(time.Now().Add(writeTimeout)) != nil {
			return
		}
		answer := b.answers[string(q.model)]
		switch {
		case q.path == "/v1/models":
			_, err = conn.Write(b.models)
		case q.path != "/v1/chat/completions":
			_, err = conn.Write(healthy) // /health, /healthz, and what proxies are asked to see whether they serve
		case answer == nil:
			_, err = conn.Write(noSuchModel)
		case answer.whole != nil:
			_, err = conn.Write(answer.whole)
		default:
			err = answer.stream(ctx, conn, q.usage)
		}
		if err != nil {
			return
		}
	}
}

// request is what is read of one. Its bytes are valid until the next read.
type request struct {
	path  string
	model []byte
	usage usage
}

var (
	modelName   = []byte(`"model":"`)
	wantsFinal  = []byte(`"include_usage":true`)
	wantsAlways = []byte(`"continuous_usage_stats":true`)
)

// readRequest reads one request to its end. What it looks for must stand in the first 16 KB: clients name the model first, and only
// short requests ask for streams here.
func readRequest(r *bufio.Reader) (request, error) {
	var q request
	line, err := r.ReadSlice('\n')
	if err != nil {
		return q, err
	}
	_, target, _ := bytes.Cut(line, []byte(" "))
	path, _, _ := bytes.Cut(target, []byte(" "))
	q.path = pathName(path)
	length := 0
	for {
		if line, err = r.ReadSlice('\n'); err != nil {
			return q, err
		}
		if line = bytes.TrimSpace(line); len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch {
		case len(name) == len("content-length") && strings.EqualFold(string(name), "content-length"):
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil || length < 0 {
				return q, errors.New("bad length")
			}
		case len(name) == len("transfer-encoding") && strings.EqualFold(string(name), "transfer-encoding"):
			return q, errors.New("a body without a length")
		}
	}
	if length == 0 {
		return q, nil
	}
	begin, err := r.Peek(min(length, bufferSize))
	if err != nil {
		return q, err
	}
	if _, rest, found := bytes.Cut(begin, modelName); found {
		name, _, _ := bytes.Cut(rest, []byte(`"`))
		q.model = name
	}
	q.usage = usageOf(begin)
	if length <= len(begin) {
		_, err = r.Discard(length)
		return q, err
	}
	q.model = bytes.Clone(q.model) // The buffer is read over.
	_, err = io.CopyN(io.Discard, r, int64(length))
	return q, err
}

// pathName names the paths without allocating.
func pathName(path []byte) string {
	switch string(path) {
	case "/v1/chat/completions":
		return "/v1/chat/completions"
	case "/v1/models":
		return "/v1/models"
	}
	return ""
}

func usageOf(body []byte) usage {
	switch {
	case !bytes.Contains(body, wantsFinal):
		return usageNone
	case !bytes.Contains(body, wantsAlways):
		return usageFinal
	}
	return usageAlways
}
