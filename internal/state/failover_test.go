package state

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/policy"
	"github.com/ai-aas/api-router/test/postgres"
	"github.com/ai-aas/api-router/test/relay"
)

// insist makes a change as often as it takes, and gives how long that was.
func insist(t *testing.T, change func() error) time.Duration {
	t.Helper()
	begun := time.Now()
	for {
		err := change()
		if err == nil {
			return time.Since(begun)
		}
		if time.Since(begun) > hang {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// pair is a primary, a standby that has everything of it, and the link between them, which can be cut.
type pair struct {
	primary, standby *postgres.Server
	link             *relay.Relay
	database         string
}

// paired starts both, over a book with the organizations acme and other.
func paired(t *testing.T, password policy.SecretRef) *pair {
	t.Helper()
	p := &pair{primary: postgres.New(t)}
	p.database = p.primary.Database(t)
	withKeys(t, Options{URL: p.primary.URL(p.database, ""), Password: password})
	p.link = relay.New(t, p.primary.Address)
	p.standby = p.primary.Standby(t, p.link.Address())
	return p
}

// behind cuts the link once the standby has everything: what is written from now on, it does not have.
func (p *pair) behind(t *testing.T) {
	t.Helper()
	p.primary.CaughtUp(t)
	p.link.Refuse(true)
	p.link.Drop(true)
}

// options are those of a book at either of the two.
func (p *pair) options(password policy.SecretRef, parameters string) Options {
	return Options{URL: postgres.Both(p.primary, p.standby, p.database) + parameters, Password: password}
}

func TestABookGoesOnAtTheStandbyThatWasPromoted(t *testing.T) {
	password := reference(t)
	for name, parameters := range map[string]string{"asking for the primary": "&target_session_attrs=read-write", "asking for nothing": ""} {
		t.Run(name, func(t *testing.T) {
			p := paired(t, password)
			book := openedAt(t, p.options(password, parameters))
			follower := following(t, book)
			writeVersion(t, book, "a", 1)
			documents := watched(t, book)
			p.behind(t)
			lost := made(t, book, aKey("acme", 1)) // What the standby has missed.
			for i := range 20 {
				writeVersion(t, book, "lost", 1+i)
			}
			follower.agrees(t, book)
			p.primary.Kill()
			if told := failure(t, book, ""); told == "" {
				t.Error("it does not say why")
			}
			p.standby.Promote(t)
			took := insist(t, func() error {
				_, err := book.Write(waits(t), policy.Write{Kind: policy.KindBackend, ID: "b", Content: content("b", 1), Actor: "test"})
				return err
			})
			t.Logf("it took a change again %s after the promotion", took.Round(time.Millisecond))
			follower.agrees(t, book) // Without the lost key, though the counters went back.
			if _, err := book.Key(waits(t), "acme", lost.ID); err == nil {
				t.Error("the standby was not behind")
			}
			documents.are(t, "a", "b")
			// And back beyond where the counters were, with another key.
			for i := range 3 {
				made(t, book, aKey("acme", 2+i))
			}
			follower.agrees(t, book)
		})
	}
}

// A machine that is gone answers nothing, not even that it does not listen.
func TestABookGoesOnThoughTheOldPrimaryIsSilent(t *testing.T) {
	password := reference(t)
	p := paired(t, password)
	silent := relay.New(t, p.primary.Address)
	options := p.options(password, "&target_session_attrs=read-write")
	options.URL = strings.Replace(options.URL, p.primary.Address, silent.Address(), 1)
	book := openedAt(t, options)
	follower := following(t, book)
	k := made(t, book, aKey("acme", 1))
	follower.agrees(t, book)
	p.primary.CaughtUp(t)
	silent.Stall()
	p.standby.Promote(t)
	took := insist(t, func() error { _, err := book.Key(waits(t), "acme", k.ID); return err })
	t.Logf("it was read again %s after its primary fell silent", took.Round(time.Millisecond))
	begun := time.Now()
	revoke(t, book, k)
	follower.agrees(t, book)
	t.Logf("a revocation was seen after %s", time.Since(begun).Round(time.Millisecond))
}

// watched keeps the ids of the documents that a book publishes last.
func watched(t *testing.T, book *Book) *published {
	t.Helper()
	w := &published{now: make(chan string, 1)}
	go func() {
		for book.life.Err() == nil {
			_ = book.Watch(t.Context(), func(s policy.Snapshot) {
				var ids []string
				for _, d := range s.Documents {
					ids = append(ids, d.ID())
				}
				select {
				case <-w.now:
				default:
				}
				w.now <- strings.Join(ids, " ")
			})
			if t.Context().Err() != nil {
				return
			}
			wait(t.Context(), 20*time.Millisecond)
		}
	}()
	return w
}

type published struct{ now chan string }

// are waits until these documents are published, and no others.
func (w *published) are(t *testing.T, ids ...string) {
	t.Helper()
	last := ""
	for deadline := time.After(hang); last != strings.Join(ids, " "); {
		select {
		case last = <-w.now:
		case <-deadline:
			t.Fatalf("published is %q, want %q", last, ids)
		}
	}
}

func TestAStandbyIsNeverTakenForTheBook(t *testing.T) {
	password := reference(t)
	p := paired(t, password)
	alone := openedAt(t, Options{URL: p.standby.URL(p.database, ""), Password: password})
	t.Log(failure(t, alone, "the server takes no changes"))
	asking := openedAt(t, Options{URL: p.standby.URL(p.database, "") + "&target_session_attrs=read-write", Password: password})
	failure(t, asking, "the server takes no changes")
	// The standby first: the primary is found behind it.
	behind := openedAt(t, Options{URL: postgres.Both(p.standby, p.primary, p.database), Password: password})
	writeVersion(t, behind, "a", 1)
	p.primary.Kill()
	failure(t, behind, "the server takes no changes")
	p.standby.Promote(t)
	for _, book := range []*Book{alone, asking, behind} {
		insist(t, func() error { _, err := book.Read(waits(t), policy.KindBackend, ""); return err })
	}
}

// A primary that was dead comes back without knowing that another has taken its place.
func TestAPrimaryOfBeforeAFailoverIsNotTakenForTheBook(t *testing.T) {
	password := reference(t)
	p := paired(t, password)
	book := openedAt(t, p.options(password, ""))
	follower := following(t, book)
	p.behind(t)
	old := made(t, book, aKey("acme", 1))
	p.primary.Kill()
	p.standby.Promote(t)
	var current auth.Key
	insist(t, func() (err error) {
		current, err = book.CreateKey(waits(t), aKey("acme", 2), auth.By{Actor: "test"})
		return err
	})
	must(t, p.primary.Start())
	for range 3 { // Each time, the first host of the URL would be there, and takes changes.
		p.standby.Exec(t, "postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'api-router'")
		insist(t, func() error { _, err := book.Key(waits(t), "acme", current.ID); return err })
		follower.agrees(t, book)
	}
	if _, err := book.Key(waits(t), "acme", old.ID); err == nil {
		t.Error("the old primary was asked")
	}
	p.standby.Kill()
	told := failure(t, book, "of before a failover")
	if !strings.Contains(told, "stop it") {
		t.Error(told)
	}
	t.Log(told)
}

// Behind one name, connections of one book may come to different servers: none is served from two of them.
func TestOneBookIsNeverOfTwoServers(t *testing.T) {
	password := reference(t)
	one, other := postgres.Shared(t), postgres.New(t)
	const database = "of_one_name"
	for _, server := range []*postgres.Server{one, other} {
		server.Exec(t, "postgres", "CREATE DATABASE "+database)
	}
	turn := relay.New(t, one.Address)
	first := withKeys(t, Options{URL: one.URL(database, ""), Password: password})
	withKeys(t, Options{URL: other.URL(database, ""), Password: password})
	book := openedAt(t, Options{URL: one.URL(database, turn.Address()), Password: password})
	follower := following(t, book)
	k := made(t, first, aKey("acme", 1))
	follower.agrees(t, first)
	turn.Turn(other.Address) // The connections that are there stay at the first.
	insist(t, func() error {
		var waiting []chan error
		for range 8 { // More than there are connections.
			answer := make(chan error, 1)
			waiting = append(waiting, answer)
			go func() { _, err := book.Key(waits(t), "acme", k.ID); answer <- err }()
		}
		gone := 0
		for _, answer := range waiting {
			if err := <-answer; err != nil {
				gone++
			}
		}
		if gone < len(waiting) {
			return fmt.Errorf("%d of %d see the key of the other server", len(waiting)-gone, len(waiting))
		}
		return nil
	})
	follower.agrees(t, book)
}
