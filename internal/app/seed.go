package app

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ai-aas/api-router/internal/policy"
)

// SeedOptions are the flags of seed.
type SeedOptions struct {
	// Files are files or directories of documents.
	Files []string
	// Upgrade turns the policies of the earlier service that are in the source into our form.
	Upgrade bool
	// DryRun says what would be written, and writes nothing.
	DryRun bool
	// Wait is how long the source may take to answer.
	Wait time.Duration
}

const (
	// seedActor is what the history calls seed.
	seedActor = "seed"
	// seedTries bounds the attempts at one document: another writer may come between reading and writing.
	seedTries = 5
	// seedWithin bounds one call to the book.
	seedWithin = 10 * time.Second
)

// Seed puts documents into the policy source that the configuration names, where they are absent or differ, and prints what it did with
// each. All of them are checked first: when one is bad, nothing is written and every problem is printed. Doing it again changes nothing.
// It returns ErrFound when something in the documents needs a person.
func Seed(ctx context.Context, p Process, sources Sources, o SeedOptions) error {
	switch {
	case len(o.Files) == 0 && !o.Upgrade:
		return errors.New("there is nothing to do: name files with -f, or ask for --upgrade")
	case o.Wait <= 0:
		return fmt.Errorf("--wait: %s is not above 0", o.Wait)
	}
	config, _, err := Load(sources)
	if err != nil {
		return err
	}
	if config.Policy.Source == SourceFile {
		return fmt.Errorf("policy.source is file: the documents are the files in %s, and a change of these is all that it takes; "+
			"to seed etcd or the state book, set policy.source, API_ROUTER_POLICY_SOURCE or --policy-source", config.Policy.File.Path)
	}
	seeds, problems, err := readDocuments(o.Files)
	if err != nil {
		return err
	}
	if len(problems) > 0 {
		for _, problem := range problems {
			fmt.Fprintln(p.Stderr, problem)
		}
		fmt.Fprintf(p.Stderr, "nothing was written: %d problems\n", len(problems))
		return ErrFound
	}
	place, err := openPlace(&config, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	s := seeding{book: place.book, environment: documents(config.Backends), out: p.Stdout, dry: o.DryRun}
	if config.Policy.Source == SourceEtcd {
		s.prefix = config.Policy.Etcd.Prefix
	}
	waiting, cancel := context.WithTimeout(ctx, o.Wait)
	err = place.wait(waiting)
	cancel()
	switch {
	case err == nil:
		err = s.run(ctx, seeds, o.Upgrade)
	case ctx.Err() != nil:
		err = fmt.Errorf("interrupted: nothing was written: %w", ctx.Err())
	default:
		err = fmt.Errorf("nothing was written within %s (--wait): %w", o.Wait, err)
	}
	return errors.Join(err, place.close())
}

// readDocuments reads all files, and finds everything that is wrong with their documents.
func readDocuments(paths []string) ([]policy.Written, []policy.Problem, error) {
	var documents []policy.Written
	var problems []policy.Problem
	for _, path := range paths {
		files, err := documentFiles(path)
		if err != nil {
			return nil, nil, err
		}
		for _, file := range files {
			content, err := readDocumentFile(file)
			if err != nil {
				return nil, nil, err
			}
			found, wrong := policy.ParseWritten(file, content)
			documents, problems = append(documents, found...), append(problems, wrong...)
		}
	}
	places := map[string]string{}
	for _, d := range documents {
		name, at := string(d.Kind())+" "+d.ID(), fmt.Sprintf("%s:%d", d.File, d.Line)
		if first, twice := places[name]; twice {
			problems = append(problems, policy.Problem{
				Kind: d.Kind(), ID: d.ID(), File: d.File, Line: d.Line, Message: "the same document is also at " + first,
			})
			continue
		}
		places[name] = at
	}
	slices.SortStableFunc(documents, func(a, b policy.Written) int { // A policy comes after the backends that it names.
		return slices.Index(policy.Kinds(), a.Kind()) - slices.Index(policy.Kinds(), b.Kind())
	})
	return documents, problems, nil
}

// documentFiles are the files of a path, as serve reads them.
func documentFiles(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("documents cannot be read: %w", err)
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, fmt.Errorf("documents cannot be read: %w", err)
	}
	var files []string
	for _, entry := range entries {
		file := filepath.Join(path, entry.Name())
		if !slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(file)) || strings.HasPrefix(entry.Name(), ".") {
			continue
		}
		if info, err := os.Stat(file); err == nil && info.IsDir() { // A link to a directory is one.
			continue
		}
		files = append(files, file)
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("there is no file *.yaml, *.yml or *.json in %s", path)
	}
	return files, nil
}

func readDocumentFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("documents cannot be read: %w", err)
	}
	if mode := info.Mode(); !mode.IsRegular() && mode&fs.ModeNamedPipe == 0 || info.Size() > policy.MaxFile {
		return nil, fmt.Errorf("documents cannot be read: %s is not a file of at most %d MiB", path, policy.MaxFile>>20)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("documents cannot be read: %w", err)
	}
	defer func() { _ = file.Close() }() // It was only read: nothing can be lost.
	content, err := io.ReadAll(io.LimitReader(file, policy.MaxFile+1))
	if err != nil {
		return nil, fmt.Errorf("documents cannot be read: %w", err)
	}
	return content, nil
}

