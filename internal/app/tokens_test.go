package app

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ai-aas/api-router/internal/policy"
)

func TestTokensFollowTheirFiles(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	ref, err := policy.ParseSecretRef("file:" + file)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	list := newTokens(slog.New(slog.NewTextHandler(&log, nil)), []AdminToken{{Name: "ops", Role: "operator", Token: ref}})
	for _, step := range []struct {
		content string // "": there is no file
		valid   int
		says    string // "": nothing that it has not said
	}{
		{"", 0, "an admin token does not work"},
		{"", 0, ""},
		{"0123456789abcdef", 1, "an admin token works again"},
		{"0123456789abcde", 0, "is shorter than 16 bytes"},
		{"fedcba9876543210\n", 1, "an admin token works again"},
		{"another token of 16 bytes and more", 1, ""},
		{"", 0, "no such file"},
	} {
		if step.content != "" {
			if err := os.WriteFile(file, []byte(step.content), 0o600); err != nil {
				t.Fatal(err)
			}
		} else if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		list.read()
		said := log.String()
		log.Reset()
		if got := len(list.list()); got != step.valid || !strings.Contains(said, step.says) || step.says == "" && said != "" {
			t.Errorf("%q: %d tokens are valid, and the log says %q", step.content, got, said)
		}
		if step.content != "" && strings.Contains(said, strings.TrimSpace(step.content)) {
			t.Error("the log holds the token")
		}
	}
}

func TestThePublicStatusNamesNoPlace(t *testing.T) {
	t.Parallel()
	for reason, want := range map[string]string{
		"etcd cannot be reached: dial tcp 10.0.0.1:2379: connect: connection refused":                "etcd cannot be reached",
		"etcd does not answer in time (context deadline exceeded); and: dial tcp etcd.internal:2379": "etcd does not answer in time",
		"etcd refuses the username or the password (etcdserver: authentication failed)":              "etcd refuses the username or the password",
		`the user "router" may not read and write /api-router/ at etcd`:                              "see the log",
		"dial tcp 10.0.0.1: no route":    "see the log",
		"etcd.internal answers nonsense": "see the log",
		"":                               "see the log",
	} {
		if got := withoutDetails(reason); got != want {
			t.Errorf("%q becomes %q; want %q", reason, got, want)
		}
	}
}
