package admin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"runtime/pprof"
	"runtime/trace"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/ai-aas/api-router/internal/admin/console"
	"github.com/ai-aas/api-router/internal/fault"
)

// profilePath is where Go's own tools look for profiles. The command line of the process, which they know too, is not served.
const profilePath = "/debug/pprof/"

const (
	longestProfile = 60               // seconds
	maxProfile     = 64 << 20         // bytes of one profile
	profileSlack   = 10 * time.Second // beyond its seconds, for whatever comes after
)

// profile is one kind of profile.
type profile struct {
	name  string
	query []string
	// seconds is how long one takes unless the request says otherwise; 0: it is there at once.
	seconds int
	about   string
	// begin starts recording into w, and gives what ends it. Nil: the runtime keeps the profile of that name.
	begin func(w *bounded) (end func() error, err error)
}

var (
	timed    = []string{"seconds"}
	snapshot = []string{"debug", "gc"}
)

var profiles = []profile{
	{"profile", timed, 30, "where processor time goes", recordCPU},
	{"trace", timed, 5, "what the scheduler and the collector do, for \"go tool trace\"", recordTrace},
	{"block", timed, 10, "where goroutines wait; recorded while it is asked for", recordBlock},
	{"mutex", timed, 10, "who makes others wait for a lock; recorded while it is asked for", recordMutex},
	{"heap", snapshot, 0, "what is in memory (gc=1 collects first)", nil},
	{"allocs", snapshot, 0, "what was allocated since the start", nil},
	{"goroutine", snapshot, 0, "every goroutine with its stack (debug=2 as text)", nil},
	{"threadcreate", snapshot, 0, "what made new threads", nil},
}

// recording lets one profile at a time be recorded: the runtime has one of each, and each costs the requests something.
type recording struct{ until atomic.Int64 } // Unix nanoseconds; 0: none

func (r *recording) begin(d time.Duration) error {
	if r.until.CompareAndSwap(0, time.Now().Add(d).UnixNano()) {
		return nil
	}
	left := max(time.Until(time.Unix(0, r.until.Load())), time.Second)
	return fault.New(fault.QueueFull, "another profile is being recorded, and one at a time is: ask again when it has ended").WithRetryAfter(left)
}

// profiles answers the list.
func (*Admin) profiles(*call) (reply, error) {
	list := make([]console.Profile, 0, len(profiles))
	for _, p := range profiles {
		shown := console.Profile{Name: p.name, About: p.about, Seconds: p.seconds}
		if known := pprof.Lookup(p.name); known != nil && p.begin == nil {
			shown.Count = known.Count()
		}
		list = append(list, shown)
	}
	return page(console.Profiles, list)
}

// record answers one profile.
func (a *Admin) record(c *call, p profile) (reply, error) {
	// A page of another site can make a browser ask for this, and needs no answer to do harm.
	if site := c.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" && site != "none" {
		return reply{}, fault.New(fault.PermissionDenied, "a web page of another origin may not record profiles")
	}
	if p.begin == nil {
		return kept(c, p.name)
	}
	seconds := p.seconds
	if text := c.query.Get("seconds"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > longestProfile {
			return reply{}, fault.Newf(fault.InvalidRequest, "seconds must be a whole number between 1 and %d", longestProfile).WithParam("seconds")
		}
		seconds = n
	}
	length := time.Duration(seconds) * time.Second
	if err := a.profile.begin(length); err != nil {
		return reply{}, err
	}
	defer a.profile.until.Store(0)
	_ = http.NewResponseController(c.writer).SetReadDeadline(time.Now().Add(length + profileSlack)) // One that passes ends the request.
	out := &bounded{}
	end, err := p.begin(out)
	if err != nil { // Somebody else in the process records one.
		return reply{}, fault.New(fault.QueueFull, "this profile cannot be recorded now: ask again later").WithRetryAfter(time.Second).WithCause(err)
	}
	wait(c.Context(), length)
	if err := errors.Join(end(), out.err); err != nil {
		return reply{}, fmt.Errorf("record the profile: %w", err)
	}
	if c.Context().Err() != nil {
		return reply{}, fault.New(fault.ClientClosed, "the client left before the profile was complete")
	}
	return reply{text: out.Bytes(), kind: "application/octet-stream", file: p.name + ".pprof"}, nil
}

// kept answers a profile that the runtime keeps anyway.
func kept(c *call, name string) (reply, error) {
	debug, collect := 0, false
	switch text := c.query.Get("debug"); text {
	case "", "0":
	case "1", "2":
		debug, _ = strconv.Atoi(text) // It is a number.
	default:
		return reply{}, fault.New(fault.InvalidRequest, "debug must be 0, 1 or 2").WithParam("debug")
	}
	switch c.query.Get("gc") {
	case "", "0":
	case "1":
		collect = true
	default:
		return reply{}, fault.New(fault.InvalidRequest, "gc must be 0 or 1").WithParam("gc")
	}
	if collect {
		runtime.GC()
	}
	out := &bounded{}
	if err := errors.Join(pprof.Lookup(name).WriteTo(out, debug), out.err); err != nil {
		return reply{}, fmt.Errorf("write the profile: %w", err)
	}
	if debug > 0 {
		return reply{text: out.Bytes(), kind: "text/plain; charset=utf-8"}, nil
	}
	return reply{text: out.Bytes(), kind: "application/octet-stream", file: name + ".pprof"}, nil
}

func recordCPU(w *bounded) (func() error, error) {
	err := pprof.StartCPUProfile(w)
	return func() error { pprof.StopCPUProfile(); return nil }, err
}

func recordTrace(w *bounded) (func() error, error) {
	err := trace.Start(w)
	return func() error { trace.Stop(); return nil }, err
}

func recordBlock(w *bounded) (func() error, error) {
	const every = 10_000 // nanoseconds of waiting for each sample: what is shorter is sampled by its length
	runtime.SetBlockProfileRate(every)
	return func() error {
		runtime.SetBlockProfileRate(0)
		return pprof.Lookup("block").WriteTo(w, 0)
	}, nil
}

func recordMutex(w *bounded) (func() error, error) {
	const oneIn = 10
	runtime.SetMutexProfileFraction(oneIn)
	return func() error {
		runtime.SetMutexProfileFraction(0)
		return pprof.Lookup("mutex").WriteTo(w, 0)
	}, nil
}

var errLargeProfile = fault.Newf(fault.RequestTooLarge, "the profile is larger than %d MiB: ask for fewer seconds", maxProfile>>20)

// bounded takes a profile up to maxProfile.
type bounded struct {
	bytes.Buffer
	err error
}

// Write implements io.Writer. Beyond the bound it takes no more, and says so at the end: the runtime heeds no error.
func (b *bounded) Write(p []byte) (int, error) {
	if b.err == nil && b.Len()+len(p) > maxProfile {
		b.err = errLargeProfile
	}
	if b.err != nil {
		return 0, b.err
	}
	return b.Buffer.Write(p)
}

// wait waits for d or the end of ctx.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
