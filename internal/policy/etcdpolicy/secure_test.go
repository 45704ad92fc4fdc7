package etcdpolicy

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/policy"
	"github.com/ai-aas/api-router/test/ports"
)

const password, nextPassword = "correct-horse-7431", "battery-staple-9920"

// secured turns authentication on: root, and the user router for the prefix alone.
func (s *server) secured(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(s.raw.UserAdd(ctx, "root", "root"))
	must(s.raw.UserGrantRole(ctx, "root", "root"))
	must(s.raw.RoleAdd(ctx, "policies"))
	must(s.raw.RoleGrantPermission(ctx, "policies", "/api-router/", "/api-router0", 2)) // Read and write.
	must(s.raw.UserAdd(ctx, "router", password))
	must(s.raw.UserGrantRole(ctx, "router", "policies"))
	must(s.raw.AuthEnable(ctx))
}

func secret(t *testing.T, path, text string) policy.SecretRef {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ref, err := policy.ParseSecretRef("file:" + path)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func TestAuthenticationWithAPasswordThatChanges(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		s.put(t, "/api-router/backends/a", backend("a", 1))
		file := filepath.Join(t.TempDir(), "password")
		log := &watching{log: new(strings.Builder), mu: new(sync.Mutex)} // It goes on while the test reads it.
		config := Config{
			Endpoints: []string{s.address}, Username: "router", Password: secret(t, file, password),
			Logger: slog.New(slog.NewTextHandler(log, nil)),
		}
		b := open(t, config)
		w := watch(t, b)
		w.until(t, "a=1") // Authentication is off.
		s.secured(t)
		change := func(version int) {
			t.Helper()
			if _, err := b.Write(t.Context(), policy.Write{Kind: policy.KindBackend, ID: "a", Content: []byte(backend("a", version))}); err != nil {
				t.Fatal(err)
			}
			w.until(t, fmt.Sprintf("a=%d", version))
		}
		change(2)

		secret(t, file, nextPassword)
		fresh := open(t, config)
		_, err := fresh.Read(t.Context(), policy.KindBackend, "a")
		if err == nil || !strings.Contains(err.Error(), "refuses the username or the password") {
			t.Errorf("with a wrong password: %v", err)
		}
		if status := fresh.Status(); status.Connected || status.Failure != err.Error() {
			t.Errorf("with a wrong password: %+v", status)
		}
		root := rawClientOf(t, s.url(), "root", "root")
		if _, err := root.UserChangePassword(t.Context(), "router", nextPassword); err != nil {
			t.Fatal(err)
		}
		if _, err := fresh.Read(t.Context(), policy.KindBackend, "a"); err != nil {
			t.Errorf("with the new password: %v", err)
		}
		change(3) // The token of the old password is no longer good.
		s.kill(t)
		s.start(t)
		change(4)

		other := open(t, Config{Endpoints: config.Endpoints, Prefix: "/other/", Username: config.Username, Password: config.Password})
		if _, err := other.Read(t.Context(), policy.KindBackend, "a"); err == nil || !strings.Contains(err.Error(), `"router" may not`) {
			t.Errorf("outside its prefix: %v", err)
		}
		nobody := open(t, Config{Endpoints: config.Endpoints})
		if _, err := nobody.Read(t.Context(), policy.KindBackend, "a"); err == nil || !strings.Contains(err.Error(), "asks for a username") {
			t.Errorf("without a user: %v", err)
		}
		all := log.lines() + fmt.Sprintf("%v %+v %#v %v", b, config, config, err)
		for _, p := range []string{password, nextPassword} {
			if strings.Contains(all, p) {
				t.Errorf("a password was printed: %s", all)
			}
		}
	})
}

