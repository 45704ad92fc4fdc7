package policy

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestSecretIsReadWhereItsReferencePoints(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return "file:" + path
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("POLICY_TEST_KEY", "sk-1")
	t.Setenv("POLICY_TEST_EMPTY", "")
	tests := []struct{ name, ref, want, wrong string }{
		{"environment", "env:POLICY_TEST_KEY", "sk-1", ""},
		{"file without its last line break", write("a", "sk-2\r\n\n"), "sk-2", ""},
		{"inner spaces stay", write("b", " sk 3 "), " sk 3 ", ""},
		{"largest", write("c", strings.Repeat("x", maxSecret)), strings.Repeat("x", maxSecret), ""},
		{"too large", write("d", strings.Repeat("x", maxSecret+1)), "", "larger than"},
		{"empty file", write("e", "\n"), "", "is empty"},
		{"two lines", write("f", "sk-4\nsk-5\n"), "", "line break"},
		{"no file", "file:" + dir + "/missing", "", "no such file"},
		{"directory", "file:" + dir, "", "not a regular file"},
		{"pipe", "file:" + dir + "/pipe", "", "not a regular file"},
		{"not set", "env:POLICY_TEST_MISSING", "", "not set"},
		{"set but empty", "env:POLICY_TEST_EMPTY", "", "is empty"},
		{"none", "", "", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var ref SecretRef
			if err := ref.UnmarshalText([]byte(test.ref)); err != nil {
				t.Fatal(err)
			}
			got, err := ref.Resolve()
			if got != test.want || (err == nil) != (test.wrong == "") {
				t.Fatalf("got %.20q, %v", got, err)
			}
			if err != nil && (!strings.Contains(err.Error(), test.wrong) || strings.Contains(err.Error(), "sk-")) {
				t.Error(err)
			}
		})
	}
}

func TestSecretRefHoldsReferencesOnly(t *testing.T) {
	for _, text := range []string{"sk-0123", "env:", "env:A B", "env:9", "file:", "file:a\nb", "ENV:A", " env:A", "http://x"} {
		ref, err := ParseSecretRef(text)
		if err == nil || !ref.IsZero() || strings.Contains(err.Error(), text) && len(text) > 5 {
			t.Errorf("%q: %v %v", text, ref, err)
		}
	}
	ref, err := ParseSecretRef("env:KEY")
	if err != nil {
		t.Fatal(err)
	}
	b := NewBackend("b", "http://h")
	b.APIKey = ref
	content, err := json.Marshal(b)
	if err != nil || !strings.Contains(string(content), `"api_key":"env:KEY"`) {
		t.Errorf("%s %v", content, err)
	}
	if s := fmt.Sprintf("%v %s", ref, slog.AnyValue(ref)); s != "env:KEY env:KEY" {
		t.Error(s)
	}
	if content, _ := json.Marshal(NewBackend("b", "http://h")); strings.Contains(string(content), "api_key") {
		t.Errorf("%s", content)
	}
}
