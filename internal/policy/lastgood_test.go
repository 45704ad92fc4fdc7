package policy

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestLastGoodOfAnotherVersionIsReadAsFarAsItCanBe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.json")
	must(t, replace(path, sealed([]byte(`[{"backend":{"id":"old","url":"http://h"}},{"backend":{"id":"new","url":"http://h","colour":"red"}},{}]`), time.Now())))
	snapshot, _, err := readLastGood(path)
	if err != nil || names(snapshot.Documents) != "old" || len(snapshot.Problems) != 2 || snapshot.Documents[0].Backend.Engine != "vllm" {
		t.Error(snapshot, err)
	}
	for name, content := range map[string]string{"format": `{"format":9}`, "not JSON": "x", "empty": ""} {
		put(t, path, content)
		if _, _, err := readLastGood(path); err == nil {
			t.Error(name)
		}
	}
}

func TestALastGoodPolicyOfAnOlderVersionGetsTheDefaultsForItsFields(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.json")
	must(t, replace(path, sealed([]byte(`[{"policy":{"id":"old","model":"m","backends":[{"id":"b","weight":1,"tier":0}]}},`+
		`{"policy":{"id":"new","model":"n","backends":[{"id":"b","weight":1,"tier":0}],"clamps":{"n":1},"fields":{"chat_template":"allow","remote_media":"perhaps"}}}]`), time.Now())))
	snapshot, _, err := readLastGood(path)
	if err != nil || names(snapshot.Documents) != "old" || len(snapshot.Problems) != 1 || !strings.Contains(snapshot.Problems[0].Message, "fields.remote_media") {
		t.Fatal(snapshot, err)
	}
	if got, want := *snapshot.Documents[0].Policy, NewRoutingPolicy("old", "m"); got.Clamps != (Clamps{}) || got.Fields != want.Fields {
		t.Errorf("%+v", got)
	}
}

func TestStoreCarriesOnWhenTheLastGoodFileCannotBeWritten(t *testing.T) {
	parent := filepath.Join(t.TempDir(), "file")
	put(t, parent, "")
	var log logbook
	store, _ := running(t, Options{
		Logger: slog.New(slog.NewTextHandler(&log, nil)),
		Source: StaticSource("x", backendDocument("b", "http://h")), LastGood: filepath.Join(parent, "policy.json"),
	})
	ready(t, store)
	eventually(t, "the failure is told", func() bool { return log.count("cannot be saved") == 1 })
	if serving(store) != "b" {
		t.Error(serving(store), log.text.String())
	}
}

func TestStorePublishesBeforeItWritesToADisk(t *testing.T) {
	lastGood := filepath.Join(t.TempDir(), "policy.json")
	var before error
	store, stop := running(t, Options{
		Source: StaticSource("x", backendDocument("b", "http://h")), LastGood: lastGood,
		AfterPublish: func(*Table) { _, before = os.Stat(lastGood) },
	})
	ready(t, store)
	eventually(t, "the copy is written", func() bool { _, err := os.Stat(lastGood); return err == nil })
	stop()
	if _, after := os.Stat(lastGood); !errors.Is(before, os.ErrNotExist) || after != nil {
		t.Error("the copy was written before the table was published, or never:", before, after)
	}
}

func TestTheLastGoodFileIsWrittenAboutOnceASecondAndTheNewestLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := newHandSource()
		store := NewStore(Options{Logger: slog.New(slog.DiscardHandler), Source: source, LastGood: "somewhere"})
		var written [][]byte
		store.saver.write = func(content []byte) error {
			time.Sleep(300 * time.Millisecond) // A slow disk.
			written = append(written, content)
			return nil
		}
		store.recalled = true
		stop := begin(t, store)
		for n := range 1000 {
			source.next <- numbered(n)
			time.Sleep(10 * time.Millisecond)
		}
		source.next <- numbered(1000)
		time.Sleep(shortestRest)
		synctest.Wait()
		if number(store.Table()) != 1000 {
			t.Error("publishing waits for the disk:", number(store.Table()))
		}
		stop()
		if len(written) < 5 || len(written) > 12 {
			t.Error("written so many times:", len(written))
		}
		if newest := written[len(written)-1]; !bytes.Contains(newest, []byte(`"max_concurrency":1000,`)) {
			t.Errorf("%s", newest)
		}
	})
}

