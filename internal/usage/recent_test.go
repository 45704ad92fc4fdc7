package usage_test

import (
	"fmt"
	"strconv"
	"sync"
	"testing"

	"github.com/ai-aas/api-router/internal/usage"
)

func ids(records []usage.Record) string {
	got := make([]string, len(records))
	for i, rec := range records {
		got[i] = rec.RequestID
	}
	return fmt.Sprint(got)
}

func TestTheLastRecordsAreKeptNewestFirst(t *testing.T) {
	for _, test := range []struct {
		keep, closed, limit int
		want                string
	}{
		{3, 0, 10, "[]"},
		{3, 2, 10, "[2 1]"},
		{3, 3, 10, "[3 2 1]"},
		{3, 8, 10, "[8 7 6]"},
		{3, 8, 2, "[8 7]"},
		{3, 8, 0, "[]"},
		{3, 8, -1, "[]"},
		{1, 5, 9, "[5]"},
		{0, 5, 9, "[]"},
	} {
		t.Run(fmt.Sprintf("%d of %d, at most %d", test.keep, test.closed, test.limit), func(t *testing.T) {
			r := usage.NewRecorder(quiet()).Keep(test.keep)
			for n := range test.closed {
				r.Open(&usage.Record{RequestID: "open"})
				r.Close(&usage.Record{RequestID: strconv.Itoa(n + 1)})
			}
			if got := ids(r.Recent(test.limit)); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

func TestAHundredRecordsAreKeptUnlessSomebodySaysOtherwise(t *testing.T) {
	r := usage.NewRecorder(quiet())
	for range 250 {
		r.Close(&usage.Record{})
	}
	if n := len(r.Recent(1000)); n != 100 {
		t.Errorf("%d are kept", n)
	}
}

func TestAKeptRecordIsACopy(t *testing.T) {
	r := usage.NewRecorder(quiet())
	rec := &usage.Record{RequestID: "r"}
	r.Close(rec)
	rec.RequestID = "used again"
	r.Recent(1)[0].RequestID = "changed by a reader"
	if got := ids(r.Recent(1)); got != "[r]" {
		t.Errorf("got %s", got)
	}
}

func TestRecordsCanBeReadWhileOthersClose(t *testing.T) {
	r := usage.NewRecorder(quiet()).Keep(10)
	var all sync.WaitGroup
	for w := range 4 {
		all.Go(func() {
			for n := range 200 {
				r.Close(&usage.Record{RequestID: strconv.Itoa(w), Attempts: w, BytesIn: int64(n)})
			}
		})
		all.Go(func() {
			for range 200 {
				for _, rec := range r.Recent(10) {
					if rec.RequestID != strconv.Itoa(rec.Attempts) {
						t.Errorf("a mixed record: %+v", rec)
					}
				}
			}
		})
	}
	all.Wait()
	if n := len(r.Recent(10)); n != 10 {
		t.Errorf("%d are kept", n)
	}
}
