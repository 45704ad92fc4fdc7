package state

import (
	"context"
	"database/sql"
	"fmt"
	"io/fs"
	"log/slog"
	"testing"

	"github.com/pressly/goose/v3"

	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/policy"
)

// A book of the program's first version has documents and their history, and no identities.
func TestABookOfTheFirstVersionKeepsItsDocumentsAndTheirHistory(t *testing.T) {
	onBoth(t, func(t *testing.T, place Options) {
		older(t, place, 1,
			`UPDATE counter SET value = 7`,
			`INSERT INTO document VALUES ('Backend', 'a', 7, '{"url":"http://127.0.0.1:1"}')`,
			`INSERT INTO change VALUES (7, 'create', 'Backend', 'a', NULL, '{"url":"http://127.0.0.1:1"}', 'olga', '', 1)`)
		book := openedAt(t, place)
		found, err := book.Read(waits(t), policy.KindBackend, "a")
		if err != nil || len(found) != 1 || found[0].Revision != 7 || string(found[0].Content) != `{"url":"http://127.0.0.1:1"}` {
			t.Errorf("%+v, %v", found, err)
		}
		writeVersion(t, book, "b", 1)
		history, err := book.History(waits(t), "", "", 0, 10)
		if err != nil || len(history) != 2 || history[0].Revision != 8 || history[1].Revision != 7 || history[1].Actor != "olga" {
			t.Errorf("%+v, %v", history, err)
		}
		if _, err := book.PutOrganization(waits(t), auth.Organization{ID: "acme"}, nil, auth.By{Actor: "olga"}); err != nil {
			t.Error(err)
		}
	})
}

// Before the audit was of everything, it had identities alone, and their clock; documents were in their history.
func TestABookFromBeforeTheOneAuditLosesNothing(t *testing.T) {
	onBoth(t, func(t *testing.T, place Options) {
		const change, entry = `INSERT INTO change VALUES `, `INSERT INTO audit VALUES `
		older(t, place, 2,
			`UPDATE counter SET value = 9 WHERE name = 'revision'`, `UPDATE counter SET value = 2 WHERE name = 'identity'`,
			change+`(4, 'create', 'Backend', 'a', NULL, '{"organization":"acme"}', 'olga', 'new', 10)`,
			change+`(6, 'create', 'RoutingPolicy', 'p', NULL, '{"organization":"acme"}', 'olga', '', 20)`,
			change+`(7, 'update', 'RoutingPolicy', 'p', '{"organization":"acme"}', '{"organization":"*"}', 'olga', '', 30)`,
			change+`(8, 'create', 'RoutingPolicy', 'broken', NULL, 'no JSON', '', '', 40)`,
			change+`(9, 'delete', 'Mark', 'm', '{"organization":"other"}', NULL, 'api-router', 'expired', 50)`,
			entry+`(1, 15, 'ada', 'admin', 'create', 'organization', 'acme', 'acme', NULL, '{}', '', 'r-1')`,
			entry+`(2, 35, 'ada', 'admin', 'update', 'organization', 'acme', 'acme', '{}', '{"name":"x"}', 'why', 'r-2')`)
		book := openedAt(t, place)
		writeVersion(t, book, "b", 1)
		_, err := book.PutOrganization(waits(t), auth.Organization{ID: "other"}, nil, tester)
		must(t, err)
		entries, err := book.Audit(waits(t), auth.AuditFilter{})
		must(t, err)
		var told []string
		for _, e := range entries {
			told = append(told, fmt.Sprint(e.Sequence, " ", e.Action, " ", e.Kind, " ", e.ID, " of ", e.Organization, " by ", e.Actor))
		}
		want := []string{
			"1000000004 create organization other of other by alex", "1000000003 create Backend b of  by test",
			"2 update organization acme of acme by ada", "1 create organization acme of acme by ada",
			"-1 delete Mark m of other by api-router", "-2 create RoutingPolicy broken of  by ", "-3 update RoutingPolicy p of  by olga",
			"-4 create RoutingPolicy p of acme by olga", "-6 create Backend a of  by olga",
		}
		if fmt.Sprint(told) != fmt.Sprint(want) {
			t.Errorf("the audit tells\n%q\nwant\n%q", told, want)
		}
		if last := entries[len(entries)-1]; last.Before != nil || string(last.After) != `{"organization":"acme"}` || last.Reason != "new" || last.At.UnixNano() != 10 {
			t.Errorf("%+v", last)
		}
		page, err := book.Audit(waits(t), auth.AuditFilter{Before: -2, Organization: "acme"})
		if err != nil || len(page) != 1 || page[0].Sequence != -4 {
			t.Errorf("below -2 there is %+v, %v", page, err)
		}
	})
}

// older makes a book as an earlier version left it.
func older(t *testing.T, place Options, version int64, statements ...string) {
	t.Helper()
	early := func(ctx context.Context, db *sql.DB, s schema) error {
		scripts, err := fs.Sub(migrations, s.folder)
		must(t, err)
		provider, err := goose.NewProvider(s.dialect, db, scripts, append(s.options,
			goose.WithTableName(versions), goose.WithDisableGlobalRegistry(true), goose.WithSlog(slog.New(slog.DiscardHandler)))...)
		must(t, err)
		_, err = provider.UpTo(ctx, version)
		return err
	}
	e, err := engineOf(place)
	must(t, err)
	db, err := e.open(waits(t), false, early)
	must(t, err)
	must(t, db.write(waits(t), func(tx tx) error {
		for _, statement := range statements {
			if err := tx.exec(waits(t), statement); err != nil {
				return err
			}
		}
		return nil
	}))
	must(t, db.close())
}
