package state

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/auth"
)

func TestAnOrganizationIsDeletedWhenNothingIsInIt(t *testing.T) {
	onBoth(t, func(t *testing.T, place Options) {
		books := []*Book{withKeys(t, place), openedAt(t, place)}
		follows := []*known{following(t, books[0]), following(t, books[1])}
		book := books[0]
		refused := func(what, because string, condition *int64) {
			t.Helper()
			err := book.DeleteOrganization(waits(t), "acme", condition, tester)
			if _, ok := errors.AsType[auth.Hindrance](err); !ok || !errors.Is(err, auth.ErrConflict) || !strings.Contains(err.Error(), because) {
				t.Errorf("%s: %v", what, err)
			}
		}
		k := made(t, book, aKey("acme", 1))
		refused("one with a key", "it has keys", nil)
		revoke(t, book, k)
		refused("one whose key is revoked", "it has keys", nil)
		must(t, book.DeleteKey(waits(t), "acme", k.ID, nil, tester))
		refused("one with a project", "it has projects", nil)
		must(t, book.DeleteProject(waits(t), "acme", "search", nil, tester))
		acme, err := book.Organization(waits(t), "acme")
		must(t, err)
		off := acme
		off.Disabled = true
		off, err = book.PutOrganization(waits(t), off, &acme.Revision, tester)
		must(t, err)
		refused("one that is disabled", "enable it first", &off.Revision)
		if err := book.DeleteOrganization(waits(t), "acme", &acme.Revision, tester); err != auth.ErrConflict { // A Hindrance is one, too.
			t.Errorf("one that has changed: %v", err)
		}
		if err := book.DeleteOrganization(waits(t), "nobody", nil, tester); !errors.Is(err, auth.ErrNotFound) {
			t.Errorf("nobody: %v", err)
		}
		off.Disabled = false // Who follows may see this and the end of it at once.
		on, err := book.PutOrganization(waits(t), off, &off.Revision, tester)
		must(t, err)
		must(t, book.DeleteOrganization(waits(t), "acme", &on.Revision, tester))
		for _, k := range follows {
			k.agrees(t, book)
		}
		if _, err := book.Organization(waits(t), "acme"); !errors.Is(err, auth.ErrNotFound) {
			t.Errorf("it is there: %v", err)
		}
		entries, err := book.Audit(waits(t), auth.AuditFilter{Organization: "acme", Limit: 1})
		must(t, err)
		if e := entries[0]; e.Action != "delete" || e.Kind != "organization" || !strings.Contains(string(e.Before), "ACME") || e.After != nil {
			t.Errorf("%+v", e)
		}
		_, err = book.PutOrganization(waits(t), auth.Organization{ID: "acme"}, zero(), tester)
		must(t, err)
		for _, k := range follows {
			k.agrees(t, book)
		}
	})
}

func TestOrganizationsAndProjectsComeInPages(t *testing.T) {
	onBoth(t, func(t *testing.T, place Options) {
		book := withKeys(t, place)
		for _, id := range []string{"a", "B", "z_", "z-"} {
			_, err := book.PutOrganization(waits(t), auth.Organization{ID: id}, zero(), tester)
			must(t, err)
			_, err = book.PutProject(waits(t), auth.Project{Organization: "acme", ID: id}, zero(), tester)
			must(t, err)
		}
		pages := func(ask func(after string) []string) (all []string) {
			t.Helper()
			for after := ""; ; {
				some := ask(after)
				if all = append(all, some...); len(some) < 2 {
					return all
				}
				after = some[1]
			}
		}
		organizations := pages(func(after string) (ids []string) {
			some, err := book.Organizations(waits(t), after, 2)
			must(t, err)
			for _, o := range some {
				ids = append(ids, o.ID)
			}
			return ids
		})
		projects := pages(func(after string) (ids []string) {
			some, err := book.Projects(waits(t), "acme", after, 2)
			must(t, err)
			for _, p := range some {
				ids = append(ids, p.ID)
			}
			return ids
		})
		if want := []string{"B", "a", "acme", "other", "z-", "z_"}; !slices.Equal(organizations, want) {
			t.Errorf("organizations %v, want %v", organizations, want)
		}
		if want := []string{"B", "a", "search", "z-", "z_"}; !slices.Equal(projects, want) {
			t.Errorf("projects %v, want %v", projects, want)
		}
		if p, err := book.Project(waits(t), "acme", "search"); err != nil || p.Name != "Search" {
			t.Errorf("%+v, %v", p, err)
		}
		if _, err := book.Project(waits(t), "other", "search"); !errors.Is(err, auth.ErrNotFound) {
			t.Errorf("another organization's project: %v", err)
		}
	})
}

func TestWhatHasChangedIsNeitherDeletedNorRotated(t *testing.T) {
	onBoth(t, func(t *testing.T, place Options) {
		book := withKeys(t, place)
		k := made(t, book, aKey("acme", 1))
		old := k.Revision
		changed, err := book.ChangeKey(waits(t), "acme", k.ID, func(k *auth.Key) error { k.Name = "new"; return nil }, "update", tester)
		must(t, err)
		project, err := book.Project(waits(t), "acme", "search")
		must(t, err)
		stale := project.Revision + 1000
		calls := map[string]error{"delete a key": book.DeleteKey(waits(t), "acme", k.ID, &old, tester), "delete a project": book.DeleteProject(waits(t), "acme", "search", &stale, tester)}
		_, calls["rotate a key"] = book.Rotate(waits(t), "acme", k.ID, &old, aKey("", 2), time.Now().Add(time.Hour), tester)
		for what, err := range calls {
			if err != auth.ErrConflict { // A Hindrance is one, too.
				t.Errorf("%s: %v", what, err)
			}
		}
		_, err = book.Rotate(waits(t), "acme", k.ID, &changed.Revision, aKey("", 2), time.Now().Add(time.Hour), tester)
		must(t, err)
		must(t, book.DeleteProject(waits(t), "acme", "search", &project.Revision, tester))
	})
}

func TestAFullBookSaysWhatHelps(t *testing.T) {
	onBoth(t, func(t *testing.T, place Options) {
		book := withKeys(t, place)
		k := revoke(t, book, made(t, book, aKey("acme", 1)))
		past := func(statement string, args ...any) {
			t.Helper()
			must(t, book.write(waits(t), "", func(ctx context.Context, tx tx) error { return tx.exec(ctx, statement, args...) }))
		}
		past("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < " + fmt.Sprint(maxProjects-1) + ") INSERT INTO project SELECT 'acme', 'p' || i, '', 1, 1 FROM n")
		past("UPDATE counter SET value = $1 WHERE name = 'keys'", maxKeys)
		full := func(want string) {
			t.Helper()
			calls := map[string]error{}
			_, calls["projects"] = book.PutProject(waits(t), auth.Project{Organization: "acme", ID: "more"}, nil, tester)
			_, calls["keys"] = book.CreateKey(waits(t), aKey("acme", 2), tester)
			for what, err := range calls {
				_, hindered := errors.AsType[auth.Hindrance](err)
				if hindered != (want != "") || hindered && !strings.Contains(err.Error(), want) {
					t.Errorf("%s: %v", what, err)
				}
			}
		}
		full("no more can be created: delete")
		_, err := book.PutProject(waits(t), auth.Project{Organization: "acme", ID: "p7", Name: "new"}, nil, tester)
		must(t, err) // What is there can be changed.
		must(t, book.DeleteProject(waits(t), "acme", "p7", nil, tester))
		must(t, book.DeleteKey(waits(t), "acme", k.ID, nil, tester))
		full("")
	})
}
