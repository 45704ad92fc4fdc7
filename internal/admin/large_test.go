package admin

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/policy"
	"github.com/ai-aas/api-router/internal/state"
)

// largest is about as much as a document can hold, in bytes.
const largest = 250_000

// enlarge gives the backend "large" a past of so many changes, each of half a megabyte, and tells their reasons, the newest first. It puts them into
// the tables at once: to write so much change by change takes longer than a busy machine has.
func enlarge(t *testing.T, path string, versions int) (reasons []string) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(60000)")
	must(t, err)
	defer func() { must(t, db.Close()) }()
	var last, sequence int
	must(t, db.QueryRow("SELECT (SELECT value FROM counter WHERE name = 'revision'), (SELECT value FROM counter WHERE name = 'audit')").Scan(&last, &sequence))
	content := fmt.Sprintf(`'{"kind":"Backend","id":"large","pad":"' || printf('%%.*c', %d, 'x') || '"}'`, largest)
	rows := fmt.Sprintf("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) ", versions)
	for _, statement := range []string{
		rows + `INSERT INTO change (revision, action, kind, id, before_content, after_content, actor, role, reason, request_id, made_at)
			SELECT i + ?1, 'update', 'Backend', 'large', ` + content + ", " + content + ", 'olga', 'admin', 'version ' || (i + ?1), 'r', i + ?3 FROM n WHERE ?2 >= 0",
		rows + `INSERT INTO audit (sequence, made_at, actor, role, action, kind, id, organization, before_content, after_content, reason, request_id)
			SELECT i + ?2, i + ?3, 'olga', 'admin', 'update', 'Backend', 'large', '', ` + content + ", " + content + ", 'version ' || (i + ?1), 'r' FROM n",
		"UPDATE counter SET value = value + " + strconv.Itoa(versions) + " WHERE name IN ('revision', 'audit') AND ?1 + ?2 + ?3 > 0",
	} {
		_, err := db.Exec(statement, last, sequence, time.Now().UnixNano())
		must(t, err)
	}
	for version := versions; version > 0; version-- {
		reasons = append(reasons, fmt.Sprint("version ", last+version))
	}
	return reasons
}

// bookAt is a state book in a file that the test can reach, too.
func bookAt(t *testing.T) (book *state.Book, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "state.db")
	book, err := state.Open(state.Options{URL: "sqlite:" + path, Logger: slog.New(slog.DiscardHandler)})
	must(t, err)
	t.Cleanup(func() { must(t, book.Close()) })
	return book, path
}

// pageOf reads a page of a path, and gives the reasons in it, where the next begins, and what all of that took of memory in bytes.
func (h *house) pageOf(path, before string) (reasons []string, next string, memory uint64) {
	h.t.Helper()
	query := url.Values{"limit": {strconv.Itoa(maxLimit)}}
	if before != "" {
		query.Set("before", before)
	}
	request, err := http.NewRequestWithContext(h.t.Context(), http.MethodGet, h.url+adminapi.Prefix+path+"?"+query.Encode(), nil)
	must(h.t, err)
	request.Header.Set("Authorization", "Bearer "+secrets[adminapi.RoleAuditor])
	var begun, ended runtime.MemStats
	runtime.ReadMemStats(&begun)
	response, err := http.DefaultTransport.RoundTrip(request)
	must(h.t, err)
	body, err := io.ReadAll(response.Body)
	must(h.t, err)
	must(h.t, response.Body.Close())
	runtime.ReadMemStats(&ended)
	var page struct {
		Items []struct{ Reason string }
		Next  string
	}
	must(h.t, json.Unmarshal(body, &page))
	if most := policy.HistoryBytes + 3*largest; response.StatusCode != http.StatusOK || len(body) > most {
		h.t.Fatalf("%s: %d, %d bytes, want at most %d", path, response.StatusCode, len(body), most)
	}
	for _, item := range page.Items {
		reasons = append(reasons, item.Reason)
	}
	return reasons, page.Next, ended.TotalAlloc - begun.TotalAlloc
}

// holdsWhole turns all pages of a path, and compares what they tell.
func (h *house) holdsWhole(path string, want []string) {
	h.t.Helper()
	got, next, _ := h.pageOf(path, "")
	pages := 1
	for ; next != ""; pages++ {
		var more []string
		more, next, _ = h.pageOf(path, next)
		got = append(got, more...)
	}
	if !slices.Equal(got, want) || pages < 2 {
		h.t.Errorf("%s tells in %d pages of %q, want %q", path, pages, got, want)
	}
}

