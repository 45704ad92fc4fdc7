package report

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// The lines of a page between which results stand. The text around them is a person's.
const (
	beginMark = "<!-- results: written by make bench -->"
	endMark   = "<!-- end of results -->"
)

// Insert puts results between the marks of a page.
func Insert(page, results string) (string, error) {
	before, rest, ok := strings.Cut(page, beginMark)
	if !ok {
		return "", errors.New("the page has no line " + beginMark)
	}
	_, after, ok := strings.Cut(rest, endMark)
	if !ok {
		return "", errors.New("the page has no line " + endMark + " after the other mark")
	}
	return before + beginMark + "\n\n" + strings.TrimSpace(results) + "\n\n" + endMark + after, nil
}

// Update puts results into the page at path, which is made if it is not there. The page is replaced in one step.
func Update(path, results string) error {
	content, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		content = []byte("# Benchmark\n\n" + beginMark + "\n" + endMark + "\n")
	} else if err != nil {
		return err
	}
	page, err := Insert(string(content), results)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	draft, err := os.CreateTemp(filepath.Dir(path), ".draft-*")
	if err != nil {
		return err
	}
	_, err = draft.WriteString(page)
	err = errors.Join(err, draft.Chmod(0o644), draft.Close())
	if err == nil {
		err = os.Rename(draft.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(draft.Name()))
	}
	return nil
}
