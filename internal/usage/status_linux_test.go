package usage_test

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ai-aas/api-router/internal/usage"
)

func TestAFileOfRecordsSaysSinceWhenItCannotBeWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		blocker := filepath.Join(t.TempDir(), "folder")
		if err := os.WriteFile(blocker, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		lines := usage.NewLines(filepath.Join(blocker, "usage.jsonl"))
		defer lines.Close()
		begun := time.Now()
		if err := lines.Probe(); err == nil {
			t.Fatal("a file is a folder")
		}
		look := func() usage.LinesStatus { // Twice: the first look has the file tried again.
			lines.Status()
			synctest.Wait()
			return lines.Status()
		}
		if s := look(); s.Failure == "" || !s.Since.Equal(begun) || !s.Written.IsZero() {
			t.Errorf("%+v", s)
		}
		time.Sleep(5 * time.Second)
		if s := look(); s.Failure == "" || !s.Since.Equal(begun) {
			t.Errorf("later: %+v", s)
		}
		if err := os.Remove(blocker); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if s := look(); s.Failure != "" || !s.Since.Equal(time.Now()) || lines.Failing() { // Nobody wrote a line: that it can be opened is enough.
			t.Errorf("mended: %+v", s)
		}
		time.Sleep(time.Second)
		if _, err := lines.Write([]byte("{}\n")); err != nil {
			t.Fatal(err)
		}
		if s := lines.Status(); !s.Written.Equal(time.Now()) || s.Path != filepath.Join(blocker, "usage.jsonl") {
			t.Errorf("written: %+v", s)
		}
	})
}

func TestAFullDiskIsAFailureUntilALineCouldBeWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lines := usage.NewLines("/dev/full")
		defer lines.Close()
		if s := lines.Status(); s.Failure != "" {
			t.Fatalf("%+v", s)
		}
		if _, err := lines.Write([]byte("{}\n")); err == nil {
			t.Fatal("there is a device that is full and takes more")
		}
		failed := time.Now()
		time.Sleep(5 * time.Second)
		lines.Status()
		synctest.Wait()
		if s := lines.Status(); s.Failure == "" || !s.Since.Equal(failed) || !lines.Failing() {
			t.Errorf("the file can be opened, and is taken for good: %+v", s)
		}
	})
}
