package upstream

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// clientPair makes a certificate that signs itself.
func clientPair(t *testing.T) (cert string, key Secret, parsed *x509.Certificate) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "router"},
		NotAfter:     time.Now().Add(time.Hour),
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err = x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	return block("CERTIFICATE", der), Secret(block("PRIVATE KEY", pkcs8)), parsed
}

func TestTLSBackend(t *testing.T) {
	cert, key, parsed := clientPair(t)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := "nobody"
		if len(r.TLS.PeerCertificates) > 0 {
			name = r.TLS.PeerCertificates[0].Subject.CommonName
		}
		_, _ = io.WriteString(w, r.Proto+" "+name+" "+r.TLS.ServerName)
	}))
	server.EnableHTTP2 = true
	clients := x509.NewCertPool()
	clients.AddCert(parsed)
	server.TLS = &tls.Config{ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: clients, MinVersion: tls.VersionTLS12}
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // Refused handshakes are what the test is about.
	server.StartTLS()
	t.Cleanup(server.Close)
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))

	for _, test := range []struct {
		name string
		tls  TLS
		want string // "" for a failed handshake
	}{
		{"trusted authority, HTTP/2", TLS{CA: ca}, "HTTP/2.0 nobody "},
		{"client certificate", TLS{CA: ca, Cert: cert, Key: key}, "HTTP/2.0 router "},
		{"server name", TLS{CA: ca, ServerName: "example.com"}, "HTTP/2.0 nobody example.com"},
		{"unknown authority", TLS{}, ""},
		{"wrong server name", TLS{CA: ca, ServerName: "other.test"}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			transport := open(t, Standard, Config{Address: address(server), TLS: &test.tls})
			_, body, err := send(t, transport, http.MethodPost, server.URL+"/", "{}")
			if test.want == "" {
				if err == nil {
					t.Fatalf("the handshake passed: %q", body)
				}
				return
			}
			if err != nil || body != test.want {
				t.Errorf("got %q, %v, want %q", body, err, test.want)
			}
		})
	}
}

func TestAnHTTPSRequestNeverGoesOutInPlainText(t *testing.T) {
	server := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("the request arrived") })
	transport := open(t, Standard, Config{Address: address(server), TLS: &TLS{}})
	if _, _, err := send(t, transport, http.MethodPost, "https://"+address(server)+"/", "{}"); err == nil {
		t.Error("no error from a server without TLS")
	}
	_, _, err := send(t, transport, http.MethodPost, "http://"+address(server)+"/", "{}")
	if _, ok := errors.AsType[*DialRefusedError](err); !ok {
		t.Errorf("plain http over a transport for TLS: got %v, want a DialRefusedError", err)
	}
}