func TestTLSWithFilesThatChange(t *testing.T) {
	for _, r := range releases(t) {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := func(name string) string { return filepath.Join(dir, name) }
			authority := newAuthority(t)
			authority.write(t, path("ca"))
			authority.issue(t, path("server"), "etcd.test")
			authority.issue(t, path("client"), "router")
			newAuthority(t).write(t, path("other"))

			s := &server{
				release: r, dir: dir, address: ports.Free(t), peer: ports.Free(t), scheme: "https",
				more: []string{
					"--cert-file", path("server.crt"), "--key-file", path("server.key"),
					"--trusted-ca-file", path("ca.crt"), "--client-cert-auth",
				},
			}
			t.Cleanup(func() { s.kill(t) })
			s.start(t)
			good := policy.TLS{CA: path("ca.crt"), Cert: path("client.crt"), Key: path("client.key"), ServerName: "etcd.test"}
			ready, cancel := context.WithTimeout(t.Context(), hang)
			defer cancel()
			if err := open(t, Config{Endpoints: []string{s.address}, TLS: good}).Wait(ready); err != nil {
				t.Fatal(err)
			}
			var all sync.WaitGroup // At once: each goes on trying until its time is over.
			for name, test := range map[string]struct {
				change func(*policy.TLS)
				says   string
			}{
				"another authority":          {func(c *policy.TLS) { c.CA = path("other.crt") }, "unknown authority"},
				"another name":               {func(c *policy.TLS) { c.ServerName = "" }, "127.0.0.1"},
				"no certificate of our own":  {func(c *policy.TLS) { c.Cert, c.Key = "", "" }, ""},
				"no such file":               {func(c *policy.TLS) { c.CA = path("nowhere") }, "no such file"},
				"a file without certificate": {func(c *policy.TLS) { c.CA = path("client.key") }, "holds no certificate"},
			} {
				config := good
				test.change(&config)
				b := open(t, Config{Endpoints: []string{s.address}, TLS: config, Timeout: time.Second})
				all.Go(func() { // On a busy machine a handshake takes longer than a call, and the reason comes with a later one.
					_, err := b.Read(t.Context(), policy.KindBackend, "")
					for deadline := time.Now().Add(hang); err != nil && !strings.Contains(err.Error(), test.says) && time.Now().Before(deadline); {
						_, err = b.Read(t.Context(), policy.KindBackend, "")
					}
					if err == nil || !strings.Contains(err.Error(), test.says) {
						t.Errorf("%s: %v", name, err)
					}
				})
			}
			all.Wait()
			for _, endpoint := range []string{s.address, "https://" + s.address} {
				if _, err := open(t, Config{Endpoints: []string{endpoint}, TLS: good}).Read(t.Context(), policy.KindBackend, ""); err != nil {
					t.Errorf("%s: %v", endpoint, err)
				}
			}

			rotated := good
			rotated.CA = path("rotated.crt")
			copyFile(t, path("other.crt"), rotated.CA)
			b := open(t, Config{Endpoints: []string{s.address}, TLS: rotated})
			w := watch(t, b)
			failing(t, b)
			copyFile(t, path("ca.crt"), rotated.CA)
			w.until(t, "")
		})
	}
}

// The proxies of the environment are for what leaves the cluster: etcd gets to see neither them nor they it.
func TestProxiesOfTheEnvironmentAreIgnored(t *testing.T) {
	proxy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = proxy.Close() }()
	for _, name := range []string{"HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy", "http_proxy", "all_proxy"} {
		t.Setenv(name, "http://"+proxy.Addr().String())
	}
	b := open(t, Config{Endpoints: []string{"http://etcd.invalid:2379"}, Timeout: time.Second})
	if _, err := b.Read(t.Context(), policy.KindBackend, ""); err == nil || !strings.Contains(err.Error(), "no such host") {
		t.Error(err)
	}
	if _, err := b.link.dial(t.Context(), "127.0.0.1:1"); err == nil || !strings.Contains(err.Error(), "no endpoint") {
		t.Errorf("an address that nobody configured: %v", err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, content, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// authority issues certificates for tests.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{certificate: &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, a.certificate, a.certificate, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.certificate, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *authority) write(t *testing.T, path string) {
	t.Helper()
	writePEM(t, path+".crt", "CERTIFICATE", a.certificate.Raw)
}

// issue writes path.crt and path.key.
func (a *authority) issue(t *testing.T, path, name string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.certificate, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, path+".crt", "CERTIFICATE", der)
	if der, err = x509.MarshalECPrivateKey(key); err != nil {
		t.Fatal(err)
	}
	writePEM(t, path+".key", "EC PRIVATE KEY", der)
}

func writePEM(t *testing.T, path, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}