// seeding is one run of seed over a book.
type seeding struct {
	book                        policy.Book
	prefix                      string            // of the book's keys
	environment                 []policy.Document // what serve has beside those of the book
	out                         io.Writer
	dry                         bool
	created, changed, unchanged int
}

// run upgrades what is there, where that is asked for, and writes the documents. A policy that cannot be upgraded keeps nothing else back.
func (s *seeding) run(ctx context.Context, documents []policy.Written, upgrade bool) error {
	var found error
	if upgrade {
		if found = s.upgrade(ctx); found != nil && !errors.Is(found, ErrFound) {
			return found
		}
	}
	return cmp.Or(s.write(ctx, documents), found)
}

// say prints what was done with one document.
func (s *seeding) say(verb string, kind policy.Kind, id, more string) {
	fmt.Fprintf(s.out, "%-9s %s %s%s\n", verb, kind, id, more)
}

// write brings every document into the book.
func (s *seeding) write(ctx context.Context, documents []policy.Written) error {
	for _, d := range documents {
		verb, err := s.put(ctx, d)
		if err != nil {
			return fmt.Errorf("%s %s cannot be written, and what comes after it was not: %w", d.Kind(), d.ID(), err)
		}
		s.say(verb, d.Kind(), d.ID(), "")
	}
	if len(documents) == 0 {
		return nil
	}
	fmt.Fprintf(s.out, "%d documents: %d created, %d changed, %d unchanged%s\n", len(documents), s.created, s.changed, s.unchanged, s.note())
	return s.warn(ctx, documents)
}

// note is what the last line adds.
func (s *seeding) note() string {
	if s.dry {
		return " (a dry run: nothing was written)"
	}
	return ""
}

// warn prints what is wrong between these documents and those that are there, such as a policy's backend that does not exist. It may
// come yet, with the next seed: that is no failure.
func (s *seeding) warn(ctx context.Context, documents []policy.Written) error {
	seeded := map[string]bool{}
	all := policy.Snapshot{Documents: slices.Clone(s.environment)}
	for _, d := range documents {
		seeded[string(d.Kind())+" "+d.ID()] = true
		all.Documents = append(all.Documents, d.Document)
	}
	for _, kind := range policy.Kinds() {
		var stored []policy.Stored
		err := s.again(ctx, func(ctx context.Context) (err error) {
			stored, err = s.book.Read(ctx, kind, "")
			return err
		})
		if err != nil {
			return fmt.Errorf("the documents cannot be compared with the others: %w", err)
		}
		for _, each := range stored {
			if d, problems := s.parse(each); len(problems) == 0 && !seeded[string(kind)+" "+d.ID()] {
				all.Documents = append(all.Documents, d)
			}
		}
	}
	for _, problem := range policy.Compile(all, nil).Problems() {
		if seeded[string(problem.Kind)+" "+problem.ID] {
			fmt.Fprintf(s.out, "warning: %s\n", problem)
		}
	}
	return nil
}

// parse reads a stored document.
func (s *seeding) parse(stored policy.Stored) (policy.Document, []policy.Problem) {
	return policy.ParseOne(stored.Place, stored.Kind, s.key(stored), stored.Content)
}

// key is the part of a document's key that names it: its id, or of a policy the earlier service's ORGANIZATION/MODEL.
func (s *seeding) key(stored policy.Stored) string {
	if key, ok := strings.CutPrefix(stored.Place, s.prefix+stored.Kind.Collection()+"/"); ok {
		return key
	}
	return stored.ID
}

// put writes one document if it is absent or says something else.
func (s *seeding) put(ctx context.Context, d policy.Written) (verb string, err error) {
	err = s.again(ctx, func(ctx context.Context) error {
		found, err := s.book.Read(ctx, d.Kind(), d.ID())
		w := policy.Write{Kind: d.Kind(), ID: d.ID(), Content: d.Content, Actor: seedActor}
		switch {
		case errors.Is(err, policy.ErrNotFound):
			verb, w.If = "created", new(int64)
		case err != nil:
			return err
		case s.means(found[0], d.Document):
			verb = "unchanged"
			return nil
		default:
			verb, w.If = "changed", &found[0].Revision
		}
		return s.do(ctx, w)
	})
	switch {
	case err != nil:
	case verb == "created":
		s.created++
	case verb == "changed":
		s.changed++
	default:
		s.unchanged++
	}
	return verb, err
}

// do makes a change, unless nothing is to be written.
func (s *seeding) do(ctx context.Context, w policy.Write) error {
	if s.dry {
		return nil
	}
	_, err := s.book.Write(ctx, w)
	return err
}

// again repeats what another writer came between, or whose answer was lost. What is repeated reads first, and then writes what differs.
func (s *seeding) again(ctx context.Context, once func(context.Context) error) error {
	for try := 1; ; try++ {
		limited, cancel := context.WithTimeout(ctx, seedWithin)
		err := once(limited)
		cancel()
		if err == nil || try == seedTries || ctx.Err() != nil || errors.Is(err, policy.ErrReadOnly) {
			return err
		}
		pause(ctx, time.Duration(try)*100*time.Millisecond+rand.N(100*time.Millisecond))
	}
}

// means reports whether a stored document says what d says: in whatever form it is written, and with defaults left out or not.
func (s *seeding) means(stored policy.Stored, d policy.Document) bool {
	there, problems := s.parse(stored)
	if len(problems) > 0 {
		return false
	}
	left, leftErr := policy.JSON(there)
	right, rightErr := policy.JSON(d)
	return leftErr == nil && rightErr == nil && bytes.Equal(left, right)
}
