package policy

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	pollInterval = 200 * time.Millisecond
	maxInterval  = 5 * time.Second
	// restPerFile spaces the polls of a large directory, so that stats of about 3 µs each stay below a tenth of one core. It
	// goes by the number of files and not by the time that a look took: a busy machine must not also be a slow one to change.
	restPerFile = 50 * time.Microsecond
	// patience is how many polls a change may go on before the files are read although they do not rest.
	patience = 10
	// coarsest is the coarsest time stamp of a file system in use (FAT: 2 s). A file may change again within one without
	// a trace in its size and time, so what was read that early is read once more.
	coarsest = 2 * time.Second
)

// FileSource is a file, or the files *.yaml, *.yml and *.json right inside a directory (dot files aside, in the order of
// their names). It polls: see docs/adr/0001-policy-files-by-polling.md.
//
// A change is published within a second once the files rest for a poll, so that a file that is being written is left alone.
func FileSource(path string) Source { return &fileSource{path: path} }

// Load reads the documents at path, as FileSource does, once. It fails if path itself cannot be read; a file in it that
// cannot be read is a problem of the snapshot.
func Load(path string) (Snapshot, error) {
	source := &fileSource{path: path}
	seen, err := source.look()
	if err != nil {
		return Snapshot{}, err
	}
	return source.read(seen), nil
}

type fileSource struct {
	path string

	mu     sync.Mutex            // of read: several may watch at once
	parsed map[string]parsedFile // by path: what the last read found, so that unchanged files are not parsed again
}

type parsedFile struct {
	sum       [sha256.Size]byte
	documents []Document
	problems  []Problem
}

// sighting is what a stat tells of one file.
type sighting struct {
	path string
	info fs.FileInfo // nil if err is set
	err  error
}

func (s sighting) same(other sighting) bool {
	if s.path != other.path || (s.err == nil) != (other.err == nil) {
		return false
	}
	if s.err != nil {
		return s.err.Error() == other.err.Error()
	}
	return s.info.Size() == other.info.Size() && s.info.Mode() == other.info.Mode() &&
		s.info.ModTime().Equal(other.info.ModTime()) && os.SameFile(s.info, other.info)
}

func unchanged(a, b []sighting) bool { return slices.EqualFunc(a, b, sighting.same) }

// look stats the files. It follows links, which shows the swap of a ConfigMap's ..data as new files.
func (f *fileSource) look() ([]sighting, error) {
	info, err := os.Stat(f.path)
	if err != nil {
		return nil, fmt.Errorf("policies cannot be read: %w", err)
	}
	if !info.IsDir() {
		return []sighting{{path: f.path, info: info}}, nil
	}
	entries, err := os.ReadDir(f.path)
	if err != nil {
		return nil, fmt.Errorf("policies cannot be read: %w", err)
	}
	var seen []sighting
	for _, entry := range entries {
		if !isDocumentFile(entry.Name()) || entry.IsDir() {
			continue
		}
		s := sighting{path: filepath.Join(f.path, entry.Name())}
		s.info, s.err = os.Stat(s.path)
		if s.err == nil && s.info.IsDir() {
			continue
		}
		seen = append(seen, s)
	}
	return seen, nil
}

func isDocumentFile(name string) bool {
	switch filepath.Ext(name) {
	case ".yaml", ".yml", ".json":
		return !strings.HasPrefix(name, ".")
	}
	return false
}

// Watch fails when the path itself cannot be read, for instance because it is not there yet.
func (f *fileSource) Watch(ctx context.Context, publish func(Snapshot)) error {
	var w watch
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
		now := time.Now()
		seen, err := f.look()
		if err != nil {
			return err
		}
		if w.due(seen, now) {
			snapshot := f.read(seen)
			after, err := f.look()
			if err != nil {
				return err
			}
			if w.still(unchanged(seen, after)) { // Otherwise what was read may be half old and half new.
				publish(snapshot)
				w.shown(seen, now)
			}
		}
		w.before = seen
		timer.Reset(min(max(pollInterval, time.Duration(len(seen))*restPerFile), maxInterval))
	}
}

// watch decides when files are read.
type watch struct {
	published []sighting // as they were when they were last read and published
	before    []sighting // as the last poll saw them
	begun     bool       // something was published
	restless  int        // polls for which a change goes on
	again     time.Time  // when to read once more without a visible change; zero: never
}

// due says whether to read now: when the files changed and then rested for a poll, or have not rested for too long.
func (w *watch) due(seen []sighting, now time.Time) bool {
	if w.begun && unchanged(seen, w.published) {
		w.restless = 0
		return !w.again.IsZero() && !now.Before(w.again)
	}
	rests := unchanged(seen, w.before)
	if !w.begun && w.before == nil { // There is no earlier look to compare with: the age tells.
		age := now.Sub(newest(seen))
		rests = age < 0 || age > pollInterval
	}
	return w.still(rests)
}

// still lets go what does not rest, but not for ever: then reading something is better than reading nothing.
func (w *watch) still(rests bool) bool {
	if !rests && w.restless < patience {
		w.restless++
		return false
	}
	return true
}

func (w *watch) shown(seen []sighting, now time.Time) {
	*w = watch{published: seen, begun: true}
	if age := now.Sub(newest(seen)); age >= 0 && age < coarsest {
		w.again = now.Add(coarsest)
	}
}

func newest(seen []sighting) time.Time {
	var t time.Time
	for _, s := range seen {
		if s.err == nil && s.info.ModTime().After(t) {
			t = s.info.ModTime()
		}
	}
	return t
}

func (f *fileSource) read(seen []sighting) Snapshot {
	f.mu.Lock()
	defer f.mu.Unlock()
	snapshot := Snapshot{Origin: "file " + f.path}
	if len(seen) != 1 || seen[0].path != f.path {
		snapshot.Origin = "directory " + f.path
	}
	parsed := make(map[string]parsedFile, len(seen))
	for _, s := range seen {
		p := f.readOne(s)
		if len(snapshot.Documents)+len(p.documents) > MaxDocuments {
			snapshot.Problems = append(snapshot.Problems, Problem{
				File:    s.path,
				Message: fmt.Sprintf("there are more than %d documents with this file: it is not read", MaxDocuments),
			})
			continue
		}
		parsed[s.path] = p
		snapshot.Documents = append(snapshot.Documents, p.documents...)
		snapshot.Problems = append(snapshot.Problems, p.problems...)
	}
	f.parsed = parsed
	return snapshot
}

func (f *fileSource) readOne(s sighting) parsedFile {
	content, err := readFile(s.path, MaxFile)
	if err != nil {
		return parsedFile{problems: []Problem{{File: s.path, Message: "the file cannot be read: " + err.Error()}}}
	}
	sum := sha256.Sum256(content)
	if known, ok := f.parsed[s.path]; ok && known.sum == sum {
		return known
	}
	p := parsedFile{sum: sum}
	p.documents, p.problems = Parse(s.path, content)
	return p
}
