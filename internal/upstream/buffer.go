package upstream

import "sync"

// The size classes of buffers. A stream that waits holds one small buffer; the others are for heads and bodies that
// do not fit, and go back as soon as those have passed.
const (
	small  = 4 << 10
	medium = 16 << 10
	large  = maxResponseHeader
)

var (
	smallBuffers  = sync.Pool{New: func() any { return new([small]byte) }}
	mediumBuffers = sync.Pool{New: func() any { return new([medium]byte) }}
	largeBuffers  = sync.Pool{New: func() any { return new([large]byte) }}
)

// getBuffer returns a buffer of the smallest class that holds n bytes, or of the largest.
func getBuffer(n int) []byte {
	switch {
	case n <= small:
		return smallBuffers.Get().(*[small]byte)[:] //nolint:forcetypeassert // New makes nothing else.
	case n <= medium:
		return mediumBuffers.Get().(*[medium]byte)[:] //nolint:forcetypeassert // New makes nothing else.
	default:
		return largeBuffers.Get().(*[large]byte)[:] //nolint:forcetypeassert // New makes nothing else.
	}
}

// putBuffer gives a buffer back. One that has outgrown its class is left to the garbage collector.
func putBuffer(b []byte) {
	switch b = b[:cap(b)]; len(b) {
	case small:
		smallBuffers.Put((*[small]byte)(b))
	case medium:
		mediumBuffers.Put((*[medium]byte)(b))
	case large:
		largeBuffers.Put((*[large]byte)(b))
	}
}
