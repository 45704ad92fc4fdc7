package app

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ai-aas/api-router/internal/adminapi"
)

// ListenTLS are the files, in PEM, by which a listener speaks TLS and nothing else. All empty: it has none.
type ListenTLS struct {
	Cert, Key string
	// ClientCA are the authorities one of which has to have signed the certificate of whoever connects. It is a gate, and identifies nobody.
	ClientCA string
}

// On says that the listener speaks TLS.
func (t ListenTLS) On() bool { return t != ListenTLS{} }

// renewWithin is how long before its end a certificate that nobody has renewed needs a person. Most renewals are due with 30 days or more to go.
const renewWithin = 14 * 24 * time.Hour

// tlsSettings are those of the listeners' certificates.
var tlsSettings = slices.Concat(
	listenTLS("listen.tls", listenerPublic, func(c *Config) *ListenTLS { return &c.Listen.TLS }),
	listenTLS("listen.admin_tls", listenerAdmin, func(c *Config) *ListenTLS { return &c.Listen.AdminTLS }),
)

func listenTLS(path, listener string, of func(*Config) *ListenTLS) []setting {
	file := func(name, doc string, target func(*ListenTLS) *string) setting {
		return setting{path + "." + name, "", doc, func(c *Config) value { return optional(target(of(c))) }}
	}
	return []setting{
		file("cert", "PEM file of the "+listener+" listener's certificate, with those between it and its authority. Once set, the listener speaks TLS 1.2 or newer, and HTTP/2, "+
			"and nothing else: while the files cannot be used it refuses every handshake. They are read anew every 15 s and on SIGHUP; a pair that cannot be used leaves the last one serving. Empty: no TLS.",
			func(t *ListenTLS) *string { return &t.Cert }),
		file("key", "PEM file of the key of "+path+".cert.", func(t *ListenTLS) *string { return &t.Key }),
		file("client_ca", "PEM file of authorities. Once set, the "+listener+" listener lets nobody in without a certificate that one of them has signed for clients. "+
			"It is a gate: who calls, keys and tokens still say. The listener's own certificate passes, too, for \"doctor --local\".",
			func(t *ListenTLS) *string { return &t.ClientCA }),
	}
}

// validateTLS refuses halves.
func (c *Config) validateTLS(add func(path, format string, args ...any)) {
	for path, t := range map[string]ListenTLS{"listen.tls": c.Listen.TLS, "listen.admin_tls": c.Listen.AdminTLS} {
		switch {
		case t.On() && t.Cert == "":
			add(path+".cert", "%s is set in part, and without a certificate; set %s.cert and %s.key", path, path, path)
		case t.On() && t.Key == "":
			add(path+".key", "%s.cert and %s.key belong together: set both or neither", path, path)
		}
	}
}

// certificate is what a listener shows, read anew from time to time: its files change without a change of the configuration.
//
// One that cannot be used leaves the last one serving. As long as there was none, every handshake is refused: nobody is served without TLS who was promised it.
type certificate struct {
	log      *slog.Logger
	listener string // public, admin
	path     string // of the settings
	files    ListenTLS

	mu      sync.Mutex              // held while the files are read
	current atomic.Pointer[shown]   // nil: there was never one that can be used
	failure atomic.Pointer[trouble] // why the files cannot be used now; nil: they can
}

// shown is one usable set of files.
type shown struct {
	digest [sha256.Size]byte // of the files
	leaf   *x509.Certificate
	config *tls.Config
	at     time.Time // when it was taken up
}

func newCertificate(log *slog.Logger, listener, path string, files ListenTLS) *certificate {
	c := &certificate{log: log.With("listener", listener), listener: listener, path: path, files: files}
	c.read()
	return c
}

// run reads the files until ctx ends.
func (c *certificate) run(ctx context.Context) error {
	for {
		if pause(ctx, secretsEvery); ctx.Err() != nil {
			return nil
		}
		c.read()
	}
}

