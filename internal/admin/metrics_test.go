package admin

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestRequestsAreCountedInTheRoutersOwnWords(t *testing.T) {
	registry := prometheus.NewRegistry()
	m := newMetrics(registry)
	for _, test := range []struct {
		method, route string
		status        int
	}{
		{"GET", "GET /{collection}/{id}", 200},
		{"HEAD", "GET /{collection}/{id}", 200},
		{"GET", "GET /{collection}/{id}", 200},
		{"PUT", "", 401},
		{"BREW", "", 404},
		{"MADE-UP", "", 404},
	} {
		m.observe(&call{Request: httptest.NewRequest(test.method, "/admin/v1/whatever", http.NoBody), route: test.route, status: test.status})
	}
	err := testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP api_router_admin_requests_total Requests to the admin listener that have ended. route is the form of the path, and other where none was reached, as without a valid token.
# TYPE api_router_admin_requests_total counter
api_router_admin_requests_total{method="GET",route="/{collection}/{id}",status="200"} 2
api_router_admin_requests_total{method="HEAD",route="/{collection}/{id}",status="200"} 1
api_router_admin_requests_total{method="PUT",route="other",status="401"} 1
api_router_admin_requests_total{method="other",route="other",status="404"} 2
`))
	if err != nil {
		t.Error(err)
	}
}
