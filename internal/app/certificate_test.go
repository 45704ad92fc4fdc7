package app_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/app"
	"github.com/ai-aas/api-router/internal/auth/oidc"
	"github.com/ai-aas/api-router/internal/policy"
	"github.com/ai-aas/api-router/internal/simengine"
	"github.com/ai-aas/api-router/test/pki"
)

// secured is a process whose public and admin listeners have TLS by the files in dir.
type secured struct {
	*process

	dir    string
	log    *syncBuffer
	reload chan struct{}
}

// secure runs a process with TLS on both listeners. What is in dir decides how they are; clients are the authorities of clients, nil: none.
func secure(t *testing.T, dir string, clients *pki.Authority) *secured {
	t.Helper()
	o := administered(t, map[string]string{"policy.source": "file"}, write(t, "token", token))
	o.Config.Policy.File.Path = write(t, "policies.yaml", sprintf(documentsOf, simulated(t, simengine.Config{StepBase: 2 * time.Millisecond}), "gpt-oss-20b"))
	files := app.ListenTLS{Cert: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key")}
	if clients != nil {
		files.ClientCA = filepath.Join(dir, "clients.crt")
		if err := os.WriteFile(files.ClientCA, clients.PEM, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	o.Config.Listen.TLS, o.Config.Listen.AdminTLS = files, files
	s := &secured{dir: dir, log: new(syncBuffer), reload: make(chan struct{})}
	o.Logger, o.Reload = s.log.logger(), s.reload
	s.process = run(t, o)
	s.base = "https://" + s.Addr().String()
	return s
}

// again has the files read, and returns when they were.
func (s *secured) again() {
	s.reload <- struct{}{}
	s.reload <- struct{}{} // The first one is done, then.
}

// trusting is a client with its authorities, and what it shows.
func trusting(t *testing.T, roots *x509.CertPool, pairs ...tls.Certificate) *http.Client {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: pairs}, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: hang}
}

// shakes connects and reads a first byte, which shows what the other side thinks of our certificate, too.
func shakes(t *testing.T, address net.Addr, config *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", address.String())
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(hang))
	if _, err := io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"); err != nil {
		return tls.ConnectionState{}, err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && !strings.HasPrefix(line, "HTTP/1.1 ") {
		t.Errorf("the answer begins with %q", line)
	}
	return conn.(*tls.Conn).ConnectionState(), err
}

func TestARequestIsServedOverTLSWithHTTP2AndHTTP1(t *testing.T) {
	authority, dir := pki.New(t, "servers"), t.TempDir()
	authority.Server(t, time.Hour).Write(t, dir)
	p := secure(t, dir, nil)
	for _, want := range []string{"HTTP/2.0", "HTTP/1.1"} {
		c := trusting(t, authority.Pool)
		c.Transport.(*http.Transport).ForceAttemptHTTP2 = want == "HTTP/2.0"
		response := chat(t, c, p.base, "")
		body := read(t, response.Body)
		if response.StatusCode != http.StatusOK || !strings.Contains(body, `"chat.completion"`) || response.Proto != want {
			t.Errorf("%s: got %s %d %s", want, response.Proto, response.StatusCode, body)
		}
		if response.TLS.Version != tls.VersionTLS13 {
			t.Errorf("%s: it came over TLS %x", want, response.TLS.Version)
		}
	}
	api, err := adminapi.New(adminapi.Options{Server: "https://" + p.AdminAddr().String(), Token: token, CA: file(t, authority.PEM)})
	if err != nil {
		t.Fatal(err)
	}
	defer api.Close()
	health, err := api.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	shown := 0
	for _, c := range health.Components {
		if c.Name == adminapi.ComponentCertificate {
			shown++
			if c.State != "expires soon" || !strings.Contains(c.Detail, "localhost") || c.Action == "" { // It holds for an hour.
				t.Errorf("the certificate of %s is %+v", c.ID, c)
			}
		}
	}
	if shown != 2 {
		t.Errorf("%d certificates are told of", shown)
	}
	if _, err := shakes(t, p.Addr(), &tls.Config{RootCAs: authority.Pool, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}); err == nil {
		t.Error("TLS 1.1 is taken")
	}
}

// file writes a temporary file.
func file(t *testing.T, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file.pem")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPlaintextIsNotServedWhereTLSIs(t *testing.T) {
	authority, dir := pki.New(t, "servers"), t.TempDir()
	p := secure(t, dir, nil) // There is no certificate yet.
	plain := func() {
		t.Helper()
		for _, address := range []net.Addr{p.Addr(), p.AdminAddr()} {
			for _, hello := range []string{"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"} {
				conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address.String())
				if err != nil {
					t.Fatal(err)
				}
				_ = conn.SetDeadline(time.Now().Add(hang))
				_, _ = io.WriteString(conn, hello)
				answer, _ := io.ReadAll(conn)
				_ = conn.Close()
				if bytes.Contains(answer, []byte(" 200 ")) || bytes.Contains(answer, []byte("ok\n")) || len(answer) > 0 && !bytes.HasPrefix(answer, []byte("HTTP/1.0 400 ")) && answer[0] != 21 {
					t.Errorf("%q in plaintext is answered %q", hello, answer)
				}
			}
		}
	}
	plain()
	if _, err := shakes(t, p.Addr(), &tls.Config{RootCAs: authority.Pool}); err == nil {
		t.Error("a listener without a certificate shook hands")
	}
	if !strings.Contains(p.log.String(), "refuses every connection") || !strings.Contains(p.log.String(), "listen.tls") {
		t.Errorf("the log says %s", p.log)
	}
	authority.Server(t, time.Hour).Write(t, dir)
	p.again()
	if _, err := shakes(t, p.Addr(), &tls.Config{RootCAs: authority.Pool}); err != nil {
		t.Errorf("with the certificate: %v", err)
	}
	plain()
}