// read takes up what the files hold now. Each problem is logged when it appears and when it has gone.
func (c *certificate) read() {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.failure.Load()
	before := c.current.Load()
	now, err := c.files.load(before)
	if err != nil {
		if known != nil && known.text == err.Error() {
			return
		}
		since := time.Now()
		if known != nil {
			since = known.since
		}
		c.failure.Store(&trouble{err.Error(), since})
		if before == nil {
			c.log.Error("the listener has no usable certificate and refuses every connection: mend the files of "+c.path, "error", err)
		} else {
			c.log.Error("the listener's new certificate cannot be used, the last one serves on: mend the files of "+c.path, "error", err, "expires", before.leaf.NotAfter)
		}
		return
	}
	c.failure.Store(nil)
	if now != before {
		c.current.Store(now)
		c.log.Info("the listener shows this certificate from now on", "serial", fmt.Sprintf("%x", now.leaf.SerialNumber), "expires", now.leaf.NotAfter)
	} else if known != nil {
		c.log.Info("the files of the listener's certificate can be used again")
	}
	if problem := outside(now.leaf); problem != "" && now != before {
		c.log.Error("clients will refuse the listener's certificate: renew it", "error", problem)
	}
}

// load reads the files. It returns before when they are the same.
func (t ListenTLS) load(before *shown) (*shown, error) {
	cert, certErr := readPEM("cert", t.Cert)
	key, keyErr := readPEM("key", t.Key)
	authorities, caErr := readPEM("client_ca", t.ClientCA)
	if err := errors.Join(certErr, keyErr, caErr); err != nil {
		return nil, err
	}
	digest := sha256.New()
	for _, text := range []string{cert, key, authorities} {
		_, _ = fmt.Fprintf(digest, "%d:%s", len(text), text) // A hash takes everything.
	}
	now := &shown{at: time.Now()}
	if digest.Sum(now.digest[:0]); before != nil && now.digest == before.digest {
		return before, nil
	}
	pair, err := tls.X509KeyPair([]byte(cert), []byte(key))
	if err != nil {
		return nil, fmt.Errorf("%s and %s: %w", t.Cert, t.Key, err)
	}
	now.leaf = pair.Leaf
	if problem := outside(now.leaf); problem != "" && before != nil && outside(before.leaf) == "" {
		return nil, fmt.Errorf("%s %s, and the one before is good", t.Cert, problem)
	}
	now.config = &tls.Config{
		Certificates: []tls.Certificate{pair},
		MinVersion:   tls.VersionTLS12,
		NextProtos:   []string{"h2", "http/1.1"},
	}
	if t.ClientCA == "" {
		return now, nil
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(authorities)) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", t.ClientCA)
	}
	now.config.ClientCAs = roots
	now.config.ClientAuth = tls.RequireAnyClientCert // Which ones pass, admits says, for a session that is taken up again, too.
	now.config.VerifyConnection = func(s tls.ConnectionState) error { return now.admits(roots, s.PeerCertificates) }
	return now, nil
}

// admits says why whoever shows these certificates stays outside.
//
// Who has the key of the listener's own certificate is the listener's own operator: that is how "doctor --local" gets in, whatever the authorities are.
func (s *shown) admits(roots *x509.CertPool, chain []*x509.Certificate) error {
	if len(chain) == 0 {
		return errors.New("there is no client certificate")
	}
	if bytes.Equal(chain[0].Raw, s.leaf.Raw) {
		return nil
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err != nil {
		return fmt.Errorf("the client certificate: %w", err)
	}
	return nil
}

// outside says that a certificate holds not yet, or no more.
func outside(leaf *x509.Certificate) string {
	switch now := time.Now(); {
	case now.After(leaf.NotAfter):
		return "expired at " + leaf.NotAfter.Format(time.RFC3339)
	case now.Before(leaf.NotBefore):
		return "holds from " + leaf.NotBefore.Format(time.RFC3339) + " on"
	}
	return ""
}

// server is how the listener speaks TLS, nil where it has none. Sessions outlive a change of the certificate: their tickets belong to this one configuration.
func (c *certificate) server() *tls.Config {
	if c == nil {
		return nil
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		if now := c.current.Load(); now != nil {
			return now.config, nil
		}
		return nil, errors.New("this listener has no usable certificate yet")
	}}
}

