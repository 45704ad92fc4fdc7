package load

import (
	"syscall"
	"time"
)

const prSetTimerslack = 29

// sharpen lets the calling thread, which must be locked, wake on time instead of up to 50 µs late. blunt takes it back. Should they fail,
// sleeps are less exact, which the histogram of late sends shows.
func sharpen() { syscall.RawSyscall(syscall.SYS_PRCTL, prSetTimerslack, 1, 0) } //nolint:errcheck // See above.

func blunt() { syscall.RawSyscall(syscall.SYS_PRCTL, prSetTimerslack, 0, 0) } //nolint:errcheck // See above.

// sleepUntil blocks the thread, not only the goroutine: the kernel's timer is exact where the runtime's is not.
func sleepUntil(t time.Time) {
	for d := time.Until(t); d > 0; d = time.Until(t) {
		ts := syscall.NsecToTimespec(int64(d))
		_ = syscall.Nanosleep(&ts, nil) // A signal ends it early: then it sleeps again.
	}
}
