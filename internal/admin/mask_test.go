package admin

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/policy"
)

func TestASecretThatWasWrittenByMistakeIsShownNowhere(t *testing.T) {
	h := newHouse(t)
	const bad = `{"kind":"Backend","id":"x","url":"http://127.0.0.1:9","api_key":"sk-0123456789"}`
	if got := h.send(adminapi.RoleAdmin, http.MethodPut, adminapi.Prefix+"/backends/x", bad); got.StatusCode != http.StatusBadRequest {
		t.Fatalf("%d %s", got.StatusCode, got.body)
	}
	_, err := h.Book.Write(t.Context(), policy.Write{Kind: policy.KindBackend, ID: "x", Content: json.RawMessage(bad), Actor: "past the router"})
	must(t, err)
	h.settle()
	good := strings.Replace(bad, "sk-0123456789", "env:KEY", 1)
	for _, ask := range []struct{ role, method, path, body, shows string }{
		{adminapi.RoleViewer, http.MethodGet, "/backends", "", policy.Hidden},
		{adminapi.RoleViewer, http.MethodGet, "/backends?invalid=true", "", policy.Hidden},
		{adminapi.RoleViewer, http.MethodGet, "/backends/x", "", policy.Hidden},
		{adminapi.RoleViewer, http.MethodGet, "/backends/x/history", "", policy.Hidden},
		{adminapi.RoleViewer, http.MethodGet, "/audit", "", policy.Hidden},
		{adminapi.RoleViewer, http.MethodPost, "/diff", good, `"api_key"`},
		{adminapi.RoleViewer, http.MethodPost, "/diff", good, policy.Hidden},
		{adminapi.RoleViewer, http.MethodPost, "/validate", bad, "never the secret itself"},
		{adminapi.RoleAdmin, http.MethodPut, "/backends/x", good, "env:KEY"},
		{adminapi.RoleViewer, http.MethodGet, "/backends/x/history", "", policy.Hidden},
		{adminapi.RoleAdmin, http.MethodPost, "/backends/x/rollback", `{"revision":1}`, "never the secret itself"},
		{adminapi.RoleAdmin, http.MethodDelete, "/backends/x", "", "env:KEY"},
		{adminapi.RoleViewer, http.MethodGet, "/audit", "", policy.Hidden},
	} {
		got := h.send(ask.role, ask.method, adminapi.Prefix+ask.path, ask.body)
		if strings.Contains(string(got.body), "sk-0") || !strings.Contains(string(got.body), ask.shows) {
			t.Errorf("%s %s does not show %s: %s", ask.method, ask.path, ask.shows, got.body)
		}
	}
	if strings.Contains(h.log.String(), "sk-0") {
		t.Error(h.log.String())
	}
}