func TestALargePastIsToldInPagesOfASizeAndTakesNoMoreMemory(t *testing.T) {
	book, path := bookAt(t)
	h := openHouse(t, book, book, func(o *Options) { o.Identities, o.Audited = book, true })
	t.Cleanup(http.DefaultTransport.(*http.Transport).CloseIdleConnections)
	c := h.client(adminapi.RoleAdmin)
	first, err := c.Put(t.Context(), adminapi.Backends, "large", []byte(`{"url":"http://127.0.0.1:9"}`), adminapi.If{Reason: "small"})
	must(t, err)
	_, err = c.Put(t.Context(), adminapi.Backends, "large", []byte(`{"url":"http://127.0.0.1:8"}`), adminapi.If{Reason: "small, too"})
	must(t, err)
	past := append(enlarge(t, path, 10), "small, too", "small")
	short := map[string]uint64{}
	for _, of := range []string{"/audit", "/backends/large/history", "/audit/entries"} {
		_, _, short[of] = h.pageOf(of, "")
	}
	past = append(enlarge(t, path, 20), past...)
	for of, before := range short {
		if _, _, took := h.pageOf(of, ""); took > 2*before {
			t.Errorf("%s takes %d MiB for a page of a long past, and %d MiB of a short one", of, took>>20, before>>20)
		}
		h.holdsWhole(of, past)
	}
	back, err := c.Rollback(t.Context(), adminapi.Backends, "large", adminapi.Rollback{Revision: first.Revision})
	if err != nil || back.Outcome != adminapi.Changed || !strings.Contains(string(back.Document.Content), ":9\"") {
		t.Errorf("a rollback behind what is large: %v, %s", err, back.Outcome)
	}
	for _, revision := range []int64{first.Revision + 1000, math.MaxInt64} {
		if _, err := c.Rollback(t.Context(), adminapi.Backends, "large", adminapi.Rollback{Revision: revision}); refusal(t, err).Code != "not_found" {
			t.Errorf("revision %d: %v", revision, err)
		}
	}
}

func TestALargePastOutsideOfTheStateBookIsToldInPagesOfASize(t *testing.T) {
	documents, path := bookAt(t)
	identities, _ := bookAt(t)
	h := openHouse(t, documents, documents, func(o *Options) { o.Identities = identities })
	t.Cleanup(http.DefaultTransport.(*http.Transport).CloseIdleConnections)
	h.settle()
	h.holdsWhole("/audit/entries", enlarge(t, path, 12))
}

func TestAHistoryGoesOnWhereAPageEnded(t *testing.T) {
	h := newHouse(t)
	h.furnish()
	c := h.client(adminapi.RoleViewer)
	all, err := c.Audit(t.Context(), adminapi.HistoryPage{})
	must(t, err)
	if len(all.Items) < 3 || all.Next != "" {
		t.Fatalf("%d changes, next %q", len(all.Items), all.Next)
	}
	for limit := 1; limit <= len(all.Items); limit++ {
		var revisions, want []int64
		for page := (adminapi.HistoryPage{Limit: limit}); ; {
			found, err := c.Audit(t.Context(), page)
			must(t, err)
			for _, change := range found.Items {
				revisions = append(revisions, change.Revision)
			}
			if len(found.Items) == 0 || found.Next == "" {
				break
			}
			page.Before = found.Next
		}
		for _, change := range all.Items {
			want = append(want, change.Revision)
		}
		if !slices.Equal(revisions, want) {
			t.Errorf("in pages of %d: %v, want %v", limit, revisions, want)
		}
	}
	one, err := c.History(t.Context(), adminapi.Backends, "a", adminapi.HistoryPage{Limit: 1})
	if err != nil || len(one.Items) != 1 || one.Next != "" {
		t.Errorf("the only change of a backend: %+v, %v", one, err)
	}
	for _, before := range []string{"0", "-1", "x", "1e3", "007", "99999999999999999999"} {
		for _, path := range []string{"/audit", "/backends/a/history", "/marks/backend.a/history"} {
			got := h.send(adminapi.RoleViewer, http.MethodGet, adminapi.Prefix+path+"?before="+before, "")
			if got.StatusCode != http.StatusBadRequest || !strings.Contains(string(got.body), "the next of the page before") {
				t.Errorf("%s?before=%s: %d %s", path, before, got.StatusCode, got.body)
			}
		}
	}
}
