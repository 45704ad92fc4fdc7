package admin

import (
	"database/sql"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/state"
)

// An audit that begins somewhere says so: it would read like "nothing was changed before".
func TestTheAuditSaysBeforeWhenEntriesWereTakenOut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	book, err := state.Open(state.Options{URL: "sqlite:" + path, Logger: slog.New(slog.DiscardHandler)})
	must(t, err)
	t.Cleanup(func() { must(t, book.Close()) })
	h := openHouse(t, book, book, func(o *Options) { o.Identities, o.Audited = book, true })
	h.acme("acme")
	const entries = adminapi.Prefix + "/audit/entries"
	if got := h.send(adminapi.RoleAuditor, http.MethodGet, entries, ""); strings.Contains(string(got.body), `"since"`) {
		t.Errorf("before any was: %s", got.body)
	}
	db, err := sql.Open("sqlite", path+"?_busy_timeout=10000&_txlock=immediate")
	must(t, err)
	defer db.Close()
	since := time.Date(2026, 5, 4, 10, 0, 0, 0, time.UTC)
	_, err = db.Exec("UPDATE counter SET value = $1 WHERE name = 'audit_since'", since.UnixNano())
	must(t, err)
	for _, limit := range []int{0, 1} {
		page, err := h.client(adminapi.RoleViewer).Entries(t.Context(), adminapi.EntryFilter{Limit: limit})
		if err != nil || !page.Since.Equal(since) || len(page.Items) == 0 {
			t.Errorf("%+v, %v", page, err)
		}
	}
}
