package etcdpolicy

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/ai-aas/api-router/internal/policy"
)

const (
	defaultPrefix  = "/api-router/"
	defaultTimeout = 3 * time.Second
)

// Config says which etcd holds the documents and how it is reached. Endpoints is required.
type Config struct {
	// Endpoints are the members of one cluster, each host:port, http://host:port or https://host:port.
	Endpoints []string
	// Prefix is what the keys begin with; a "/" at its end may be left out. Empty: /api-router/.
	Prefix string
	// Username and Password log in where etcd asks for it. The password is read anew at each login.
	Username string
	Password policy.SecretRef
	// TLS is for endpoints with https:// or without a scheme. Its files are read anew for each connection.
	TLS policy.TLS
	// Timeout bounds each call, and each attempt at a connection. 0: 3 s.
	Timeout time.Duration
	// Logger is told when everything is read anew without a failure that Watch would return. Nil: nobody is.
	Logger *slog.Logger
}

// settle checks the configuration and fills in the defaults.
func (c *Config) settle() error {
	var problems []error
	secure := c.TLS != policy.TLS{}
	if len(c.Endpoints) == 0 {
		problems = append(problems, errors.New("there is no endpoint"))
	}
	schemes := map[string]bool{}
	endpoints := make([]string, len(c.Endpoints))
	for i, text := range c.Endpoints {
		scheme, address, err := parseEndpoint(text, secure)
		if err != nil { // The text may hold a password.
			problems = append(problems, fmt.Errorf("endpoint %d: %w", i+1, err))
		}
		schemes[scheme] = true
		endpoints[i] = scheme + "://" + address
	}
	c.Endpoints = endpoints
	switch {
	case len(schemes) > 1:
		problems = append(problems, errors.New("the endpoints of one cluster have TLS all or none"))
	case schemes["http"] && secure:
		problems = append(problems, errors.New("there are settings for TLS, and http:// has none"))
	}
	if (c.TLS.Cert == "") != (c.TLS.Key == "") {
		problems = append(problems, errors.New("a certificate and its key belong together"))
	}
	if (c.Username == "") != c.Password.IsZero() {
		problems = append(problems, errors.New("a username and a password belong together"))
	}
	c.Prefix = strings.TrimRight(cmp.Or(c.Prefix, defaultPrefix), "/") + "/"
	if c.Prefix == "/" {
		problems = append(problems, errors.New(`the prefix "/" is not a prefix of our own`))
	}
	if c.Timeout <= 0 {
		c.Timeout = defaultTimeout
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return errors.Join(problems...)
}

// parseEndpoint gives "http" or "https" and host:port. Its errors do not repeat the text.
func parseEndpoint(text string, secure bool) (scheme, address string, err error) {
	scheme = "http"
	if secure {
		scheme = "https"
	}
	address = text
	if strings.Contains(text, "://") {
		u, err := url.Parse(text)
		if err != nil || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" {
			return scheme, "", errors.New("an endpoint is host:port, http://host:port or https://host:port")
		}
		scheme, address = u.Scheme, u.Host
	}
	if scheme != "http" && scheme != "https" {
		return "http", "", errors.New("only http:// and https:// are known")
	}
	host, port, err := net.SplitHostPort(strings.TrimRight(address, "/"))
	if err != nil || host == "" || port == "" || strings.ContainsAny(host, "/@?# ") {
		return scheme, "", errors.New("an endpoint is host:port, http://host:port or https://host:port")
	}
	return scheme, net.JoinHostPort(host, port), nil
}

// loadTLS reads the files for one connection.
func loadTLS(t policy.TLS) (*tls.Config, error) {
	config := &tls.Config{ServerName: t.ServerName, MinVersion: tls.VersionTLS12}
	if t.CA != "" {
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, fmt.Errorf("the authorities of etcd: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("the authorities of etcd: %s holds no certificate in PEM", t.CA)
		}
	}
	if t.Cert != "" {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, fmt.Errorf("the certificate for etcd: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}
