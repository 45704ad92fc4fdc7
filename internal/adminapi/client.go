package adminapi

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

const (
	// callTimeout is how long one call may take, with everything.
	callTimeout = 30 * time.Second
	dialTimeout = 5 * time.Second
	// maxAnswer is the largest answer that is read, in bytes: tens of thousands of documents.
	maxAnswer = 256 << 20
)

// Options say where the admin API is, and with which token to ask it. They print without the token.
type Options struct {
	// Server is the URL of the admin listener, as in http://127.0.0.1:8082.
	Server string
	// Token is sent to Server and nowhere else; empty sends none.
	Token string `json:"-"`
	// CA is a PEM file of the authorities that Server's certificate is checked against; empty: the system's.
	CA string
	// Cert and Key are PEM files of the certificate to show to a Server that asks for one; both or neither.
	Cert, Key string
}

// Format implements fmt.Formatter: whatever the verb, no token.
func (o Options) Format(s fmt.State, _ rune) { fmt.Fprintf(s, "admin API at %s", o.Server) }

// Error is an answer of the admin API that is not the one that was asked for.
type Error struct {
	Status int
	// Code is one of docs/errors; empty when whoever answered is no admin API.
	Code    string
	Message string
	// Param is the field or header at fault, if one is.
	Param string
	// RequestID is what the operator of the server finds in its log.
	RequestID string
}

// Error is the message with the code.
func (e *Error) Error() string {
	return e.Message + " (" + cmp.Or(e.Code, "status "+strconv.Itoa(e.Status)) + ")"
}

// Client asks one admin API. It is safe for concurrent use. Every call ends after 30 s at the latest, follows no redirect
// and uses no proxy: the token reaches the configured server alone. An answer that is a refusal is an *Error.
type Client struct {
	server    string
	http      *http.Client
	authorize func(http.Header) // holds the token, so that no way of printing the client shows it
}

// New returns a Client. It dials nothing.
func New(options Options) (*Client, error) {
	u, err := url.Parse(options.Server)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return nil, errors.New("the admin API's URL must be of the form http://host:port")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("the admin API's URL must not hold a user, a query or a fragment")
	}
	token := options.Token
	if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, errors.New("the admin token holds a space, a line feed or another character that no token has")
	}
	secure, err := options.secure(u.Scheme == "https")
	if err != nil {
		return nil, err
	}
	c := &Client{server: strings.TrimRight(u.String(), "/"), authorize: func(http.Header) {}}
	if token != "" {
		c.authorize = func(h http.Header) { h.Set("Authorization", "Bearer "+token) }
	}
	c.http = &http.Client{
		Transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
			TLSClientConfig:     secure,
			TLSHandshakeTimeout: dialTimeout,
			MaxIdleConns:        2,
			IdleConnTimeout:     callTimeout,
			DisableCompression:  true, // The bound on an answer is on what is read.
			ForceAttemptHTTP2:   true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

// secure reads the files for TLS.
func (o *Options) secure(https bool) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.CA+o.Cert+o.Key != "" && !https {
		return nil, errors.New("certificates are for https:// alone, and the URL begins with http://")
	}
	if o.CA != "" {
		text, err := os.ReadFile(o.CA)
		if err != nil {
			return nil, fmt.Errorf("the authorities: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("the authorities: %s holds no certificate in PEM", o.CA)
		}
	}
	if (o.Cert == "") != (o.Key == "") {
		return nil, errors.New("a certificate and its key belong together: name both or neither")
	}
	if o.Cert != "" {
		pair, err := tls.LoadX509KeyPair(o.Cert, o.Key)
		if err != nil {
			return nil, fmt.Errorf("the certificate to show: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// Server is the URL that is asked.
func (c *Client) Server() string { return c.server }

// Close closes the connections that are idle. The client can be used on.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// request is one call.
type request struct {
	method string
	path   []string // below Prefix, one segment each
	query  url.Values
	header http.Header
	kind   string // of the body
	body   []byte
}

// call sends r and decodes the answer into answer.
func (c *Client) call(ctx context.Context, r request, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	target, err := c.target(r)
	if err != nil {
		return err
	}
	asked, err := http.NewRequestWithContext(ctx, r.method, target, bytes.NewReader(r.body))
	if err != nil {
		return fmt.Errorf("ask the admin API: %w", err)
	}
	if r.header != nil {
		asked.Header = r.header
	}
	asked.Header.Set("Accept", "application/json")
	if r.body != nil {
		asked.Header.Set("Content-Type", r.kind)
	}
	c.authorize(asked.Header)
	response, err := c.http.Do(asked)
	if err != nil {
		return c.unreachable(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	switch {
	case err != nil:
		return c.unreachable(err)
	case len(content) > maxAnswer:
		return fmt.Errorf("the answer of %s is larger than %d MiB", c.server, maxAnswer>>20)
	case response.StatusCode/100 != 2:
		return c.refusal(response, content)
	}
	if err := json.Unmarshal(content, answer); err != nil {
		return c.stranger(response)
	}
	return nil
}

func (c *Client) target(r request) (string, error) {
	segments := []string{c.server + Prefix}
	for _, segment := range r.path {
		if segment == "" || segment == "." || segment == ".." {
			return "", fmt.Errorf("%q cannot stand in a path: give the document's id", segment)
		}
		segments = append(segments, url.PathEscape(segment))
	}
	target := strings.Join(segments, "/")
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	return target, nil
}

// unreachable says that there was no whole answer. The URL that net/http puts before its error may hold a reason: it is left out.
func (c *Client) unreachable(err error) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err
	}
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("interrupted while waiting for %s: %w", c.server, err)
	}
	return fmt.Errorf("the admin API at %s does not answer: %w", c.server, err)
}

func (c *Client) refusal(response *http.Response, content []byte) error {
	var envelope struct {
		Error struct {
			Message string  `json:"message"`
			Param   *string `json:"param"`
			Code    string  `json:"code"`
		} `json:"error"`
	}
	if err := json.Unmarshal(content, &envelope); err != nil || envelope.Error.Message == "" {
		return c.stranger(response)
	}
	e := &Error{
		Status: response.StatusCode, Code: envelope.Error.Code, Message: envelope.Error.Message,
		RequestID: response.Header.Get("X-Request-Id"),
	}
	if envelope.Error.Param != nil {
		e.Param = *envelope.Error.Param
	}
	return e
}

// stranger says that whoever answered is no admin API: a proxy, another service on the port.
func (c *Client) stranger(response *http.Response) error {
	return &Error{
		Status:  response.StatusCode,
		Message: fmt.Sprintf("%s answered %d, but not as an admin API does: is this the router's listen.admin?", c.server, response.StatusCode),
	}
}