// health says how the certificate is.
func (c *certificate) health() adminapi.Component {
	h := adminapi.Component{Name: adminapi.ComponentCertificate, ID: c.listener}
	failure, now := c.failure.Load(), c.current.Load()
	if now != nil {
		h.State, h.OK, h.Since = "shown", true, now.at
		h.Detail = "expires " + now.leaf.NotAfter.UTC().Format(time.RFC3339)
		if names := certifiedNames(now.leaf); names != "" {
			h.Detail += ", for " + names
		}
		if c.files.ClientCA != "" {
			h.Detail += "; clients need a certificate of their own"
		}
		if problem := outside(now.leaf); problem != "" {
			h.OK, h.State, h.LastError = false, "refused by clients", "the certificate "+problem
			h.Action = "Renew the certificate in " + c.files.Cert + ": clients refuse this one."
		} else if left := time.Until(now.leaf.NotAfter); left < renewWithin {
			h.OK, h.State = false, "expires soon"
			h.Action = fmt.Sprintf("Renew the certificate in %s: it holds for %d days more.", c.files.Cert, int(left.Hours()/24))
		}
	}
	if failure != nil {
		h.OK, h.LastError, h.Since = false, failure.text, failure.since
		h.State, h.Action = "last good", "A newer certificate cannot be used and the last one serves on: mend the files of "+c.path+"."
		if now == nil {
			h.State, h.Action = "missing", "Every connection to this listener is refused: mend the files of "+c.path+"."
		}
	}
	return h
}

// maxNames is how many names of a certificate /status shows.
const maxNames = 3

// certifiedNames are the first few of what a certificate is for.
func certifiedNames(leaf *x509.Certificate) string {
	names := slices.Clone(leaf.DNSNames)
	for _, ip := range leaf.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) > maxNames {
		names = append(names[:maxNames], "…")
	}
	return strings.Join(names, ", ")
}

// certificates are those of all listeners that speak TLS.
type certificates []*certificate

var certificateExpiry = prometheus.NewDesc("api_router_listener_certificate_expiry_timestamp_seconds",
	"When the certificate that a listener shows ends, as seconds since 1970; 0 while it has no usable one and refuses every connection.", []string{"listener"}, nil)

// Describe implements prometheus.Collector.
func (all certificates) Describe(to chan<- *prometheus.Desc) { to <- certificateExpiry }

// Collect implements prometheus.Collector.
func (all certificates) Collect(to chan<- prometheus.Metric) {
	for _, c := range all {
		ends := 0.0
		if now := c.current.Load(); now != nil {
			ends = math.Max(0, float64(now.leaf.NotAfter.Unix()))
		}
		to <- prometheus.MustNewConstMetric(certificateExpiry, prometheus.GaugeValue, ends, c.listener)
	}
}

// of is the certificate of a listener, nil where it has no TLS.
func (all certificates) of(listener string) *certificate {
	for _, c := range all {
		if c.listener == listener {
			return c
		}
	}
	return nil
}

// serve serves a listener, with TLS where its server has it.
func serve(server *http.Server, listener net.Listener) error {
	if server.TLSConfig != nil {
		return server.ServeTLS(listener, "", "")
	}
	return server.Serve(listener)
}

// reload reads all of them.
func (all certificates) reload() {
	for _, c := range all {
		c.read()
	}
}

// health is what operators see of them.
func (all certificates) health() []adminapi.Component {
	list := make([]adminapi.Component, 0, len(all))
	for _, c := range all {
		list = append(list, c.health())
	}
	return list
}

// The listeners that can speak TLS.
const (
	listenerPublic = "public"
	listenerAdmin  = "admin"
)

// wireTLS reads the certificates of the listeners.
func (a *App) wireTLS(opts Options, registry prometheus.Registerer) {
	log := a.log.With("component", "tls")
	if files := a.config.Listen.TLS; files.On() {
		a.certificates = append(a.certificates, newCertificate(log, listenerPublic, "listen.tls", files))
	}
	if files := a.config.Listen.AdminTLS; files.On() && a.config.opensAdmin(opts.OpenAdmin) {
		a.certificates = append(a.certificates, newCertificate(log, listenerAdmin, "listen.admin_tls", files))
	}
	for _, c := range a.certificates {
		a.loops = append(a.loops, loop{"certificate of the " + c.listener + " listener", c.run})
		a.metrics.remotes.add("certificate_"+c.listener, func() bool { return c.failure.Load() == nil })
	}
	registry.MustRegister(a.certificates)
}
