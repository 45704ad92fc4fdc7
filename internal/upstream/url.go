package upstream

import (
	"errors"
	"net"
	"net/url"
)

// Address is the host:port that a URL of http or https means.
func Address(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = "80"
		if u.Scheme == "https" {
			port = "443"
		}
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// For is Standard for the one place that a URL names: http or https with a host, without a user, and a fragment means nothing. authorities are
// those in PEM that its certificate is checked against; "": the system's. Its errors do not repeat the URL, which may hold a password.
func For(place, authorities string) (Transport, *url.URL, error) {
	u, err := url.Parse(place)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil {
		return nil, nil, errors.New("it is not of the form http://HOST or https://HOST, with a port and a path where needed, and never a user or a password")
	}
	u.Fragment, u.RawFragment = "", ""
	cfg := Config{Address: Address(u)}
	if u.Scheme == "https" {
		cfg.TLS = &TLS{CA: authorities}
	}
	t, err := Standard(cfg)
	if err != nil {
		return nil, nil, err
	}
	return t, u, nil
}
