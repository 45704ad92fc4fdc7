package postgres

import (
	"os"
	"path/filepath"
	"testing"
)

// Secure lets the server offer TLS with a certificate and its key, both in PEM, from the next connection on.
func (s *Server) Secure(t testing.TB, cert, key []byte) {
	t.Helper()
	for name, content := range map[string][]byte{"server.crt": cert, "server.key": key} {
		path := filepath.Join(s.data(), name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if s.as == nil {
			continue
		}
		if err := os.Chown(path, int(s.as.Uid), int(s.as.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	s.Exec(t, "postgres", "ALTER SYSTEM SET ssl = on", "SELECT pg_reload_conf()")
}
