package policy

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"
)

// FileBook is the book of the files that FileSource reads at path. It shows the documents as they stand there now, good or bad, and
// the first of several with one id; what names no kind and id is told by the problems of the table alone. Whoever edits the files is
// their only writer: Write fails with ErrReadOnly and says where to make the change. So does History, rather than to show an
// empty one, which would read like "never changed".
func FileBook(path string) Book {
	return &fileBook{source: fileSource{path: path}}
}

type fileBook struct {
	source fileSource

	mu   sync.Mutex
	read map[string]bookFile // by path, so that unchanged files are not parsed again
}

type bookFile struct {
	sum    [sha256.Size]byte
	stored []Stored
}

func (b *fileBook) Read(ctx context.Context, kind Kind, id string) ([]Stored, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	all, err := b.load()
	if err != nil {
		return nil, err
	}
	var found []Stored
	known := make(map[string]bool)
	for _, d := range all {
		if d.Kind == kind && !known[d.ID] && (id == "" || d.ID == id) {
			known[d.ID] = true
			found = append(found, d)
		}
	}
	if id != "" && len(found) == 0 {
		return nil, ErrNotFound
	}
	slices.SortFunc(found, func(a, b Stored) int { return cmp.Compare(a.ID, b.ID) })
	return found, ctx.Err()
}

func (b *fileBook) Write(ctx context.Context, change Write) (Stored, error) {
	if found, err := b.Read(ctx, change.Kind, change.ID); err == nil && change.ID != "" {
		return Stored{}, fmt.Errorf("%w: the documents come from files: change this one in %s", ErrReadOnly, found[0].Place)
	}
	return Stored{}, fmt.Errorf("%w: the documents come from files: make the change in %s", ErrReadOnly, b.source.path)
}

func (b *fileBook) History(context.Context, Kind, string, int64, int) ([]Change, error) {
	return nil, fmt.Errorf("%w: the documents come from files, and nothing records their changes here: ask the version control of %s",
		ErrReadOnly, b.source.path)
}

// load reads the documents of all files, in the order of their places. A file that cannot be read has none.
func (b *fileBook) load() ([]Stored, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	seen, err := b.source.look()
	if err != nil {
		return nil, err
	}
	var all []Stored
	read := make(map[string]bookFile, len(seen))
	for _, s := range seen {
		content, err := readFile(s.path, MaxFile)
		if err != nil {
			continue
		}
		file := b.read[s.path]
		if sum := sha256.Sum256(content); file.sum != sum {
			file = bookFile{sum, storedIn(s.path, content)}
		}
		read[s.path] = file
		all = append(all, file.stored...)
	}
	b.read = read
	return all, nil
}

// storedIn are the documents of one file of which kind and id can be read.
func storedIn(path string, data []byte) []Stored {
	var all []Stored
	each(path, data, func(c chunk) []Problem {
		d, body, found := c.read(path, key{})
		stored := Stored{Legacy: d.Legacy}
		if len(found) > 0 {
			stored.Kind, stored.ID = found[0].Kind, found[0].ID
		} else {
			stored.Kind, stored.ID = d.Kind(), d.ID()
		}
		if body == nil || stored.Kind == "" || stored.ID == "" {
			return nil
		}
		line, _ := c.position(start(body))
		stored.Place = place(path, line, 0)
		var err error
		if stored.Content, err = toJSON(body); err == nil { // Otherwise the table tells of the problem.
			all = append(all, stored)
		}
		return nil
	})
	return all
}
