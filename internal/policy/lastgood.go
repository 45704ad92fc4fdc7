package policy

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/ai-aas/api-router/internal/disk"
)

const (
	lastGoodFormat  = 1
	maxLastGoodFile = 256 << 20
)

// lastGood is the beginning of the file that carries the documents in force over a restart. What follows are the documents, as the
// last field of one JSON object. The file holds references to secrets, no secrets.
type lastGood struct {
	Format   int       `json:"format"`
	Saved    time.Time `json:"saved"`
	Checksum string    `json:"checksum"` // of the bytes of the documents
}

const documentsField = `,"documents":`

func checksum(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// sealed is the content of a last good file. documents is JSON.
func sealed(documents []byte, now time.Time) []byte {
	content := fmt.Appendf(make([]byte, 0, len(documents)+256), `{"format":%d,"saved":%q,"checksum":%q%s`,
		lastGoodFormat, now.UTC().Format(time.RFC3339Nano), checksum(documents), documentsField)
	return append(append(content, documents...), '}')
}

const (
	// saveEvery spaces the writes of the last good file while changes go on. The pause after a failure grows to saveSlowest.
	saveEvery, saveSlowest = time.Second, time.Minute
	// saveLast is how long the end waits for the last write: a disk may hang.
	saveLast = 3 * time.Second
)

// saver keeps the last good file. It writes aside, so that a slow disk delays nothing, and only the newest documents.
type saver struct {
	logger *slog.Logger
	newest chan offered // of capacity 1
	write  func(content []byte) error
	tidy   func()
}

// offered are documents and since when they are in force.
type offered struct {
	documents []Document
	since     time.Time
}

func newSaver(path string, logger *slog.Logger) saver {
	return saver{
		logger: logger,
		newest: make(chan offered, 1),
		write:  func(content []byte) error { return replace(path, content) },
		tidy: func() {
			if path != "" {
				disk.Tidy(path)
			}
		},
	}
}

// offer hands over what to keep next and never waits. It is called from one goroutine at a time.
func (s *saver) offer(documents []Document) {
	select {
	case <-s.newest:
	default:
	}
	s.newest <- offered{documents, time.Now()}
}

// start begins to save. end saves what was offered last, and gives up on a disk that does not take it within saveLast.
func (s *saver) start() (end func()) {
	ending, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		s.run(ending)
	}()
	return func() {
		close(ending)
		select {
		case <-ended:
		case <-time.After(saveLast):
			s.logger.Warn("the last good policies are not saved: the disk does not answer", "waited", saveLast.String())
		}
	}
}

func (s *saver) run(ending <-chan struct{}) {
	s.tidy()
	var pending *offered
	var sum string // of what the file holds
	failed := false
	timer := time.NewTimer(0)
	defer timer.Stop()
	for pause := saveEvery; ; {
		over := false
		select {
		case <-ending:
			over = true
		case <-timer.C: // Rested. Now wait for something to do, if there is nothing yet.
			if pending == nil {
				select {
				case o := <-s.newest:
					pending = &o
				case <-ending:
					over = true
				}
			}
		}
		select {
		case o := <-s.newest:
			pending = &o
		default:
		}
		if pending != nil {
			err := s.save(pending, &sum)
			switch {
			case errors.Is(err, errNewer):
				s.logger.Info("the last good policies stay as another process has written them: where that follows another policy source, give each its own policy.last_good",
					"error", err)
				pending = nil
			case err == nil:
				pending, failed, pause = nil, false, saveEvery
			case !failed:
				s.logger.Warn("the last good policies cannot be saved; a start while the policy source is away has older ones or none; make their directory writable, or set policy.last_good to nothing",
					"error", err)
				failed = true
			default:
				pause = min(2*pause, saveSlowest)
			}
		}
		if over {
			return
		}
		timer.Reset(pause + rand.N(pause/10))
	}
}

// save writes the file if it holds anything else.
func (s *saver) save(o *offered, sum *string) error {
	content, err := json.Marshal(o.documents)
	if err != nil { // Strings, numbers, times and maps of strings: nothing in them can fail.
		panic("policy: " + err.Error())
	}
	now := checksum(content)
	if now == *sum {
		return nil
	}
	if err := s.write(sealed(content, o.since)); err != nil {
		return err
	}
	*sum = now
	return nil
}

// errNewer says that another process has put documents into the file that came into force later.
var errNewer = errors.New("there are newer ones")

