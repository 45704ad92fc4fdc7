package sourcetest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/policy"
)

// sameJSON says whether two texts are the same value: white space, the order of fields and the spelling of strings aside.
func sameJSON(a, b json.RawMessage) bool {
	left, leftErr := jsonValue(a)
	right, rightErr := jsonValue(b)
	return leftErr == nil && rightErr == nil && reflect.DeepEqual(left, right)
}

func jsonValue(text json.RawMessage) (any, error) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber() // 0.10 is not 0.1, and 9007199254740993 is a number of its own.
	var value any
	err := decoder.Decode(&value)
	return value, err
}

func readOneAndAll(t *testing.T, p Place) {
	ids := []string{"a", "a.b", "a1", "c", "z"}
	for i := range ids { // In another order than theirs.
		id := ids[len(ids)-1-i]
		p.put(t, policy.KindBackend, id, backend(id, 1))
	}
	p.put(t, policy.KindRoutingPolicy, "a", route("a", "m", "c"))
	follow(t, p.Source).holds(t, "what was put", map[string]int{"a": 1, "a.b": 1, "a1": 1, "c": 1, "z": 1})

	all, err := p.Book.Read(t.Context(), policy.KindBackend, "")
	if err != nil || len(all) != len(ids) {
		t.Fatalf("%d backends, %v", len(all), err)
	}
	for i, stored := range all {
		if stored.ID != ids[i] || stored.Kind != policy.KindBackend || stored.Place == "" || !sameJSON(stored.Content, backend(ids[i], 1)) {
			t.Errorf("backend %d is %+v, want %s", i, stored, ids[i])
		}
	}
	if one := readOne(t, p.Book, policy.KindRoutingPolicy, "a"); !sameJSON(one.Content, route("a", "m", "c")) {
		t.Errorf("the policy is %s", one.Content)
	}
	if none, err := p.Book.Read(t.Context(), policy.KindPrice, ""); err != nil || len(none) > 0 {
		t.Errorf("%d prices, %v; want none", len(none), err)
	}
	for _, id := range []string{"b", "a.", "A", "a/b"} {
		if found, err := p.Book.Read(t.Context(), policy.KindBackend, id); !errors.Is(err, policy.ErrNotFound) {
			t.Errorf("read of %s: %d documents, %v", id, len(found), err)
		}
	}
}

func refusesWrites(t *testing.T, p Place) {
	p.Put(t, policy.KindBackend, "a", backend("a", 1))
	f := follow(t, p.Source)
	f.holds(t, "the document", map[string]int{"a": 1})
	for _, content := range []json.RawMessage{backend("a", 2), backend("a", 1), nil} {
		_, err := p.Book.Write(t.Context(), policy.Write{Kind: policy.KindBackend, ID: "a", Content: content, Actor: "ops"})
		if !errors.Is(err, policy.ErrReadOnly) {
			t.Fatalf("write: %v", err)
		}
		if len(err.Error()) <= len(policy.ErrReadOnly.Error()) {
			t.Errorf("%q does not say why", err)
		}
	}
	if stored := readOne(t, p.Book, policy.KindBackend, "a"); !sameJSON(stored.Content, backend("a", 1)) || stored.Revision != 0 {
		t.Errorf("the document is %+v", stored)
	}
	if entries, err := p.Book.History(t.Context(), "", "", 0, 10); len(entries) > 0 || err != nil && !errors.Is(err, policy.ErrReadOnly) {
		t.Errorf("a history of %d entries, %v", len(entries), err)
	}
}

func createdOnce(t *testing.T, p Place) {
	create := policy.Write{Kind: policy.KindBackend, ID: "a", Content: backend("a", 1), If: new(int64), Actor: "ops"}
	stored := write(t, p.Book, create)
	if stored.Kind != policy.KindBackend || stored.ID != "a" || stored.Revision <= 0 || stored.Place == "" || !sameJSON(stored.Content, backend("a", 1)) {
		t.Errorf("created: %+v", stored)
	}
	if read := readOne(t, p.Book, policy.KindBackend, "a"); !reflect.DeepEqual(read, stored) {
		t.Errorf("read: %+v, written: %+v", read, stored)
	}
	create.Content = backend("a", 2)
	refused(t, p.Book, create, policy.ErrConflict)
	if read := readOne(t, p.Book, policy.KindBackend, "a"); !reflect.DeepEqual(read, stored) {
		t.Errorf("after the refusal: %+v", read)
	}
	write(t, p.Book, policy.Write{Kind: policy.KindRoutingPolicy, ID: "a", Content: route("a", "m", "a"), If: new(int64)}) // Another kind.
}

