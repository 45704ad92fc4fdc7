package app

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

const (
	// localWait is how long the process of this machine has to answer both questions.
	localWait = 2 * time.Second
	// localWord bounds the answer that is read, in bytes. A router says one word.
	localWord = 64
)

// DoctorLocal asks the process that runs on this machine with this configuration how it is, at its public listener: /healthz and
// /readyz, one line each. It is the health check of the image, where there is no shell and no other program.
//
// It returns ErrFound when the process does not live or does not answer within two seconds. A process that lives but is not ready, for
// want of policies or because it drains, counts as well unless ready is set: to start it anew would bring back no policy, and cut off what drains.
// A configuration that has become wrong since the start is a warning, for the same reason.
func DoctorLocal(ctx context.Context, out io.Writer, sources Sources, ready bool) error {
	d := doctor{out: out}
	config, _, problems, err := load(sources)
	if err != nil {
		return err
	}
	for _, p := range problems {
		d.say(verdictWarn, "configuration", p.Where+": "+p.Text+"; the next start fails")
	}
	ctx, cancel := context.WithTimeout(ctx, localWait)
	defer cancel()
	d.local(ctx, &config, ready)
	if d.failed {
		return ErrFound
	}
	return nil
}

// local judges the process behind the public listener of a configuration.
func (d *doctor) local(ctx context.Context, c *Config, ready bool) {
	base, err := localURL(c.Listen.Public, c.Listen.TLS)
	if err != nil {
		d.say(verdictFail, "alive", err.Error())
		return
	}
	transport, err := localTransport(base, c.Listen.TLS)
	if err != nil {
		d.say(verdictFail, "alive", err.Error())
		return
	}
	defer transport.CloseIdleConnections()
	status, word, err := ask(ctx, transport, base+"/healthz")
	switch {
	case err != nil:
		d.say(verdictFail, "alive", fmt.Sprintf("%s does not answer: %v; see the log of api-router, and whether %s is the address that it listens on", base, err, pathListenPublic))
		return
	case status != http.StatusOK:
		d.say(verdictFail, "alive", fmt.Sprintf("%s/healthz answers %d; is that another program?", base, status))
		return
	}
	d.say(verdictOK, "alive", fmt.Sprintf("%s/healthz says %s", base, word))

	otherwise := verdictWarn
	if ready {
		otherwise = verdictFail
	}
	status, word, err = ask(ctx, transport, base+"/readyz")
	switch {
	case err != nil:
		d.say(otherwise, "ready", fmt.Sprintf("%s/readyz does not answer: %v", base, err))
	case status != http.StatusOK:
		d.say(otherwise, "ready", fmt.Sprintf("%s/readyz says %s: /v1/status/readyz tells what is missing", base, cmp.Or(word, http.StatusText(status))))
	default:
		d.say(verdictOK, "ready", fmt.Sprintf("%s/readyz says %s", base, word))
	}
}

// localURL is where this machine reaches a listener. It needs no resolver: an image without files has no /etc/hosts of its own.
func localURL(address string, secure ListenTLS) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil || port == "0" {
		return "", fmt.Errorf("%s is %q, which names no port to ask", pathListenPublic, address)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.Equal(net.IPv4zero) {
		host = "127.0.0.1"
	} else if ip != nil && ip.IsUnspecified() {
		host = "::1"
	}
	scheme := "http://"
	if secure.On() {
		scheme = "https://"
	}
	return scheme + net.JoinHostPort(host, port), nil
}

// ask sends one GET and returns the status and the one line of the answer.
func ask(ctx context.Context, transport http.RoundTripper, url string) (status int, word string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, "", err
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = response.Body.Close() }()
	content, err := io.ReadAll(io.LimitReader(response.Body, localWord))
	return response.StatusCode, strings.TrimSpace(string(content)), err
}