// replace puts the content of a last good file in its place, unless there are newer documents: of the routers that share a file, one may hear of a
// change later than the other, or not at all.
func replace(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	ours, _, err := unseal(content)
	if err != nil {
		return err
	}
	return disk.Replace(path, func(file *os.File) error {
		_, err := file.Write(content)
		return err
	}, func() error {
		there, err := readFile(path, maxLastGoodFile)
		if err != nil {
			return nil //nolint:nilerr // There is none, or it is of no use to anybody.
		}
		theirs, _, err := unseal(there)
		if err == nil && theirs.Saved.After(ours.Saved) && !theirs.Saved.After(time.Now()) { // A time that is still to come is of a clock that was wrong.
			return fmt.Errorf("%w: in force since %s", errNewer, theirs.Saved.Format(time.RFC3339))
		}
		return nil
	})
}

// unseal takes a last good file apart: its head, and its documents as they stand there.
func unseal(content []byte) (file lastGood, documents []byte, err error) {
	head, tail, _ := bytes.Cut(content, []byte(documentsField)) // The whole is not decoded twice: a start waits for this.
	documents, whole := bytes.CutSuffix(tail, []byte("}"))
	err = json.Unmarshal(append(slices.Clip(head), '}'), &file)
	switch {
	case err != nil:
	case !whole:
		err = errors.New("it holds no documents")
	case file.Format != lastGoodFormat:
		err = fmt.Errorf("it has format %d, this version reads %d", file.Format, lastGoodFormat)
	case checksum(documents) != file.Checksum:
		err = errors.New("it is damaged: its checksum does not match")
	}
	return file, documents, err
}

// readLastGood reads what a saver wrote. A document that this version does not accept is among the problems.
func readLastGood(path string) (snapshot Snapshot, saved time.Time, err error) {
	content, err := readFile(path, maxLastGoodFile)
	if err != nil {
		return Snapshot{}, time.Time{}, err
	}
	file, list, err := unseal(content)
	if err != nil {
		return Snapshot{}, time.Time{}, fmt.Errorf("%s cannot be used as a last good file: %w", path, err)
	}
	var entries []lastGoodEntry
	if err := json.Unmarshal(list, &entries); err != nil {
		return Snapshot{}, time.Time{}, fmt.Errorf("%s is not a last good file: %w", path, err)
	}
	documents, failures := decodeAll(entries)
	for i, d := range documents {
		if err := failures[i]; err != nil {
			snapshot.Problems = append(snapshot.Problems, Problem{
				File:    path,
				Message: fmt.Sprintf("document %d was written by another version: %s", i+1, err),
			})
			continue
		}
		snapshot.Documents = append(snapshot.Documents, d)
	}
	return check(snapshot), file.Saved, nil
}

// decodeAll reads the entries with all processors: a start waits for it. Valid documents are settled here; check tells of the others.
func decodeAll(entries []lastGoodEntry) ([]Document, []error) {
	documents, failures := make([]Document, len(entries)), make([]error, len(entries))
	var workers sync.WaitGroup
	share := len(entries)/runtime.GOMAXPROCS(0) + 1
	for from := 0; from < len(entries); from += share {
		workers.Go(func() {
			for i := from; i < min(from+share, len(entries)); i++ {
				d, err := entries[i].document()
				if settled, found := settle(d); err == nil && len(found) == 0 {
					d = settled
				}
				documents[i], failures[i] = d, err
			}
		})
	}
	workers.Wait()
	return documents, failures
}

// lastGoodEntry is a Document in the file: another version may have written it.
type lastGoodEntry struct {
	Backend  json.RawMessage `json:"backend"`
	Policy   json.RawMessage `json:"policy"`
	Price    json.RawMessage `json:"price"`
	Mark     json.RawMessage `json:"mark"`
	File     string          `json:"file"`
	Revision int64           `json:"revision"`
	Legacy   bool            `json:"legacy"`
}

// document reads an entry over the defaults, for the fields that an older version did not know.
func (e lastGoodEntry) document() (Document, error) {
	d := Document{File: e.File, Revision: e.Revision, Legacy: e.Legacy}
	var err error
	if e.Backend != nil {
		d.Backend = new(Backend)
		d.Backend.fill()
		err = strict(e.Backend, d.Backend)
	}
	if e.Policy != nil {
		d.Policy = new(RoutingPolicy)
		d.Policy.fill()
		err = errors.Join(err, strict(e.Policy, d.Policy))
	}
	if e.Price != nil {
		d.Price = new(Price)
		d.Price.fill()
		err = errors.Join(err, strict(e.Price, d.Price))
	}
	if e.Mark != nil {
		d.Mark = new(Mark)
		err = errors.Join(err, strict(e.Mark, d.Mark))
	}
	if !d.single() {
		return Document{}, errors.New("it is not one backend, one policy, one price or one mark")
	}
	return d, err
}

func strict(content []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.DisallowUnknownFields()
	return decoder.Decode(into)
}
