package policy

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

const (
	lastGoodFormat  = 1
	maxLastGoodFile = 256 << 20
)

// lastGood is the file that carries the documents in force over a restart. It holds references to secrets, no secrets.
type lastGood struct {
	Format    int             `json:"format"`
	Saved     time.Time       `json:"saved"`
	Checksum  string          `json:"checksum"` // of the bytes of Documents
	Documents json.RawMessage `json:"documents"`
}

func checksum(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// saveLastGood replaces the file at path as a whole: whoever reads it, at any time and after any crash, finds the old or
// the new content. documents is JSON.
func saveLastGood(path string, documents []byte, now time.Time) (err error) {
	content, err := json.Marshal(lastGood{lastGoodFormat, now.UTC().Truncate(time.Second), checksum(documents), documents})
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	file, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*") // Created with mode 0600.
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = file.Close() // Closed already where closing was what failed.
			_ = os.Remove(file.Name())
		}
	}()
	if _, err := file.Write(content); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	if err := os.Rename(file.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes a rename in dir last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// readLastGood reads what saveLastGood wrote. A document that this version does not accept is among the problems.
func readLastGood(path string) (snapshot Snapshot, saved time.Time, err error) {
	content, err := readFile(path, maxLastGoodFile)
	if err != nil {
		return Snapshot{}, time.Time{}, err
	}
	var file lastGood
	if err := json.Unmarshal(content, &file); err != nil {
		return Snapshot{}, time.Time{}, fmt.Errorf("%s is not a last good file: %w", path, err)
	}
	if file.Format != lastGoodFormat {
		return Snapshot{}, time.Time{}, fmt.Errorf("%s has format %d, this version reads %d", path, file.Format, lastGoodFormat)
	}
	if checksum(file.Documents) != file.Checksum {
		return Snapshot{}, time.Time{}, fmt.Errorf("%s is damaged: its checksum does not match", path)
	}
	var entries []lastGoodEntry
	if err := json.Unmarshal(file.Documents, &entries); err != nil {
		return Snapshot{}, time.Time{}, fmt.Errorf("%s is not a last good file: %w", path, err)
	}
	for i, entry := range entries {
		d, err := entry.document()
		if err != nil {
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

// lastGoodEntry is a Document in the file: another version may have written it.
type lastGoodEntry struct {
	Backend json.RawMessage `json:"backend"`
	Policy  json.RawMessage `json:"policy"`
	File    string          `json:"file"`
}

// document reads an entry over the defaults, for the fields that an older version did not know.
func (e lastGoodEntry) document() (Document, error) {
	d := Document{File: e.File}
	switch {
	case e.Backend != nil && e.Policy == nil:
		d.Backend = new(Backend)
		d.Backend.fill()
		return d, strict(e.Backend, d.Backend)
	case e.Policy != nil && e.Backend == nil:
		d.Policy = new(RoutingPolicy)
		d.Policy.fill()
		return d, strict(e.Policy, d.Policy)
	}
	return Document{}, errors.New("it is not one backend or one policy")
}

func strict(content []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.DisallowUnknownFields()
	return decoder.Decode(into)
}
