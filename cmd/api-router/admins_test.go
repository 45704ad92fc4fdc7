package main

import (
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/adminapi"
)

func TestAdminsFromTheCommandLine(t *testing.T) {
	c := openCounter(t)
	c.do("admin list", "There are no admins")
	token := after(t, c.shows("admin create olga --role operator --expires 2d --reason test", "this is the only time", envAdminToken), "is shown:\n\n")
	olga := read[adminapi.Admin](c, "admin get olga")
	if olga.Name != "olga" || olga.Role != "operator" || olga.State != "active" || olga.CreatedBy == "" || olga.Revision == 0 {
		t.Errorf("%+v", olga)
	}
	for _, name := range []string{"OLGA", olga.ID} {
		c.do("admin get "+name, "FIELD", olga.ID, "olga", "operator", "active", "Expires", "Revision")
	}
	c.fails("admin get", "name one admin: api-router admin get NAME", "admin list")
	c.fails("admin get otto", "no admin otto", "admin list")
	c.fails("admin get ara_"+olga.ID, "this is a token")

	c.do("admin set olga --role admin", "admin")
	if now := read[adminapi.Admin](c, "admin get olga"); now.Role != "admin" || !now.ExpiresAt.Equal(olga.ExpiresAt) || time.Until(now.ExpiresAt) < 47*time.Hour {
		t.Errorf("a change of the role leaves %+v of %+v", now, olga)
	}
	c.do("admin set olga --expires never", "olga")
	if now := read[adminapi.Admin](c, "admin get olga"); now.Role != "admin" || !now.ExpiresAt.IsZero() {
		t.Errorf("%+v", now)
	}
	c.do("admin get olga", "never")
	c.fails("admin set olga", "--role or --expires")
	c.do("admin revoke olga", "olga is revoked")
	c.do("admin get olga", "revoked", "Revoked")
	if all := read[adminapi.Admins](c, "admin list"); len(all.Items) != 1 || all.Items[0] != read[adminapi.Admin](c, "admin get olga") {
		t.Errorf("%+v", all)
	}
	c.do("admin delete olga", "olga is deleted")
	c.fails("admin get olga", "no admin olga")
	c.do("audit list --kind admin -o json")
	c.prints(token)
}
