package policy_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ai-aas/api-router/internal/policy"
)

func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestFileBookSaysWhereToChangeADocument(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.yaml")
	write(t, path, "# Ours\nkind: Backend\nid: a\nurl: http://a\n---\nkind: Backend\nid: a\nurl: http://second\n")
	book := policy.FileBook(dir)
	found, err := book.Read(t.Context(), policy.KindBackend, "")
	if err != nil || len(found) != 1 || string(found[0].Content) != `{"kind":"Backend","id":"a","url":"http://a"}` || found[0].Place != path+":2" {
		t.Errorf("%+v %v", found, err)
	}
	for id, place := range map[string]string{"a": path + ":2", "b": dir, "": dir} {
		_, err := book.Write(t.Context(), policy.Write{Kind: policy.KindBackend, ID: id})
		if !errors.Is(err, policy.ErrReadOnly) || !strings.HasSuffix(err.Error(), " in "+place) {
			t.Error(id, err)
		}
	}
	if _, err := book.History(t.Context(), policy.KindBackend, "a", 0, 1); !errors.Is(err, policy.ErrReadOnly) || !strings.HasSuffix(err.Error(), "version control of "+dir) {
		t.Error(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := book.Read(t.Context(), policy.KindBackend, "a"); !errors.Is(err, fs.ErrNotExist) || errors.Is(err, policy.ErrNotFound) {
		t.Error(err)
	}
}
