package app

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/ai-aas/api-router/internal/fleet"
)

// asker is what a listener of this machine is asked with.
type asker interface {
	http.RoundTripper
	CloseIdleConnections()
}

// localTransport asks a listener of this machine, by its URL.
func localTransport(base string, secure ListenTLS) (asker, error) {
	if secure.On() {
		return &localTLS{strings.TrimPrefix(base, "https://"), secure}, nil
	}
	return fleet.NewTransport(fleet.Spec{ID: "local", URL: base})
}

// localTLS asks a listener of this machine that speaks TLS, with one connection for each request.
//
// Whose certificate it is, is not asked: it is for the names that clients use, may have ended, and is no reason to start a process anew.
// Nothing secret is sent. Where the listener wants to see a certificate, it is shown its own.
type localTLS struct {
	address string
	files   ListenTLS
}

// RoundTrip implements http.RoundTripper. The context has to have a deadline.
func (l *localTLS) RoundTrip(r *http.Request) (*http.Response, error) {
	config := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12} //nolint:gosec // See above.
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(l.files.Cert, l.files.Key)
		if err != nil {
			return &tls.Certificate{}, nil //nolint:nilerr // None is shown, and the listener says what it thinks of that.
		}
		return &pair, nil
	}
	conn, err := (&tls.Dialer{Config: config}).DialContext(r.Context(), "tcp", l.address)
	if err != nil {
		return nil, err
	}
	release := context.AfterFunc(r.Context(), func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	answer := &localBody{Conn: conn, release: release}
	r.Close = true
	if err := r.Write(conn); err != nil {
		_ = answer.Close()
		return nil, err
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), r)
	if err != nil {
		_ = answer.Close()
		return nil, err
	}
	answer.ReadCloser, response.Body = response.Body, answer
	return response, nil
}

// CloseIdleConnections does nothing: none is kept.
func (l *localTLS) CloseIdleConnections() {}

// localBody ends its connection with itself.
type localBody struct {
	io.ReadCloser
	net.Conn

	release func() bool
}

// Read reads the answer's body.
func (b *localBody) Read(p []byte) (int, error) { return b.ReadCloser.Read(p) }

// Close ends the connection, which needs no orderly end: the answer is read, or of no interest.
func (b *localBody) Close() error {
	b.release()
	return b.Conn.Close()
}

// certificate tells whether a listener's certificate can be used, and for how long.
func (d *doctor) certificate(path string, files ListenTLS) {
	if !files.On() {
		return
	}
	now, err := files.load(nil)
	if err != nil {
		d.say(verdictFail, "tls", fmt.Sprintf("the files of %s cannot be used: %v; mend them: without a usable certificate every connection is refused", path, err))
		return
	}
	ends := now.leaf.NotAfter.UTC().Format(time.RFC3339)
	if problem := outside(now.leaf); problem != "" {
		d.say(verdictFail, "tls", fmt.Sprintf("%s %s: clients refuse it; renew it", files.Cert, problem))
	} else if time.Until(now.leaf.NotAfter) < renewWithin {
		d.say(verdictWarn, "tls", fmt.Sprintf("%s expires %s: renew it", files.Cert, ends))
	} else {
		d.say(verdictOK, "tls", fmt.Sprintf("%s can be used until %s", files.Cert, ends))
	}
}