func TestADiskThatHangsKeepsNeitherATableNorTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := newHandSource()
		var log logbook
		store := NewStore(Options{Logger: slog.New(slog.NewTextHandler(&log, nil)), Source: source, LastGood: "somewhere"})
		hang := make(chan struct{})
		store.saver.write = func([]byte) error { <-hang; return nil }
		store.recalled = true
		stop := begin(t, store)
		for n := range 5 {
			source.next <- numbered(n)
			time.Sleep(time.Second)
			if number(store.Table()) != n {
				t.Error("publishing waits for the disk:", n)
			}
		}
		began := time.Now()
		stop()
		if took := time.Since(began); took != saveLast || log.count("the disk does not answer") != 1 {
			t.Error("the end took", took)
		}
		close(hang)
	})
}

func TestALastGoodFileThatCannotBeWrittenIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log logbook
		source := newHandSource()
		store := NewStore(Options{Logger: slog.New(slog.NewTextHandler(&log, nil)), Source: source, LastGood: "somewhere"})
		tried, holds := 0, ""
		store.saver.write = func(content []byte) error {
			if tried++; tried < 6 {
				return errors.New("no space left on device")
			}
			holds = string(content)
			return nil
		}
		store.recalled = true
		stop := begin(t, store)
		source.next <- numbered(1)
		time.Sleep(1500 * time.Millisecond)
		source.next <- numbered(2)
		time.Sleep(2 * time.Minute)
		stop()
		if tried != 6 || !strings.Contains(holds, `"max_concurrency":2,`) || log.count("cannot be saved") != 1 {
			t.Error(tried, holds, log.text.String())
		}
	})
}

func TestPricesAndMarksOutliveARestartAndMarksThatHaveEndedDoNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		b := NewBackend("b", "http://h")
		documents := []Document{
			{Backend: &b, File: "backends/b", Revision: 7},
			{Price: &Price{ID: "price", Model: "m", ValidFrom: now, USDPerMillion: Rates{Input: 100_000}}},
			{Mark: &Mark{ID: MarkID("b", "", ""), Backend: "b", State: Disabled, Reason: "smoke", Actor: "ops", Since: now}},
			{Mark: &Mark{ID: MarkID("", "m", ""), Model: "m", State: Draining, Until: now.Add(time.Hour)}},
		}
		path := kept(t, Snapshot{Documents: documents})
		snapshot, _, err := readLastGood(path)
		if err != nil || len(snapshot.Problems) > 0 || len(snapshot.Documents) != len(documents) {
			t.Fatal(snapshot, err)
		}
		if diff := cmp.Diff(Compile(Snapshot{Documents: documents}, nil).documents, snapshot.Documents, cmp.AllowUnexported(Document{}, SecretRef{})); diff != "" {
			t.Error(diff)
		}
		for _, test := range []struct {
			after time.Duration
			marks int
		}{{0, 2}, {time.Hour, 1}} {
			time.Sleep(test.after)
			store, stop := running(t, Options{Source: refusing{}, LastGood: path})
			ready(t, store)
			if marks := store.Table().Marks(); len(marks) != test.marks {
				t.Error(test, marks)
			}
			stop()
		}
	})
}

func TestTheFileOfTheFirstVersionIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.json")
	put(t, path, `{"format":1,"saved":"2026-11-23T09:00:00Z","checksum":"sha256:f1f9c5a79fd19a345509ef26ab57d16de2531c8b00a56527c21f625b377c10e8","documents":[`+
		`{"backend":{"id":"a","url":"http://a","engine":"vllm","max_concurrency":0,"timeouts":{"connect":"2s","first_byte":"2m0s","between_bytes":"1m0s","total":"30m0s"}},"file":"policies/a.yaml"},`+
		`{"policy":{"id":"p","organization":"*","model":"m","backends":[{"id":"a","weight":100,"tier":0}],"strategy":"adaptive","retry":{"attempts":2,"backoff":"100ms"},`+
		`"failover_threshold":3,"stream":{"on_break":"error","heartbeat":"0s"},"fields":{"chat_template":"refuse","chat_template_kwargs":"allow","remote_media":"refuse"}},"file":"policies/a.yaml"}]}`)
	snapshot, saved, err := readLastGood(path)
	if err != nil || names(snapshot.Documents) != "a p" || len(snapshot.Problems) > 0 || saved.Year() != 2026 {
		t.Fatal(snapshot, err)
	}
}

// keeps begins a saver of its own at path, as another process has, and returns how to hand documents to it and how to end it.
func keeps(t *testing.T, path string, log *logbook) (offer func(id string), end func()) {
	t.Helper()
	s := newSaver(path, slog.New(slog.NewTextHandler(log, nil)))
	end = s.start()
	return func(id string) { s.offer([]Document{backendDocument(id, "http://h")}) }, end
}

// held are the documents that a start would serve by.
func held(t *testing.T, path string) string {
	t.Helper()
	snapshot, _, err := readLastGood(path)
	must(t, err)
	return names(snapshot.Documents)
}

func TestOfTwoProcessesWithOneLastGoodFileTheNewerDocumentsStay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.json")
	var log logbook
	synctest.Test(t, func(t *testing.T) {
		first, endFirst := keeps(t, path, &log)
		second, endSecond := keeps(t, path, &log)
		first("one")
		time.Sleep(3 * time.Second)
		second("two")
		time.Sleep(3 * time.Second)
		if got := held(t, path); got != "two" {
			t.Errorf("it holds %q, want what came later", got)
		}
		first("three")
		time.Sleep(3 * time.Second)
		if got := held(t, path); got != "three" {
			t.Errorf("it holds %q, want what came later", got)
		}
		endFirst()
		endSecond()
	})
	if log.text.Len() > 0 {
		t.Error(log.text.String())
	}
}

// The disk of one took so long that another, which heard later, was faster.
func TestDocumentsOfBeforeDoNotTakeThePlaceOfNewerOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "policy.json")
		var log logbook
		s := newSaver(path, slog.New(slog.NewTextHandler(&log, nil)))
		write := s.write
		var slow atomic.Bool
		slow.Store(true)
		s.write = func(content []byte) error {
			if slow.Load() {
				return errors.New("no space left on device")
			}
			return write(content)
		}
		end := s.start()
		s.offer([]Document{backendDocument("before", "http://h")})
		time.Sleep(2 * time.Second)
		other, endOther := keeps(t, path, &log)
		other("newer")
		endOther()
		slow.Store(false)
		time.Sleep(2 * time.Minute)
		if got := held(t, path); got != "newer" || log.count("as another process has written them") != 1 {
			t.Errorf("it holds %q\n%s", got, log.text.String())
		}
		s.offer([]Document{backendDocument("newest", "http://other")})
		end()
		if got := held(t, path); got != "newest" {
			t.Errorf("it holds %q", got)
		}
	})
}

func TestALastGoodFileOfTheFutureIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.json")
	put(t, path, string(sealed([]byte(`[{"backend":{"id":"wrong","url":"http://h"}}]`), time.Now().Add(24*time.Hour))))
	var log logbook
	offer, end := keeps(t, path, &log)
	offer("right")
	end()
	if got := held(t, path); got != "right" {
		t.Errorf("it holds %q", got)
	}
}

func TestWhatAKilledProcessLeftOfALastGoodFileIsTakenAway(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "policy.json")
	left := filepath.Join(dir, ".policy.json.123")
	put(t, left, "half of it")
	must(t, os.Chtimes(left, time.Time{}, time.Now().Add(-time.Hour)))
	store, stop := running(t, Options{Source: StaticSource("x", backendDocument("b", "http://h")), LastGood: path})
	ready(t, store)
	stop()
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) || held(t, path) != "b" {
		t.Error("it is there still", err)
	}
}
