// Package arch holds the code to ARCHITECTURE.md.
//
// Its tests read the sources themselves, in this process: files that a test opens are part of the key under which Go caches
// its result, so a change anywhere in the tree runs them again. A test that started `go list` would stay green from the cache.
package arch
