package usage_test

import (
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ai-aas/api-router/internal/usage"
)

// limitFileSize makes writes past n bytes fail, as a full disk does: after a part of the line was written.
func limitFileSize(t *testing.T, n uint64) (lift func()) {
	t.Helper()
	signal.Ignore(syscall.SIGXFSZ)
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal("no file size limits here, so nothing stands for a full disk: ", err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: n, Max: before.Max}); err != nil {
		t.Fatal("no file size limits here, so nothing stands for a full disk: ", err)
	}
	return func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
			t.Fatal(err)
		}
	}
}

func TestATornLineIsNotJoinedToTheNext(t *testing.T) { synctest.Test(t, tornLine) }

func tornLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "usage.jsonl")
	lines := usage.NewLines(path)
	lift := limitFileSize(t, 10)
	n, err := lines.Write([]byte("0123456789abcdef\n"))
	lift()
	if err == nil || n != 10 {
		t.Fatalf("wrote %d, %v", n, err)
	}
	time.Sleep(2 * time.Second) // In the bubble's time: a failed file is left alone for a second.
	if _, err := lines.Write([]byte("whole\n")); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "0123456789\nwhole\n" {
		t.Errorf("%q, %v", got, err)
	}
	if err := lines.Close(); err != nil {
		t.Error(err)
	}
}
