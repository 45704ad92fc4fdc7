package e2e

import (
	"net/http"
	"strings"
	"testing"
)

// A key that clients keep does what its operators make of it, on every replica within five seconds.
func TestAChangeOfAKeyReachesEveryReplica(t *testing.T) {
	onBothBooks(t, func(t *testing.T, settings ...string) {
		b := openBureau(t, settings...)
		b.order("org create acme")
		b.order("project create shop --org acme", "project shop of organization acme is created")
		k := b.makeKey("key create --org acme --model other")
		b.everywhere("a key of another model does not see this one", k.Secret, http.StatusNotFound, "model_not_found")
		update := "key update --org acme " + k.ID + " "
		b.order(update+"--model other --model gpt-oss-* --reason 'it needs both'", "other, gpt-oss-*")
		b.everywhere("a model that was added is there", k.Secret, http.StatusOK, "")
		b.order(update+"--model other", "other")
		b.everywhere("a model that was taken away is not", k.Secret, http.StatusNotFound, "model_not_found")
		b.order(update + "--clear model --network 192.0.2.0/24")
		b.everywhere("a network that it does not come from", k.Secret, http.StatusForbidden, "ip_not_allowed")
		signing := b.do(update+"--clear network --signed required", "this is the only time that it is shown")
		_, signing, _ = strings.Cut(signing, "ars_")
		b.secrets = append(b.secrets, "ars_"+strings.Fields(signing)[0])
		b.everywhere("a signature that it lacks", k.Secret, http.StatusUnauthorized, "invalid_signature")
		b.order(update + "--clear signed --project shop")
		b.everywhere("and needs no more", k.Secret, http.StatusOK, "")

		b.fails("project delete shop --org acme", "a key that is not revoked is in it")
		b.fails("key delete --org acme "+k.ID, "revoke it first")
		b.order("key revoke --org acme "+k.ID, "is revoked")
		b.everywhere("a key that was revoked", k.Secret, http.StatusUnauthorized, "revoked_api_key")
		b.order("key delete --org acme "+k.ID, "is deleted")
		b.everywhere("a key that was deleted is not known any more", k.Secret, http.StatusUnauthorized, "invalid_api_key")
		b.order("project delete shop --org acme", "is deleted")
		b.order("org delete acme", "is deleted")
		b.order("org create acme --reason 'again'", "is created")
		b.everywhere("an organization that is made anew", b.makeKey("key create --org acme").Secret, http.StatusOK, "")
		b.order("audit list --org acme -o json")
		b.nothingLeaks()
	})
}
