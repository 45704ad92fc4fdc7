package fleet

import (
	"sync/atomic"
	"time"
)

// Kind is how an attempt on a backend ended, as far as the backend's health is concerned.
type Kind uint8

// The kinds. Neutral is the zero value, so that a deferred Done(Result{}) says nothing that is not known.
const (
	Neutral             Kind = iota // says nothing about the backend
	Served                          // a complete answer, or a refusal of the request that was the client's fault
	ClientGone                      // the client left first
	ConnectFailed                   // no connection, or it broke before any byte of an answer
	Failed                          // the backend answered with an error of its own
	TimedOut                        // no byte in time
	Broken                          // the answer ended early or made no sense
	Saturated                       // the backend says that it is full: it rests, and is not held to be sick
	CredentialsRejected             // the backend refuses the router's own key
)

var kindNames = [...]string{
	Neutral: "neutral", Served: "served", ClientGone: "client gone", ConnectFailed: "connect failed", Failed: "failed",
	TimedOut: "timed out", Broken: "broken answer", Saturated: "saturated", CredentialsRejected: "credentials rejected",
}

// String is the kind in words, for logs.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "unknown"
}

// failure reports whether the kind counts towards ejection.
func (k Kind) failure() bool {
	switch k {
	case ConnectFailed, Failed, TimedOut, Broken, CredentialsRejected:
		return true
	default:
		return false
	}
}

// Result ends a Lease.
type Result struct {
	Kind Kind
	// RetryAfter is what a Saturated backend asked for; zero or less: one second. More than a minute counts as a minute.
	RetryAfter time.Duration
}

// Lease is the right to send one request to one backend. It counts as in flight until Done.
type Lease struct {
	backend    *Backend
	ejectAfter int32
	cuts       uint32 // the backend's when it was taken
	probation  bool   // taken while the backend was ejected: its result decides whether the backend comes back
	trial      bool   // holds the one half-open slot
	done       atomic.Bool
}

// Backend is where the request goes.
func (l *Lease) Backend() *Backend { return l.backend }

// Cut reports whether an operator has cut the backend's connections since the lease was taken, and the attempt with them.
func (l *Lease) Cut() bool { return l.cuts != l.backend.cuts.Load() }

// FirstByte says that a good answer has begun. It ends the ejection of a backend that is on trial, which would otherwise
// wait for the end of what may be a long stream. Calling it is optional, and Done still follows.
func (l *Lease) FirstByte() {
	if l.probation && !l.done.Load() {
		l.backend.readmit("an answer has begun")
	}
}

// Done gives the lease back and books how the attempt ended. The first call counts, later ones do nothing, so that a
// deferred Done(Result{}) beside an explicit one is safe.
func (l *Lease) Done(r Result) {
	if !l.done.CompareAndSwap(false, true) {
		return
	}
	l.backend.settle(l, r)
}
