package upstream

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
)

// TLS says how a backend is recognized and how the router shows itself to it. All fields are optional and hold PEM
// text, not paths. The zero value trusts the system's authorities. Verification cannot be switched off.
type TLS struct {
	CA         string // trusted authorities instead of the system's
	Cert       string // client certificate, together with Key
	Key        Secret
	ServerName string // expected in the backend's certificate; "": the host of the URL
}

func (t *TLS) config() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.CA != "" {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM([]byte(t.CA)) {
			return nil, fmt.Errorf("tls.ca: %w", errNoPEM)
		}
	}
	switch {
	case t.Cert != "" && t.Key != "":
		pair, err := tls.X509KeyPair([]byte(t.Cert), []byte(t.Key))
		if err != nil {
			return nil, fmt.Errorf("tls.cert and tls.key: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	case t.Cert != "" || t.Key != "":
		return nil, errors.New("tls.cert and tls.key belong together: one of them is missing")
	}
	return config, nil
}
