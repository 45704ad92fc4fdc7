package admin

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/ai-aas/api-router/internal/admin/console"
	"github.com/ai-aas/api-router/internal/fault"
)

// reply is what a handler answers.
type reply struct {
	status   int   // 0: 200
	revision int64 // becomes the ETag; 0: none
	body     any   // as JSON
	text     []byte
	kind     string // of text
	file     string // the name to save text under; "": it is for looking at
}

// ServeHTTP implements http.Handler: headers, the login, the route, its handler, the answer and one line in the log.
func (a *Admin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{Request: r, writer: w, start: time.Now(), requestID: uuid.Must(uuid.NewV7()).String(), status: http.StatusOK}
	h := w.Header()
	h.Set("X-Request-Id", c.requestID)
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	_ = http.NewResponseController(w).SetReadDeadline(c.start.Add(bodyTimeout)) // Not every writer has deadlines; then there is none.
	defer a.end(c)
	defer a.rescue(w, c)
	answer, err := a.serve(w, c)
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
	if err == nil {
		err = c.write(w, answer)
	}
	if err != nil {
		c.fail(w, err)
	}
}

// serve lets a request in and hands it to its route.
func (a *Admin) serve(w http.ResponseWriter, c *call) (reply, error) {
	_, page := a.page(c.Request)
	if page {
		w.Header().Set("Content-Security-Policy", pagePolicy)
	}
	who, err := a.login(c.Request, page)
	if err != nil {
		if c.ContentLength != 0 {
			w.Header().Set("Connection", "close") // The server would wait for the rest of the body before it answers.
		}
		if fault.From(err).Status() == http.StatusUnauthorized {
			challenge := `Bearer realm="api-router admin"`
			if page { // A browser asks its user for this one, and for no other.
				challenge = `Basic realm="api-router"`
			}
			w.Header().Set("WWW-Authenticate", challenge)
		}
		return reply{}, err
	}
	c.actor = who
	if err := a.origins.Check(c.Request); err != nil {
		return reply{}, fault.New(fault.PermissionDenied, "a web page of another origin may not change anything here").WithCause(err)
	}
	found, allow, err := a.find(c.Request, c)
	if allow != nil {
		w.Header().Set("Allow", strings.Join(allow, ", "))
	}
	if err != nil {
		return reply{}, err
	}
	c.route = found.method + " " + found.path
	if !who.may(found.access) {
		return reply{}, fault.Newf(fault.PermissionDenied, "this takes the role %s, and the token %s has the role %s", found.access, who.name, who.role)
	}
	for _, id := range c.ids() {
		if id != "" && !idForm.MatchString(id) || id == "." || id == ".." { // Proxies and clients take dots out of paths.
			return reply{}, fault.New(fault.InvalidRequest, "an id is of the characters A-Z a-z 0-9 . _ -, at most 128 of them, and not . or .. alone").WithParam("id")
		}
	}
	if err := c.parameters(found.query); err != nil {
		return reply{}, err
	}
	return found.handle(c)
}

// write renders an answer. Nothing has been written when it fails.
func (c *call) write(w http.ResponseWriter, answer reply) error {
	content, kind := answer.text, answer.kind
	if answer.body != nil {
		var err error
		if content, err = json.Marshal(answer.body); err != nil {
			return fmt.Errorf("render the answer: %w", err)
		}
		content, kind = append(content, '\n'), "application/json"
	}
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Content-Length", strconv.Itoa(len(content)))
	if answer.file != "" {
		h.Set("Content-Disposition", `attachment; filename="`+answer.file+`"`)
	}
	if answer.revision != 0 {
		h.Set("ETag", etag(answer.revision))
	}
	if answer.status != 0 {
		c.status = answer.status
	}
	c.sent = true
	w.WriteHeader(c.status)
	_, _ = w.Write(content) // The client may be gone; there is nobody else to tell.
	return nil
}

func (c *call) fail(w http.ResponseWriter, err error) {
	c.err, c.sent = err, true
	c.status = fault.From(err).Status()
	fault.Write(w, err)
}

// rescue turns a panic into a 500 and keeps the process alive. http.ErrAbortHandler is not a failure and passes.
func (a *Admin) rescue(w http.ResponseWriter, c *call) {
	v := recover()
	if v == nil {
		return
	}
	if v == http.ErrAbortHandler { //nolint:errorlint,err113 // net/http compares it so, too.
		panic(v)
	}
	a.Logger.LogAttrs(c.Context(), slog.LevelError, "a handler of the admin API panicked: this is a bug",
		slog.String("request_id", c.requestID), slog.String("panic", fmt.Sprint(v)), slog.String("stack", string(debug.Stack())))
	if c.sent {
		panic(http.ErrAbortHandler) // Cuts the connection, so that nobody takes the fragment for a whole answer.
	}
	c.fail(w, fmt.Errorf("panic: %v", v)) //nolint:err113 // It has no caller that could ask for it.
}

// end writes the access log line. What follows a "?" is not in it: reasons are in the history.
func (a *Admin) end(c *call) {
	a.metrics.observe(c)
	level := slog.LevelInfo
	switch {
	case c.status >= http.StatusInternalServerError:
		level = slog.LevelError
	case c.route != "" && c.status < http.StatusBadRequest && strings.Contains(c.route, " "+console.Prefix):
		level = slog.LevelDebug // A page that is looked at asks every two seconds.
	case c.status == http.StatusUnauthorized, c.status == http.StatusForbidden, c.status == http.StatusTooManyRequests:
		level = slog.LevelWarn
	}
	attrs := make([]slog.Attr, 0, 10)
	attrs = append(attrs, slog.String("request_id", c.requestID), slog.String("method", printable(c.Method)),
		slog.String("path", printable(c.URL.Path)), slog.Int("status", c.status),
		slog.Float64("latency_ms", float64(time.Since(c.start).Round(time.Microsecond))/float64(time.Millisecond)),
		slog.String("client", c.RemoteAddr))
	if c.actor.name != "" {
		attrs = append(attrs, slog.String("actor", c.actor.name), slog.String("role", c.actor.role))
	}
	if c.route != "" {
		attrs = append(attrs, slog.String("route", c.route))
	}
	if c.err != nil {
		attrs = append(attrs, slog.String("code", string(fault.CodeOf(c.err))), slog.String("error", c.err.Error()))
	}
	a.Logger.LogAttrs(c.Context(), level, "admin request", attrs...)
}

// mostPrinted is how long what is printable can be, in bytes.
const mostPrinted = 200

// printable makes a client's text safe for a log line or a message, and short.
func printable(s string) string {
	if len(s) > mostPrinted {
		s = s[:mostPrinted-len("...")] + "..."
	}
	return strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return '?'
		}
		return c
	}, s)
}