func TestANewCertificateIsTakenUpWithoutADroppedConnectionAndABadOneLeavesTheLast(t *testing.T) {
	authority, dir := pki.New(t, "servers"), t.TempDir()
	first, second := authority.Server(t, time.Hour), authority.Server(t, 2*time.Hour)
	first.Write(t, dir)
	p := secure(t, dir, nil)
	shown := func(want pki.Pair, after string) {
		t.Helper()
		state, err := shakes(t, p.Addr(), &tls.Config{RootCAs: authority.Pool})
		if err != nil || !bytes.Equal(state.PeerCertificates[0].Raw, want.TLS(t).Certificate[0]) {
			t.Errorf("after %s it shows another certificate, or none: %v", after, err)
		}
	}
	c := trusting(t, authority.Pool)
	stream := chat(t, c, p.base, `, "stream": true, "max_tokens": 400, "ignore_eos": true`)
	shown(first, "the start")
	second.Write(t, dir)
	p.again()
	shown(second, "the change")
	reused := chat(t, c, p.base, `, "max_tokens": 3`)
	if !bytes.Equal(reused.TLS.PeerCertificates[0].Raw, first.TLS(t).Certificate[0]) {
		t.Error("the old connection was not kept")
	}
	if body := read(t, stream.Body); !strings.HasSuffix(body, "data: [DONE]\n\n") {
		t.Errorf("the stream of the old connection was cut: %q", body[max(0, len(body)-200):])
	}
	expired := authority.Server(t, -time.Hour)
	for what, pair := range map[string]pki.Pair{
		"a key of another": {Cert: first.Cert, Key: second.Key}, "an empty file": {Key: second.Key}, "half a file": {Cert: second.Cert[:100], Key: second.Key},
		"one that has ended": expired, "words": {Cert: []byte("hello"), Key: []byte("world")},
	} {
		pair.Write(t, dir)
		p.again()
		shown(second, what)
	}
	if err := os.Remove(filepath.Join(dir, "tls.key")); err != nil {
		t.Fatal(err)
	}
	p.again()
	shown(second, "a removal")
	if !strings.Contains(p.log.String(), "the last one serves on") {
		t.Errorf("the log says %s", p.log)
	}
	if strings.Contains(p.log.String(), "PRIVATE") {
		t.Error("the log holds a key")
	}
	first.Write(t, dir)
	p.again()
	shown(first, "the repair")
}

