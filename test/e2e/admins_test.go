package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/ai-aas/api-router/internal/adminapi"
)

// makeAdmin runs a command that prints the token of a new admin.
func (b *bureau) makeAdmin(args string) adminapi.NewAdmin {
	b.t.Helper()
	var made struct {
		Admin  adminapi.Admin `json:"admin"`
		Secret string         `json:"secret"`
	}
	if err := json.Unmarshal([]byte(b.do(args+" -o json")), &made); err != nil {
		b.t.Fatal(err)
	}
	b.secrets = append(b.secrets, made.Secret)
	return adminapi.NewAdmin{Admin: made.Admin, Secret: made.Secret}
}

// lets wants this status, and of an error this code, from both replicas whose admin API is asked with a token, within the time promised.
func (b *bureau) lets(what, token string, status int, code string) {
	b.t.Helper()
	within(b.t, what, eventually(b.t, what, func() error {
		for _, r := range b.replicas {
			request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+r.admin+adminapi.Prefix+"/fleet", http.NoBody)
			if err != nil {
				return err
			}
			request.Header.Set("Authorization", "Bearer "+token)
			response, err := r.client.Do(request)
			if err != nil {
				return err
			}
			text, err := io.ReadAll(response.Body)
			_ = response.Body.Close()
			if err != nil || response.StatusCode != status || errorCode(string(text)) != code {
				return fmt.Errorf("%d %s %v, want %d %s", response.StatusCode, text, err, status, code)
			}
		}
		return nil
	}), promisedRevocation)
}

// by lets somebody else sit at the desk, before this replica.
func (b *bureau) by(token string, replica int, work func()) {
	b.t.Helper()
	role := b.role
	b.role, b.router = token, b.replicas[replica]
	defer func() { b.role, b.router = role, b.replicas[0] }()
	work()
}

func TestTheLifeOfAnAdmin(t *testing.T) {
	onBothBooks(t, func(t *testing.T, settings ...string) {
		b := openBureau(t, settings...)
		b.order("admin list", "There are no admins in the state book")
		b.fails("admin create", "name one admin")
		b.fails("admin create Ada --role operator", "a token of identity.admin_tokens has this name")
		b.fails("admin create 'two words' --role chief --expires 2001-01-01", "3 things are wrong", "name: ", "role: ", "expires_at: ")
		b.fails("admin set nobody --role viewer", "the state book has no admin nobody")

		olga := b.makeAdmin("admin create olga --role operator --expires 90d --reason 'on call'")
		b.lets("a new admin is let in at both replicas", olga.Secret, http.StatusOK, "")
		b.fails("admin create OLGA --role viewer", "there is an admin with this name already")
		b.fails("admin revoke "+olga.Secret, "name the admin by name or by id")
		b.order("admin list", olga.ID, "olga", "operator", "active", "ada")
		b.by(olga.Secret, 1, func() {
			b.order("backend drain b-other --reason 'new weights'")
			for _, args := range []string{"admin list", "admin create eve --role admin", "admin revoke olga", "org create acme"} {
				b.fails(args, "permission_denied", "olga has the role operator")
			}
		})
		b.order("history", "olga", "new weights")
		if err := b.says(1, chatPath, model, olga.Secret, http.StatusUnauthorized, "invalid_api_key"); err != nil {
			t.Errorf("an admin's token at the public listener: %v", err)
		}

		b.order("admin set olga --role admin --expires never --reason 'she leads now'", "admin", "active")
		b.by(olga.Secret, 1, func() {
			b.await("she may do more", func() error {
				_, err := command(t, b.as(olga.Secret), "org", "create", "acme", "--reason", "by olga")
				return err
			})
		})
		client := b.makeKey("key create --org acme")
		b.lets("a client's key is no admin token", client.Secret, http.StatusUnauthorized, "invalid_api_key")
		b.by(auditorToken, 1, func() {
			b.order("admin list -o yaml", "name: olga", "role: admin")
			b.order("audit list --org acme", "olga", "by olga")
			b.fails("admin revoke olga", "permission_denied")
		})

		b.order("admin revoke olga --reason 'she left'", "admin olga is revoked")
		b.lets("an admin who was revoked is refused at both replicas", olga.Secret, http.StatusUnauthorized, "revoked_api_key")
		b.fails("admin set olga --role viewer", "stays so")
		b.order("admin delete olga", "is deleted")
		b.makeAdmin("admin create olga --role viewer")

		var entries adminapi.Entries
		if err := json.Unmarshal([]byte(b.order("audit list --kind admin -o json")), &entries); err != nil {
			t.Fatal(err)
		}
		var told []string
		for _, e := range slices.Backward(entries.Items) {
			told = append(told, strings.TrimSpace(e.Action+" "+e.Reason))
			if e.Actor != "ada" || e.Role != adminapi.RoleAdmin || e.RequestID == "" {
				t.Errorf("%+v", e)
			}
		}
		if got := strings.Join(told, ", "); got != "create on call, update she leads now, revoke she left, delete, create" {
			t.Errorf("the audit tells of %s", got)
		}
		b.nothingLeaks()
	})
}
