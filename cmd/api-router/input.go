package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/policy"
)

// writing is the documents of all files, one after the other, and where each line of that comes from.
type writing struct {
	text  []byte
	any   bool // there is more than empty files
	files []written
}

type written struct {
	name  string
	first int // its first line in the text, from 1
}

// read takes files, directories and - for the standard input.
func (o *operation) read(paths []string) (*writing, error) {
	if len(paths) == 0 {
		return nil, fmt.Errorf("name the documents with -f FILE, -f DIRECTORY or -f - for the standard input")
	}
	w := &writing{}
	for _, path := range paths {
		files, err := documentsAt(path)
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			if err := w.add(o, file); err != nil {
				return nil, err
			}
		}
	}
	if !w.any {
		return nil, fmt.Errorf("there is no document in %s", strings.Join(paths, ", "))
	}
	return w, nil
}

// documentsAt lists the files that a path means.
func documentsAt(path string) ([]string, error) {
	if path == stdin {
		return []string{path}, nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); !strings.HasPrefix(e.Name(), ".") && slices.Contains([]string{".yaml", ".yml", ".json"}, ext) && !e.IsDir() {
			files = append(files, filepath.Join(path, e.Name()))
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s holds no file *.yaml, *.yml or *.json", path)
	}
	return files, nil
}

func (w *writing) add(o *operation, name string) error {
	text, err := o.input(name, policy.MaxFile)
	if err != nil {
		return err
	}
	text = bytes.TrimPrefix(text, []byte("\uFEFF"))
	if len(w.text) > 0 {
		w.text = append(w.text, "---\n"...)
	}
	w.files = append(w.files, written{called(name), 1 + bytes.Count(w.text, []byte("\n"))})
	w.text = append(w.text, text...)
	if len(text) > 0 && text[len(text)-1] != '\n' {
		w.text = append(w.text, '\n')
	}
	if len(bytes.TrimSpace(text)) > 0 {
		w.any = true
	}
	return nil
}

// input reads a file of at most so many bytes; - is the standard input. Somebody who types or a pipe can keep it waiting and cannot
// be asked to stop: it is left behind when the command is interrupted.
func (o *operation) input(name string, most int64) ([]byte, error) {
	type result struct {
		text []byte
		err  error
	}
	done := make(chan result, 1)
	go func() {
		text, err := readAll(name, o.stdin, most)
		done <- result{text, err}
	}()
	select {
	case r := <-done:
		return r.text, r.err
	case <-o.Context().Done():
		return nil, fmt.Errorf("interrupted while reading %s", called(name))
	}
}

func readAll(name string, source io.Reader, most int64) ([]byte, error) {
	if name != stdin {
		file, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer func() { _ = file.Close() }() // It was only read.
		source = file
	}
	text, err := io.ReadAll(io.LimitReader(source, most+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", called(name), err)
	}
	if int64(len(text)) > most {
		return nil, fmt.Errorf("%s is larger than %d MiB", called(name), most>>20)
	}
	return text, nil
}

// stdin is the name of the standard input.
const stdin = "-"

func called(name string) string {
	if name == stdin {
		return "standard input"
	}
	return name
}

// locate turns a problem's place in the text into one in a file, and those that its message names.
func (w *writing) locate(p adminapi.Problem) adminapi.Problem {
	if name, line, ok := w.file(p.Line); ok {
		p.Place, p.Line = name, line
	}
	p.Message = requestLine.ReplaceAllStringFunc(p.Message, func(place string) string {
		number, _ := strconv.Atoi(requestLine.FindStringSubmatch(place)[1]) // Digits; too many of them are no line.
		if name, line, ok := w.file(number); ok {
			return name + ":" + strconv.Itoa(line)
		}
		return place
	})
	return p
}

// requestLine is a place in what was sent, as the server names it.
var requestLine = regexp.MustCompile(`\brequest:(\d+)\b`)

// file finds where a line of the text comes from.
func (w *writing) file(line int) (name string, in int, ok bool) {
	for _, f := range slices.Backward(w.files) {
		if line >= f.first && line > 0 {
			return f.name, line - f.first + 1, true
		}
	}
	return "", 0, false
}

// complain prints the problems that keep documents from being used. Its error says how many there are.
func (w *writing) complain(o *operation, problems []adminapi.Problem) error {
	for _, p := range problems {
		if _, err := fmt.Fprintln(o.ErrOrStderr(), oneLine(w.locate(p).String())); err != nil {
			return err
		}
	}
	switch len(problems) {
	case 0:
		return nil
	case 1:
		return errors.New("nothing was written: there is a problem, see above")
	}
	return fmt.Errorf("nothing was written: there are %d problems, see above", len(problems))
}
