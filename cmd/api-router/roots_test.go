package main

import (
	"crypto/x509"
	"encoding/pem"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// TestCertificatesAreTrustedWithoutFilesAndByTheSystemsFilesAlone: in the image there are no certificates, and those in the binary hold. Where the
// system has some, a file that an operator mounted among them, those hold and the binary's do not.
func TestCertificatesAreTrustedWithoutFilesAndByTheSystemsFilesAlone(t *testing.T) {
	if want := os.Getenv("TRUSTED_ROOT"); want != "" { // In a process of its own: the roots are read once.
		if err := trusted(t); (err == nil) != (want == "yes") {
			t.Errorf("a public authority is trusted: want %s, got %v", want, err)
		}
		return
	}
	private := httptest.NewTLSServer(nil)
	defer private.Close()
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: private.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	nowhere := filepath.Join(t.TempDir(), "absent")
	for file, want := range map[string]string{nowhere: "yes", file: "no"} {
		c := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
		c.Env = append(os.Environ(), "TRUSTED_ROOT="+want, "SSL_CERT_FILE="+file, "SSL_CERT_DIR="+nowhere)
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	}
}

// trusted says why a public authority's own certificate is not trusted.
func trusted(t *testing.T) error {
	t.Helper()
	for root := range bundle.Roots() {
		cert, err := x509.ParseCertificate(root.Certificate)
		if err != nil || root.Constraint != nil || time.Now().After(cert.NotAfter) {
			continue
		}
		_, err = cert.Verify(x509.VerifyOptions{KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
		return err
	}
	t.Fatal("the bundle has no authority that is valid now")
	return nil
}
