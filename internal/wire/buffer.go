package wire

import "sync"

// classes are the sizes of pooled buffers, in bytes. A buffer goes back to the pool of its own size, so that one large body does not
// make every small one hold on to its memory.
var classes = [...]int{4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20}

var pools [len(classes)]sync.Pool

// Buffer is memory on loan. Whoever borrows it releases it once, when nobody reads its bytes any more.
type Buffer struct {
	// B is the content. Its capacity is what was borrowed; append to it, but never past its capacity: Grow first.
	B []byte
}

// Room is the capacity of a buffer that is borrowed for n bytes.
func Room(n int) int {
	for _, size := range classes {
		if n <= size {
			return size
		}
	}
	return n
}

// Borrow returns an empty buffer with room for at least n bytes.
func Borrow(n int) *Buffer {
	for i, size := range classes {
		if n > size {
			continue
		}
		if b, ok := pools[i].Get().(*Buffer); ok {
			return b
		}
		return &Buffer{B: make([]byte, 0, size)}
	}
	return &Buffer{B: make([]byte, 0, n)}
}

// Grow makes room for at least n bytes in all, and keeps the content.
func (b *Buffer) Grow(n int) {
	if n <= cap(b.B) {
		return
	}
	larger := Borrow(n)
	larger.B = append(larger.B, b.B...)
	b.B, larger.B = larger.B, b.B[:0]
	larger.Release()
}

// Release gives the memory back. B must not be used afterwards.
func (b *Buffer) Release() {
	b.B = b.B[:0]
	for i, size := range classes {
		if cap(b.B) == size {
			pools[i].Put(b)
			return
		}
	}
}