func conditionalUpdate(t *testing.T, p Place) {
	first := write(t, p.Book, policy.Write{Kind: policy.KindBackend, ID: "a", Content: backend("a", 1)})
	second := write(t, p.Book, policy.Write{Kind: policy.KindBackend, ID: "a", Content: backend("a", 2), If: &first.Revision})
	if second.Revision <= first.Revision {
		t.Errorf("revision %d after %d", second.Revision, first.Revision)
	}
	refused(t, p.Book, policy.Write{Kind: policy.KindBackend, ID: "a", Content: backend("a", 3), If: &first.Revision}, policy.ErrConflict)
	refused(t, p.Book, policy.Write{Kind: policy.KindBackend, ID: "a", If: &first.Revision}, policy.ErrConflict)
	refused(t, p.Book, policy.Write{Kind: policy.KindBackend, ID: "b", Content: backend("b", 1), If: &second.Revision}, policy.ErrConflict)
	third := write(t, p.Book, policy.Write{Kind: policy.KindBackend, ID: "a", Content: backend("a", 3)})
	if read := readOne(t, p.Book, policy.KindBackend, "a"); !reflect.DeepEqual(read, third) || !sameJSON(read.Content, backend("a", 3)) {
		t.Errorf("read: %+v, written last: %+v", read, third)
	}
}

func deleted(t *testing.T, p Place) {
	gone := policy.Write{Kind: policy.KindBackend, ID: "a"}
	refused(t, p.Book, gone, policy.ErrNotFound)
	stored := write(t, p.Book, policy.Write{Kind: policy.KindBackend, ID: "a", Content: backend("a", 1)})
	gone.If = &stored.Revision
	if went := write(t, p.Book, gone); went.ID != "a" || went.Kind != policy.KindBackend || !sameJSON(went.Content, backend("a", 1)) {
		t.Errorf("what went is %+v", went)
	}
	if found, err := p.Book.Read(t.Context(), policy.KindBackend, "a"); !errors.Is(err, policy.ErrNotFound) {
		t.Errorf("after the deletion: %+v, %v", found, err)
	}
	gone.If = nil
	refused(t, p.Book, gone, policy.ErrNotFound)
	again := write(t, p.Book, policy.Write{Kind: policy.KindBackend, ID: "a", Content: backend("a", 1), If: new(int64)})
	if again.Revision <= stored.Revision {
		t.Errorf("created again with revision %d after %d: an old If would hold", again.Revision, stored.Revision)
	}
}

func unchanged(t *testing.T, p Place) {
	stored := write(t, p.Book, policy.Write{Kind: policy.KindBackend, ID: "a", Content: backend("a", 1), Actor: "ops"})
	var spaced bytes.Buffer
	if err := json.Indent(&spaced, backend("a", 1), "", "  "); err != nil {
		t.Fatal(err)
	}
	for _, same := range []string{
		string(backend("a", 1)), spaced.String(),
		`{"max_concurrency":1,"url":"http://127.0.0.1:8000","id":"a","kind":"Backend"}`,
	} {
		for _, condition := range []*int64{nil, &stored.Revision} {
			again := write(t, p.Book, policy.Write{Kind: policy.KindBackend, ID: "a", Content: json.RawMessage(same), If: condition, Actor: "seed"})
			if !reflect.DeepEqual(again, stored) {
				t.Errorf("the same once more gives %+v, want %+v", again, stored)
			}
		}
	}
	if n := len(entries(t, p.Book, policy.KindBackend, "a")); n != 1 {
		t.Errorf("%d entries in the history, want the creation alone", n)
	}
}