func TestAClientWithoutACertificateOfTheRightAuthorityStaysOutside(t *testing.T) {
	servers, clients, others, dir := pki.New(t, "servers"), pki.New(t, "clients"), pki.New(t, "others"), t.TempDir()
	own := servers.Server(t, time.Hour)
	own.Write(t, dir)
	p := secure(t, dir, clients)
	mine := clients.Client(t, time.Hour).TLS(t)
	for what, c := range map[string]struct {
		pairs []tls.Certificate
		in    bool
	}{
		"none":                       {nil, false},
		"one of the authority":       {[]tls.Certificate{mine}, true},
		"one of another authority":   {[]tls.Certificate{others.Client(t, time.Hour).TLS(t)}, false},
		"one that has ended":         {[]tls.Certificate{clients.Client(t, -time.Hour).TLS(t)}, false},
		"one for servers":            {[]tls.Certificate{clients.Server(t, time.Hour).TLS(t)}, false},
		"another of its own server":  {[]tls.Certificate{servers.Server(t, time.Hour).TLS(t)}, false},
		"the listener's own":         {[]tls.Certificate{own.TLS(t)}, true},
		"one that names the issuers": {[]tls.Certificate{others.Client(t, time.Hour).TLS(t), mine}, true},
	} {
		for _, address := range []net.Addr{p.Addr(), p.AdminAddr()} {
			for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				config := &tls.Config{RootCAs: servers.Pool, MinVersion: version, MaxVersion: version}
				config.GetClientCertificate = func(r *tls.CertificateRequestInfo) (*tls.Certificate, error) {
					for _, pair := range c.pairs[:max(0, len(c.pairs)-1)] {
						if r.SupportsCertificate(&pair) == nil {
							return &pair, nil
						}
					}
					if len(c.pairs) > 0 {
						return &c.pairs[len(c.pairs)-1], nil
					}
					return &tls.Certificate{}, nil
				}
				if _, err := shakes(t, address, config); (err == nil) != c.in {
					t.Errorf("%s over %s: got in: %v (%v)", what, tls.VersionName(version), err == nil, err)
				}
			}
		}
	}

	// A session is no way past a change of the authorities.
	remembered := &tls.Config{RootCAs: servers.Pool, Certificates: []tls.Certificate{mine}, ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	for _, resumed := range []bool{false, true} {
		if state, err := shakes(t, p.Addr(), remembered); err != nil || state.DidResume != resumed {
			t.Errorf("resumed: %v, want %v; %v", state.DidResume, resumed, err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "clients.crt"), others.PEM, 0o600); err != nil {
		t.Fatal(err)
	}
	p.again()
	if _, err := shakes(t, p.Addr(), remembered); err == nil {
		t.Error("a session of the old authority goes on under the new one")
	}
}

func TestTheHealthCheckOfTheImageWorksOverTLS(t *testing.T) {
	servers, clients, dir := pki.New(t, "servers"), pki.New(t, "clients"), t.TempDir()
	servers.Server(t, -time.Hour).Write(t, dir) // It has ended, and a restart would not mend that.
	p := secure(t, dir, clients)
	var out bytes.Buffer
	sources := app.Sources{Env: map[string]string{}, Flags: map[string]string{
		"listen.public": p.Addr().String(), "listen.tls.cert": filepath.Join(dir, "tls.crt"), "listen.tls.key": filepath.Join(dir, "tls.key"),
	}}
	if err := app.DoctorLocal(t.Context(), &out, sources, true); err != nil || !strings.Contains(out.String(), "https://") {
		t.Errorf("got %v: %s", err, &out)
	}
	sources.Flags["identity.admin_tokens"], sources.Flags["listen.admin"] = "olga:admin:file:"+write(t, "token", token), p.AdminAddr().String()
	sources.Flags["listen.admin_tls.cert"], sources.Flags["listen.admin_tls.key"] = sources.Flags["listen.tls.cert"], sources.Flags["listen.tls.key"]
	out.Reset()
	if err := app.Doctor(t.Context(), &out, sources); err == nil {
		t.Error("nothing is said of a certificate that has ended")
	}
	if text := out.String(); strings.Count(text, "is served by an api-router that is running") != 2 || strings.Count(text, "expired at") != 2 {
		t.Errorf("got %s", text)
	}
}

// Who may come in differs; how the admin listener speaks does not.
func TestTheAdminListenerSpeaksTLSWhoeverItIsOpenFor(t *testing.T) {
	authority, dir := pki.New(t, "servers"), t.TempDir()
	cert, key := authority.Server(t, time.Hour).Write(t, dir)
	pepper := write(t, "pepper", strings.Repeat("p", 64))
	for who, open := range map[string]func(*app.Options){
		"operators with signed tokens": func(o *app.Options) {
			o.Config.Identity.JWT = []app.TokenIssuer{{Issuer: oidc.Issuer{
				Issuer: "https://127.0.0.1:1", JWKS: "https://127.0.0.1:1/keys", Audience: "router", Algorithms: []string{"ES256"}, Roles: "roles", Role: map[string]string{"boss": "admin"},
			}}}
		},
		"other routers": func(o *app.Options) {
			o.Config.State.URL = "sqlite:" + filepath.Join(t.TempDir(), "state.db")
			o.Config.Identity.Order = []string{app.ValidatorState}
			o.Config.Identity.Peppers = []policy.SecretRef{reference(t, "file:"+pepper)}
			o.Config.Identity.ValidationTokens = []policy.SecretRef{reference(t, "file:"+write(t, "validation", token))}
		},
		"this machine": func(o *app.Options) { o.OpenAdmin = true },
	} {
		t.Run(who, func(t *testing.T) {
			o := administered(t, map[string]string{"policy.source": "file"}, write(t, "token", token))
			o.Config.Policy.File.Path = write(t, "policies.yaml", sprintf(documentsOf, simulated(t, simengine.Config{}), "gpt-oss-20b"))
			o.Config.Identity.AdminTokens = nil
			o.Config.Listen.AdminTLS = app.ListenTLS{Cert: cert, Key: key}
			open(&o)
			p := run(t, o)
			if _, err := shakes(t, p.AdminAddr(), &tls.Config{RootCAs: authority.Pool}); err != nil {
				t.Errorf("the admin listener does not speak TLS: %v", err)
			}
		})
	}
}

func TestTLSSettingsThatAreHalvesAreRefused(t *testing.T) {
	for _, flags := range []map[string]string{
		{"listen.tls.cert": "/c"}, {"listen.tls.key": "/k"}, {"listen.tls.client_ca": "/a"}, {"listen.admin_tls.cert": "/c", "listen.admin_tls.client_ca": "/a"},
	} {
		if _, _, err := app.Load(app.Sources{Env: map[string]string{}, Flags: flags}); err == nil || !strings.Contains(err.Error(), "tls") {
			t.Errorf("%v: got %v", flags, err)
		}
	}
}
