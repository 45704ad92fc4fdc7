package gateway

import (
	"io"
	"net/http"
)

// report is the JSON form of the health pages.
type report struct {
	Status     string      `json:"status"`
	Version    string      `json:"version"`
	Components []Component `json:"components"`
}

// The words of readyz.
const (
	stateReady    = "ready"
	stateStarting = "starting"
	stateDraining = "draining"
)

// Readiness is true when every needed component is there and the process is not draining. Dead backends do not count:
// taking the router away does not bring them back.
func (g *Gateway) Readiness() (word string, ready bool) {
	if g.Draining() {
		return stateDraining, false
	}
	for _, c := range g.Components() {
		if c.Needed && !c.OK {
			return stateStarting, false
		}
	}
	return stateReady, true
}

// Ready reports whether /readyz says yes.
func (g *Gateway) Ready() bool {
	_, ready := g.Readiness()
	return ready
}

// healthz says that the process lives.
func (g *Gateway) healthz(w http.ResponseWriter, _ *http.Request, _ *exchange) error {
	return writeWord(w, http.StatusOK, "ok")
}

func (g *Gateway) readyz(w http.ResponseWriter, _ *http.Request, x *exchange) error {
	word, ready := g.Readiness()
	x.Status = readyStatus(ready)
	return writeWord(w, x.Status, word)
}

func (g *Gateway) statusHealthz(w http.ResponseWriter, _ *http.Request, _ *exchange) error {
	return writeJSON(w, http.StatusOK, report{Status: "ok", Version: g.Version, Components: g.Components()})
}

func (g *Gateway) statusReadyz(w http.ResponseWriter, _ *http.Request, x *exchange) error {
	word, ready := g.Readiness()
	x.Status = readyStatus(ready)
	return writeJSON(w, x.Status, report{Status: word, Version: g.Version, Components: g.Components()})
}

func readyStatus(ready bool) int {
	if ready {
		return http.StatusOK
	}
	return http.StatusServiceUnavailable
}

func writeWord(w http.ResponseWriter, status int, word string) error {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, word+"\n") // The prober may be gone; there is nobody else to tell.
	return nil
}

// Bodies tells how much memory the bodies of running requests take, and how much they may, in bytes.
func (g *Gateway) Bodies() (used, limit int64) { return g.bodies.used.Load(), g.bodies.limit }
