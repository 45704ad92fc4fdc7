package admin

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// other stands for a method, or a route, that the admin API does not have.
const other = "other"

// metrics are the door's counters.
type metrics struct{ requests *prometheus.CounterVec }

func newMetrics(registerer prometheus.Registerer) *metrics {
	return &metrics{requests: promauto.With(registerer).NewCounterVec(prometheus.CounterOpts{
		Name: "api_router_admin_requests_total",
		Help: "Requests to the admin listener that have ended. route is the form of the path, and other where none was reached, as without a valid token.",
	}, []string{"method", "route", "status"})}
}

// observe counts a request that has ended. Its labels are the router's own words, whatever a client wrote.
func (m *metrics) observe(c *call) {
	method, route := other, other
	switch c.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		method = c.Method
	}
	if _, path, found := strings.Cut(c.route, " "); found {
		route = path
	}
	m.requests.WithLabelValues(method, route, strconv.Itoa(c.status)).Inc()
}