func oneWinner(t *testing.T, p Place) {
	books := []policy.Book{p.Book}
	if p.Second != nil {
		_, second := p.Second(t)
		books = append(books, second)
	}
	revision := int64(0)
	for round := range 5 {
		var group sync.WaitGroup
		var won atomic.Int64
		winners := make(chan policy.Stored, 16)
		for i := range 16 {
			group.Go(func() {
				stored, err := books[i%len(books)].Write(t.Context(), policy.Write{
					Kind: policy.KindBackend, ID: "a", Content: backend("a", round*100+i), If: &revision, Actor: fmt.Sprint("writer ", i),
				})
				switch {
				case err == nil:
					won.Add(1)
					winners <- stored
				case !errors.Is(err, policy.ErrConflict):
					t.Errorf("writer %d: %v", i, err)
				}
			})
		}
		group.Wait()
		if won.Load() != 1 {
			t.Fatalf("round %d: %d writers won", round, won.Load())
		}
		winner := <-winners
		if read := readOne(t, p.Book, policy.KindBackend, "a"); !reflect.DeepEqual(read, winner) {
			t.Errorf("round %d: read %+v, the winner wrote %+v", round, read, winner)
		}
		revision = winner.Revision
	}
	if n := len(entries(t, p.Book, policy.KindBackend, "a")); n != 5 {
		t.Errorf("%d entries in the history, want one for each round", n)
	}
}

func allSucceed(t *testing.T, p Place) {
	var group sync.WaitGroup
	for i := range 16 {
		group.Go(func() {
			_, err := p.Book.Write(t.Context(), policy.Write{Kind: policy.KindBackend, ID: "a", Content: backend("a", i+1)})
			if err != nil {
				t.Errorf("writer %d: %v", i, err)
			}
		})
	}
	group.Wait()
	if t.Failed() {
		return
	}
	made := entries(t, p.Book, policy.KindBackend, "a")
	if len(made) != 16 {
		t.Errorf("%d entries in the history, want one for each writer", len(made))
	}
	chained(t, made)
	if read := readOne(t, p.Book, policy.KindBackend, "a"); !sameJSON(read.Content, made[0].After) || read.Revision != made[0].Revision {
		t.Errorf("the document %+v is not what the newest entry says: %+v", read, made[0])
	}
}

func contentSurvives(t *testing.T, p Place) {
	for i, content := range []string{
		`{}`,
		`{"a":{"b":[1,2.50,-0,1e3,9007199254740993,0.1000000000000000055]},"c":null,"d":[true,false,[]]}`,
		`{"text":"<a href=\"x\">&amp; \\ / \/ \u2028 \u0000 é 日本 😀 \ud83d\ude00 %s $1 ' ; --"}`,
		`{"":"","spaces  in ":"\t\n\r"}`,
		`{"long":"` + strings.Repeat("0123456789abcdef", largest/16) + `"}`,
	} {
		id := fmt.Sprintf("content-%d", i)
		stored := write(t, p.Book, policy.Write{Kind: policy.KindPrice, ID: id, Content: json.RawMessage(content)})
		for _, got := range []json.RawMessage{stored.Content, readOne(t, p.Book, policy.KindPrice, id).Content, entries(t, p.Book, policy.KindPrice, id)[0].After} {
			if !sameJSON(got, json.RawMessage(content)) {
				t.Errorf("%.200s became %.200s", content, got)
			}
		}
	}
}

func deadlines(t *testing.T, p Place) {
	p.put(t, policy.KindBackend, "a", backend("a", 1))
	over, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	<-over.Done()
	calls := map[string]func() error{
		"Read": func() error { _, err := p.Book.Read(over, policy.KindBackend, "a"); return err },
	}
	if !p.ReadOnly {
		calls["Write"] = func() error {
			_, err := p.Book.Write(over, policy.Write{Kind: policy.KindBackend, ID: "a", Content: backend("a", 2)})
			return err
		}
		calls["History"] = func() error { _, err := p.Book.History(over, policy.KindBackend, "a", 0, 1); return err }
	}
	for name, call := range calls {
		begun := time.Now()
		if err := call(); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s after its deadline: %v", name, err)
		}
		if took := time.Since(begun); took > bound {
			t.Errorf("%s took %s to see that its deadline is over", name, took)
		}
	}
	if !p.ReadOnly && !sameJSON(readOne(t, p.Book, policy.KindBackend, "a").Content, backend("a", 1)) {
		t.Error("a write after its deadline was made")
	}
}
