package policy_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/ai-aas/api-router/internal/policy"
	"github.com/ai-aas/api-router/internal/policy/sourcetest"
)

// A directory of files passes the suite as every other place of documents does. Each document is in a file of its own, which is
// written as editors do: beside the old one, and then put in its place.
func TestFilesPassTheSuiteOfSources(t *testing.T) {
	sourcetest.Run(t, func(t *testing.T) sourcetest.Place {
		dir := filepath.Join(t.TempDir(), "policies")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		return sourcetest.Place{
			Source: policy.FileSource(dir), Book: policy.FileBook(dir), ReadOnly: true, Keyless: true,
			Put: func(t testing.TB, kind policy.Kind, id string, content []byte) {
				path := filepath.Join(dir, kind.Collection()+"-"+id+".json")
				var err error
				if content == nil {
					err = os.Remove(path)
				} else {
					beside := filepath.Join(dir, ".new")
					err = errors.Join(os.WriteFile(beside, content, 0o600), os.Rename(beside, path))
				}
				if err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Fatal(err)
				}
			},
			Second: func(testing.TB) (policy.Source, policy.Book) { return policy.FileSource(dir), policy.FileBook(dir) },
			Stop:   func(t testing.TB) { rename(t, dir, dir+".away") },
			Start:  func(t testing.TB) { rename(t, dir+".away", dir) },
		}
	})
}

func rename(t testing.TB, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}
