package state

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/ai-aas/api-router/internal/policy"
)

// filled is a book of ten thousand backends and one.
func filled(b *testing.B) (book *Book, path string) {
	b.Helper()
	path = filepath.Join(b.TempDir(), "state.db")
	book = opened(b, path)
	writeVersion(b, book, "first", 1)
	const documents = 10_000
	_, err := here(b, book).writer.Exec(`WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i <= $1)
		INSERT INTO document SELECT 'Backend', 'b' || i, i, '{"url":"http://127.0.0.1:8000","max_concurrency":' || i || '}' FROM n`, documents)
	must(b, err)
	_, err = here(b, book).writer.Exec("UPDATE counter SET value = $1", documents+1)
	must(b, err)
	return book, path
}

func BenchmarkOpenANewBook(b *testing.B) {
	for b.Loop() {
		book := opened(b, filepath.Join(b.TempDir(), "state.db"))
		_, err := book.Read(waits(b), policy.KindBackend, "")
		must(b, err)
		must(b, book.Close())
	}
}

func BenchmarkOpenABookOfTenThousand(b *testing.B) {
	book, path := filled(b)
	must(b, book.Close())
	for b.Loop() {
		book := opened(b, path)
		_, err := book.Read(waits(b), policy.KindBackend, "first")
		must(b, err)
		must(b, book.Close())
	}
}

func BenchmarkWrite(b *testing.B) {
	book, _ := filled(b)
	for i := 0; b.Loop(); i++ {
		writeVersion(b, book, fmt.Sprint("w", i%100), i%1_000_000)
	}
}

func BenchmarkReadTenThousand(b *testing.B) {
	book, _ := filled(b)
	for b.Loop() {
		_, err := book.Read(waits(b), policy.KindBackend, "")
		must(b, err)
	}
}

func BenchmarkLoadTenThousand(b *testing.B) {
	book, _ := filled(b)
	for b.Loop() {
		v := view{}
		_, err := v.look(waits(b), here(b, book))
		must(b, err)
		v.snapshot()
	}
}

// What a watch does for one change in a book of ten thousand; the write is not counted.
func BenchmarkSeeOneChangeInTenThousand(b *testing.B) {
	book, _ := filled(b)
	v := view{}
	_, err := v.look(waits(b), here(b, book))
	must(b, err)
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		writeVersion(b, book, "first", i%1_000_000)
		b.StartTimer()
		differs, err := v.look(waits(b), here(b, book))
		must(b, err)
		if !differs || len(v.snapshot().Documents) != 10_001 {
			b.Fatal("the change is not seen")
		}
	}
}
