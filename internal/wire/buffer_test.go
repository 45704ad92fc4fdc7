package wire_test

import (
	"bytes"
	"testing"

	"github.com/ai-aas/api-router/internal/wire"
)

func TestBuffersHaveTheRoomThatWasAskedFor(t *testing.T) {
	for _, n := range []int{0, 1, 4096, 4097, 100_000, 4 << 20, 4<<20 + 1} {
		b := wire.Borrow(n)
		if len(b.B) != 0 || cap(b.B) < n || cap(b.B) != wire.Room(n) {
			t.Errorf("%d: length %d, capacity %d", n, len(b.B), cap(b.B))
		}
		b.Release()
	}
}

func TestGrowKeepsTheContent(t *testing.T) {
	b := wire.Borrow(1)
	want := bytes.Repeat([]byte("x"), 4096)
	b.B = append(b.B, want...)
	for _, n := range []int{10, 5000, 300_000, 5 << 20} {
		b.Grow(n)
		if cap(b.B) < n || !bytes.Equal(b.B, want) {
			t.Errorf("%d: capacity %d, %d bytes kept", n, cap(b.B), len(b.B))
		}
	}
	b.Release()
}

func TestALoanIsNeverSharedBetweenTwo(t *testing.T) {
	a, b := wire.Borrow(100), wire.Borrow(100)
	a.B, b.B = append(a.B, "aaaa"...), append(b.B, "bbbb"...)
	if string(a.B) != "aaaa" {
		t.Errorf("%q", a.B)
	}
	a.Release()
	c := wire.Borrow(100)
	c.B = append(c.B, "cccc"...)
	if string(b.B) != "bbbb" {
		t.Errorf("%q", b.B)
	}
	b.Release()
	c.Release()
}

func BenchmarkBorrow(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		wire.Borrow(5000).Release()
	}
}
