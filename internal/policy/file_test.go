package policy

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// hang is how long a test waits for what must happen: a bound against hanging, no measure of speed.
const hang = time.Minute

func put(t testing.TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// aged makes a file look as if it had rested for a while.
func aged(t testing.TB, path string) {
	t.Helper()
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
}

func must(t interface {
	Helper()
	Fatal(args ...any)
}, errs ...error,
) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func names(documents []Document) string {
	var ids []string
	for _, d := range documents {
		ids = append(ids, d.ID())
	}
	slices.Sort(ids)
	return strings.Join(ids, " ")
}

// following watches path and gives the snapshots, and the error at the end.
func following(t *testing.T, path string) (<-chan Snapshot, <-chan error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	snapshots, failed, ended := make(chan Snapshot, 100), make(chan error, 1), make(chan struct{})
	go func() {
		defer close(ended)
		failed <- FileSource(path).Watch(ctx, func(s Snapshot) { snapshots <- s })
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return snapshots, failed
}

// until waits for a snapshot with exactly these ids.
func until(t *testing.T, snapshots <-chan Snapshot, ids string) Snapshot {
	t.Helper()
	deadline := time.After(hang)
	for seen := "nothing"; ; {
		select {
		case s := <-snapshots:
			if seen = names(s.Documents); seen == ids {
				return s
			}
		case <-deadline:
			t.Fatalf("waited for %q, last saw %q", ids, seen)
		}
	}
}

func TestFileSourceFollowsChanges(t *testing.T) {
	t.Parallel() // It mostly waits.
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a.yaml"), filepath.Join(dir, "b.yml")
	put(t, a, backends("a"))
	put(t, filepath.Join(dir, ".hidden.yaml"), backends("hidden"))
	put(t, filepath.Join(dir, "notes.txt"), "hello")
	must(t, os.Mkdir(filepath.Join(dir, "deeper.yaml"), 0o700))
	put(t, filepath.Join(dir, "deeper.yaml", "c.yaml"), backends("deeper"))
	snapshots, _ := following(t, dir)

	if s := until(t, snapshots, "a"); s.Origin != "directory "+dir || len(s.Problems) > 0 || s.Documents[0].File != a {
		t.Error(s)
	}
	began := time.Now()
	put(t, b, backends("b"))
	until(t, snapshots, "a b")
	t.Log("a new file was seen after", time.Since(began))

	put(t, filepath.Join(dir, "c.json"), `{"kind": "Backend", "id": "c", "url": "http://c"}`)
	until(t, snapshots, "a b c")

	put(t, b, backends("x")) // The same size, and perhaps the same tick of the clock.
	until(t, snapshots, "a c x")

	put(t, filepath.Join(dir, ".a.swp"), backends("d"))
	must(t, os.Rename(filepath.Join(dir, ".a.swp"), a)) // As editors do.
	until(t, snapshots, "c d x")

	must(t, os.Remove(b))
	until(t, snapshots, "c d")
}

func TestFileSourceSeesARewriteThatLeavesSizeAndTime(t *testing.T) {
	t.Parallel() // It mostly waits.
	path := filepath.Join(t.TempDir(), "a.yaml")
	put(t, path, backends("a"))
	snapshots, _ := following(t, path)
	if s := until(t, snapshots, "a"); s.Origin != "file "+path {
		t.Error(s.Origin)
	}
	info, err := os.Stat(path)
	must(t, err)
	put(t, path, backends("b"))
	must(t, os.Chtimes(path, info.ModTime(), info.ModTime())) // As on a file system with coarse time stamps.
	until(t, snapshots, "b")
}

// A ConfigMap's volume: files link to ..data/NAME, ..data links to a dated directory, and an update swaps ..data.
func TestFileSourceFollowsAConfigMap(t *testing.T) {
	t.Parallel() // It mostly waits.
	dir := t.TempDir()
	generation := func(name string, files map[string]string) {
		must(t, os.Mkdir(filepath.Join(dir, name), 0o700))
		for file, content := range files {
			put(t, filepath.Join(dir, name, file), content)
			aged(t, filepath.Join(dir, name, file))
		}
		must(t, os.Symlink(name, filepath.Join(dir, "..data_tmp")), os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
		for file := range files {
			if err := os.Symlink(filepath.Join("..data", file), filepath.Join(dir, file)); err != nil && !errors.Is(err, fs.ErrExist) {
				t.Fatal(err)
			}
		}
	}
	generation("..2026_01_01", map[string]string{"a.yaml": backends("a"), "b.yaml": backends("b")})
	snapshots, _ := following(t, dir)
	until(t, snapshots, "a b")

	generation("..2026_01_02", map[string]string{"a.yaml": backends("c"), "b.yaml": backends("b")}) // a.yaml: same size, same time.
	must(t, os.RemoveAll(filepath.Join(dir, "..2026_01_01")))
	until(t, snapshots, "b c")

	generation("..2026_01_03", map[string]string{"a.yaml": backends("c"), "d.yaml": backends("d")})
	must(t, os.Remove(filepath.Join(dir, "b.yaml")))
	if s := until(t, snapshots, "c d"); len(s.Problems) > 0 {
		t.Error(s.Problems)
	}
}

// polled watches dir on a clock of the test's own and lets it publish dir as it is. The watcher looks at each pollInterval;
// the test acts in the middle between two looks.
func polled(t *testing.T, dir string) <-chan Snapshot {
	t.Helper()
	snapshots, _ := following(t, dir)
	time.Sleep(3 * pollInterval / 2)
	synctest.Wait()
	if len(snapshots) != 1 {
		t.Fatal("what is there at the start was published so many times:", len(snapshots))
	}
	<-snapshots
	return snapshots
}

func poll() {
	time.Sleep(pollInterval)
	synctest.Wait()
}

func TestFileSourceLeavesAFileAloneWhileItIsWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, "a.yaml")
		put(t, path, backends("a", "b", "c"))
		snapshots := polled(t, dir)
		text := "" // The content is gone at once, and comes back bit by bit.
		for _, part := range []string{"", backends("a"), backends("b"), "---\nkind: Backend\nid: c\n", "url: http://other\n"} {
			text += part
			put(t, path, text)
			poll()
			if len(snapshots) > 0 {
				t.Fatalf("a half-written file was read: %+v", <-snapshots)
			}
		}
		poll()
		if len(snapshots) != 1 {
			t.Fatal("published so many times after the file rested:", len(snapshots))
		}
		if s := <-snapshots; names(s.Documents) != "a b c" || s.Documents[2].Backend.URL != "http://other" || len(s.Problems) > 0 {
			t.Errorf("%+v", s)
		}
		for range 20 {
			poll()
		}
		if len(snapshots) > 0 {
			t.Error("published without a change")
		}
	})
}

func TestFileSourcePublishesAChangeWithinASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		snapshots := polled(t, dir)
		for _, id := range []string{"a", "bb", "ccc"} {
			began := time.Now()
			put(t, filepath.Join(dir, "a.yaml"), backends(id))
			if s := <-snapshots; names(s.Documents) != id {
				t.Errorf("%+v", s)
			}
			if took := time.Since(began); took > time.Second {
				t.Error("it took", took)
			}
			time.Sleep(37 * time.Millisecond)
		}
	})
}

func TestFileSourceReadsAFileThatNeverRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		snapshots := polled(t, dir)
		for i := range patience + 2 {
			put(t, filepath.Join(dir, "b.yaml"), strings.Repeat("\n", i)+backends("b"))
			poll()
		}
		if len(snapshots) != 1 {
			t.Fatal("published so many times:", len(snapshots))
		}
		if s := <-snapshots; names(s.Documents) != "b" {
			t.Errorf("%+v", s)
		}
	})
}

func TestFileSourceTellsWhatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "a.yaml"), backends("a"))
	must(t, os.Symlink("nowhere", filepath.Join(dir, "dangling.yaml")),
		syscall.Mkfifo(filepath.Join(dir, "pipe.yaml"), 0o600),
		os.Symlink("loop.yaml", filepath.Join(dir, "loop.yaml")))
	s, err := Load(dir)
	must(t, err)
	var files []string
	for _, p := range s.Problems {
		files = append(files, filepath.Base(p.File))
	}
	if names(s.Documents) != "a" || strings.Join(files, " ") != "dangling.yaml loop.yaml pipe.yaml" {
		t.Error(names(s.Documents), s.Problems)
	}
	if _, err := Load(filepath.Join(dir, "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestFileSourceFailsWithoutItsPath(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "policies")
	_, failed := following(t, dir)
	if err := <-failed; !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	must(t, os.Mkdir(dir, 0o700))
	snapshots, failed := following(t, dir)
	until(t, snapshots, "") // An empty directory is there.
	must(t, os.Rename(dir, dir+".away"))
	select {
	case err := <-failed:
		if !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	case <-time.After(hang):
		t.Error("it did not notice that its directory is gone")
	}
}

func TestFileSourceBoundsTheDocumentsOfADirectory(t *testing.T) {
	dir := t.TempDir()
	var b strings.Builder
	for i := range MaxDocuments - 1 {
		b.WriteString("---\nkind: Backend\nid: b")
		b.WriteString(strings.Repeat("x", i%7))
		b.WriteString("\nurl: http://h\n")
	}
	put(t, filepath.Join(dir, "a.yaml"), b.String())
	put(t, filepath.Join(dir, "b.yaml"), backends("p", "q"))
	put(t, filepath.Join(dir, "c.yaml"), backends("r"))
	s, err := Load(dir)
	must(t, err)
	if len(s.Documents) != MaxDocuments || len(s.Problems) != 1 || filepath.Base(s.Problems[0].File) != "b.yaml" {
		t.Error(len(s.Documents), s.Problems)
	}
}

func BenchmarkLook(b *testing.B) {
	dir := b.TempDir()
	for range 1000 {
		f, err := os.CreateTemp(dir, "*.yaml")
		must(b, err)
		must(b, f.Close())
	}
	source := &fileSource{path: dir}
	for b.Loop() {
		if _, err := source.look(); err != nil {
			b.Fatal(err)
		}
	}
}
