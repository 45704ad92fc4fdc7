package proxy

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ai-aas/api-router/internal/fault"
	"github.com/ai-aas/api-router/internal/usage"
)

func TestRetryAfterIsReadInBothForms(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"":                              0,
		"2":                             2 * time.Second,
		" 1.5 ":                         1500 * time.Millisecond,
		"-1":                            0,
		"NaN":                           0,
		"Inf":                           time.Hour,
		"1e300":                         time.Hour,
		"Fri, 02 Jan 2026 03:04:15 GMT": 10 * time.Second,
		"Fri, 02 Jan 2026 03:00:00 GMT": 0,
		"Fri, 02 Jan 2099 03:00:00 GMT": time.Hour,
		"soon":                          0,
	} {
		if got := retryAfter(http.Header{"Retry-After": {value}}, now); got != want {
			t.Errorf("%q: %v, want %v", value, got, want)
		}
	}
}

func TestTheClockCancelsWithTheLimitThatPassed(t *testing.T) {
	for name, tc := range map[string]struct {
		use   func(c *clock)
		after time.Duration
		words string
	}{
		"first byte":           {func(c *clock) { c.arm(2*time.Second, phaseFirstByte) }, 2 * time.Second, "begin its answer within 2s"},
		"gap":                  {func(c *clock) { c.arm(3*time.Second, phaseBetweenBytes) }, 3 * time.Second, "next part of its answer within 3s"},
		"total before the gap": {func(c *clock) { c.arm(time.Hour, phaseBetweenBytes) }, 10 * time.Second, "finish its answer within 10s"},
		"the end moved closer": {func(c *clock) {
			c.rest()
			c.endIn(time.Second)
			c.arm(time.Hour, phaseBetweenBytes)
		}, time.Second, "finish its answer"},
		"total without any other": {func(*clock) {}, 10 * time.Second, "finish its answer within 10s"},
		"rest does not count": {func(c *clock) {
			c.arm(time.Second, phaseFirstByte)
			c.rest()
			time.Sleep(5 * time.Second)
			c.arm(time.Second, phaseBetweenBytes)
		}, 6 * time.Second, "next part"},
		"rest does not count for the total": {func(c *clock) {
			c.arm(time.Hour, phaseBetweenBytes)
			time.Sleep(4 * time.Second)
			c.rest()
			time.Sleep(100 * time.Second)
			c.arm(time.Hour, phaseBetweenBytes)
		}, 110 * time.Second, "finish its answer"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				start := time.Now()
				tc.use(newClock(cancel, 10*time.Second))
				<-ctx.Done()
				if got := time.Since(start); got != tc.after {
					t.Errorf("after %v, want %v", got, tc.after)
				}
				if cause := context.Cause(ctx); fault.CodeOf(cause) != fault.BackendTimeout || !strings.Contains(cause.Error(), tc.words) {
					t.Error(cause)
				}
			})
		})
	}
}

func TestTheClientGetsTheMostTellingFailure(t *testing.T) {
	full := func(wait time.Duration) *fault.Error {
		return fault.New(fault.BackendOverloaded, "full").WithRetryAfter(wait)
	}
	broken, late := fault.New(fault.BackendError, "broken"), fault.New(fault.BackendTimeout, "late")
	none, off := fault.New(fault.NoBackendAvailable, "none"), fault.New(fault.ModelDisabled, "off")
	for name, tc := range map[string]struct {
		failures []*fault.Error
		none     error
		want     *fault.Error
		wait     time.Duration
		stop     string
	}{
		"nothing could be tried":             {nil, none, none, 0, usage.StopBackendError},
		"all full: the shortest wait":        {[]*fault.Error{full(9 * time.Second), full(3 * time.Second), full(5 * time.Second)}, none, full(0), 3 * time.Second, usage.StopBackendError},
		"broken says more than full":         {[]*fault.Error{broken, full(time.Second)}, none, broken, 0, usage.StopBackendError},
		"the last of two real failures":      {[]*fault.Error{broken, late}, none, late, 0, usage.StopTimeout},
		"all of them switched off meanwhile": {[]*fault.Error{broken}, off, off, 0, usage.StopBackendError},
		"full in between changes nothing":    {[]*fault.Error{broken, full(time.Second), late}, none, late, 0, usage.StopTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			f := &flight{failures: tc.failures}
			f.exhausted(tc.none)
			if !errors.Is(f.out.Err, tc.want) || fault.From(f.out.Err).RetryAfter != tc.wait || f.out.Stop != tc.stop {
				t.Errorf("%v, stop %s", f.out.Err, f.out.Stop)
			}
		})
	}
}
