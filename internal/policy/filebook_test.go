package policy_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ai-aas/api-router/internal/policy"
	"github.com/ai-aas/api-router/internal/policy/sourcetest"
)

func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestFilesAreASourceAndABook(t *testing.T) {
	t.Parallel() // It mostly waits.
	sourcetest.Run(t, func(t *testing.T) sourcetest.Place {
		dir := filepath.Join(t.TempDir(), "policies")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		move := func(from, to string) func(t testing.TB) {
			return func(t testing.TB) {
				t.Helper()
				if err := os.Rename(from, to); err != nil {
					t.Fatal(err)
				}
			}
		}
		return sourcetest.Place{
			Source: policy.FileSource(dir), Book: policy.FileBook(dir), ReadOnly: true, Keyless: true,
			Put: func(t testing.TB, kind policy.Kind, id string, content []byte) {
				t.Helper()
				path := filepath.Join(dir, kind.Collection()+"-"+id+".json")
				if content != nil {
					write(t, path, string(content))
				} else if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Fatal(err)
				}
			},
			Stop: move(dir, dir+".away"), Start: move(dir+".away", dir),
		}
	})
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
	if _, err := book.History(t.Context(), policy.KindBackend, "a", 1); !errors.Is(err, policy.ErrReadOnly) || !strings.HasSuffix(err.Error(), "version control of "+dir) {
		t.Error(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := book.Read(t.Context(), policy.KindBackend, "a"); !errors.Is(err, fs.ErrNotExist) || errors.Is(err, policy.ErrNotFound) {
		t.Error(err)
	}
}
