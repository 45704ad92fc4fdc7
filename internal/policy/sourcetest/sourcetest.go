// Package sourcetest holds every policy.Source and policy.Book to the same behaviour. Only tests import it.
package sourcetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/policy"
)

// bound is how long the suite waits for what should take a second. It finds what hangs; it measures nothing.
const bound = time.Minute

// Place is a place of documents under test: what it offers, and what can happen to it. It is empty at first.
type Place struct {
	Source policy.Source
	Book   policy.Book
	// ReadOnly says that Book refuses every Write; Put is then needed.
	ReadOnly bool
	// Keyless says that documents are known by their content alone, as in files, and not by a key that names kind and id.
	Keyless bool
	// Put writes a document past the router, or deletes it where content is nil. Nil where nobody can do that.
	Put func(t testing.TB, kind policy.Kind, id string, content []byte)
	// Second opens the place once more, as another process does. Nil where that makes no difference.
	Second func(t testing.TB) (policy.Source, policy.Book)
	// Stop makes the place go away, and Start brings it back as it was. Nil where it cannot go.
	Stop, Start func(t testing.TB)
}

// Run runs the suite. Each test gets a place of its own from open, which sees to its end by t.Cleanup.
func Run(t *testing.T, open func(t *testing.T) Place) {
	t.Helper()
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := open(t)
			for _, need := range test.needs {
				if why := need(p); why != "" {
					t.Log("this says nothing of such a place:", why)
					return
				}
			}
			test.run(t, p)
		})
	}
}

type need func(Place) string

func writable(p Place) string {
	if p.ReadOnly {
		return "it is read-only"
	}
	return ""
}

func readOnly(p Place) string {
	if !p.ReadOnly {
		return "it can be written"
	}
	return ""
}

func keyed(p Place) string {
	if p.Keyless {
		return "its documents have no keys"
	}
	return ""
}

func rawWrites(p Place) string {
	if p.Put == nil {
		return "nobody writes it past the router"
	}
	return ""
}

func secondProcess(p Place) string {
	if p.Second == nil {
		return "another process makes no difference"
	}
	return ""
}

func goesAway(p Place) string {
	if p.Stop == nil {
		return "it does not go away"
	}
	return ""
}

var tests = []struct {
	name  string
	needs []need
	run   func(*testing.T, Place)
}{
	{"an empty place is a state too", nil, emptyPlace},
	{"the first state is the whole", nil, firstState},
	{"documents of every kind are seen", nil, everyKind},
	{"changes are seen", []need{writable}, changes},
	{"changes of another process are seen", []need{writable, secondProcess}, changesOfAnother},
	{"changes past the router are seen", []need{rawWrites}, changesPastTheRouter},
	{"a snapshot tells the revisions of the book", []need{writable}, snapshotRevisions},
	{"a burst ends in its newest", nil, burst},
	{"a watch that began again begins with the whole", nil, watchAgain},
	{"two watches see the same", nil, twoWatches},
	{"a watch ends with its context and leaves nothing behind", nil, watchEnds},
	{"a place that went away comes back", []need{goesAway}, awayAndBack},

	{"a bad document is a problem alone", nil, badDocuments},
	{"a document that was fixed serves", nil, fixedDocument},
	{"text that is no JSON is a problem alone", []need{rawWrites}, garbage},
	{"one id is one document", nil, oneID},
	{"kind and id may be left to the key", []need{keyed}, leftToTheKey},
	{"policies of the earlier service are read", nil, legacyPolicies},
	{"a large document is read", nil, largeDocument},

	{"a book reads one and all", nil, readOneAndAll},
	{"a book that is read-only says why", []need{readOnly}, refusesWrites},
	{"a document is created once", []need{writable}, createdOnce},
	{"an update holds its revision to the document's", []need{writable}, conditionalUpdate},
	{"a document is deleted", []need{writable}, deleted},
	{"a write that changes nothing is no change", []need{writable}, unchanged},
	{"one of many writers wins", []need{writable}, oneWinner},
	{"writers without a condition all succeed", []need{writable}, allSucceed},
	{"content survives", []need{writable}, contentSurvives},
	{"no change outlasts its context", nil, deadlines},

	{"the history tells who, when, why and what", []need{writable}, history},
	{"the history tells the role and the request", []need{writable}, historyTellsTheRequest},
	{"the history is read in pages", []need{writable}, historyInPages},
	{"a page of the history has a size", []need{writable}, historyInBytes},
	{"the history of all is in one order", []need{writable}, historyOfAll},
	{"an old content can be written again", []need{writable}, rollback},
	{"a change past the router has no actor", []need{writable, rawWrites}, historyPastTheRouter},

	{"any sequence of changes ends as a fresh load", nil, anySequence},
}

// put brings a document into the place: through its book where that can be written, past the router where it cannot.
func (p Place) put(t testing.TB, kind policy.Kind, id string, content json.RawMessage) {
	t.Helper()
	if p.ReadOnly {
		p.Put(t, kind, id, content)
		return
	}
	write(t, p.Book, policy.Write{Kind: kind, ID: id, Content: content})
}

// putRaw is put, past the router where anybody can do that.
func (p Place) putRaw(t testing.TB, kind policy.Kind, id string, content json.RawMessage) {
	t.Helper()
	if p.Put != nil {
		p.Put(t, kind, id, content)
		return
	}
	p.put(t, kind, id, content)
}

// write makes a change that must succeed.
func write(t testing.TB, book policy.Book, change policy.Write) policy.Stored {
	t.Helper()
	stored, err := book.Write(t.Context(), change)
	// On a busy machine a book's patience may be over before that of the suite. What is written twice is the same.
	for deadline := time.Now().Add(bound); errors.Is(err, context.DeadlineExceeded) && change.Content != nil && change.If == nil && time.Now().Before(deadline); {
		stored, err = book.Write(t.Context(), change)
	}
	if err != nil {
		t.Fatalf("write of %s %s: %v", change.Kind, change.ID, err)
	}
	return stored
}

// readOne reads a document that must be there.
func readOne(t testing.TB, book policy.Book, kind policy.Kind, id string) policy.Stored {
	t.Helper()
	found, err := book.Read(t.Context(), kind, id)
	if err != nil || len(found) != 1 {
		t.Fatalf("read of %s %s: %d documents, %v", kind, id, len(found), err)
	}
	return found[0]
}

// refused checks that a change fails for this reason.
func refused(t testing.TB, book policy.Book, change policy.Write, reason error) {
	t.Helper()
	if stored, err := book.Write(t.Context(), change); !errors.Is(err, reason) {
		t.Fatalf("write of %s %s: %+v, %v; want the error %q", change.Kind, change.ID, stored, err, reason)
	}
}

// backend is a backend document; version tells one content from another.
func backend(id string, version int) json.RawMessage {
	return fmt.Appendf(nil, `{"kind":"Backend","id":%q,"url":"http://127.0.0.1:8000","max_concurrency":%d}`, id, version)
}

// route is a policy document for a model with one backend.
func route(id, model, backend string) json.RawMessage {
	return fmt.Appendf(nil, `{"kind":"RoutingPolicy","id":%q,"model":%q,"backends":[{"id":%q}]}`, id, model, backend)
}

// flawed is a backend document that has a field too many, on a line of its own.
func flawed(id string) json.RawMessage {
	return fmt.Appendf(nil, "{\"kind\":\"Backend\",\"id\":%q,\"url\":\"http://127.0.0.1:8000\",\n\"colour\":\"red\"}", id)
}
