package fault_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/fault"
)

func TestWriteRendersTheEnvelopeWithAllFourKeys(t *testing.T) {
	for name, tc := range map[string]struct {
		err    error
		status int
		want   map[string]any
		header map[string]string
	}{
		"a client's mistake names its field": {
			err:    fault.New(fault.InvalidRequest, "messages is empty").WithParam("messages"),
			status: 400,
			want:   map[string]any{"message": "messages is empty", "type": "invalid_request_error", "param": "messages", "code": "invalid_request"},
			header: map[string]string{"X-Should-Retry": "false", "Retry-After": ""},
		},
		"param is null where no field is at fault": {
			err:    fault.New(fault.MissingAPIKey, "authentication required"),
			status: 401,
			want:   map[string]any{"message": "authentication required", "type": "authentication_error", "param": nil, "code": "missing_api_key"},
			header: map[string]string{"X-Should-Retry": "false"},
		},
		"the wait is rounded up in both units": {
			err:    fault.New(fault.BackendOverloaded, "full").WithRetryAfter(1500*time.Millisecond + time.Microsecond),
			status: 503,
			want:   map[string]any{"message": "full", "type": "server_error", "param": nil, "code": "backend_overloaded"},
			header: map[string]string{"X-Should-Retry": "true", "Retry-After": "2", "Retry-After-Ms": "1501"},
		},
		"a fault deep in a chain is found": {
			err:    fmt.Errorf("scan: %w", fault.New(fault.InvalidJSON, "no value")),
			status: 400,
			want:   map[string]any{"message": "no value", "type": "invalid_request_error", "param": nil, "code": "invalid_json"},
		},
		"a hostile message stays JSON": {
			err:    fault.New(fault.NotFound, "\"}\n\x00\xff</script>"),
			status: 404,
			want:   map[string]any{"message": "\"}\n\x00\ufffd</script>", "type": "invalid_request_error", "param": nil, "code": "not_found"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := httptest.NewRecorder()
			fault.Write(w, tc.err)
			if w.Code != tc.status {
				t.Errorf("status %d, want %d", w.Code, tc.status)
			}
			var got struct {
				Error map[string]any `json:"error"`
			}
			if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
				t.Fatalf("%v in %s", err, w.Body)
			}
			if len(got.Error) != 4 {
				t.Errorf("%d keys in %s", len(got.Error), w.Body)
			}
			for key, want := range tc.want {
				if got.Error[key] != want {
					t.Errorf("%s is %#v, want %#v", key, got.Error[key], want)
				}
			}
			for key, want := range tc.header {
				if got := w.Header().Get(key); got != want {
					t.Errorf("%s: %q, want %q", key, got, want)
				}
			}
		})
	}
}

func TestAnUnknownErrorIsOursAndKeepsItsDetailForTheLog(t *testing.T) {
	inner := errors.New("dial 10.0.0.7:5432: refused")
	w := httptest.NewRecorder()
	fault.Write(w, inner)
	if w.Code != 500 || strings.Contains(w.Body.String(), "10.0.0.7") {
		t.Errorf("status %d, body %s", w.Code, w.Body)
	}
	e := fault.From(inner)
	if !errors.Is(e, inner) || !strings.Contains(e.Error(), "10.0.0.7") {
		t.Errorf("the log lost the cause: %v", e)
	}
}

func TestEventIsOneCompleteEvent(t *testing.T) {
	event := string(fault.Event(nil, fault.New(fault.BackendError, "two\nlines")))
	if !strings.HasPrefix(event, `data: {"error":{`) || !strings.HasSuffix(event, "}\n\n") || strings.Count(event, "\n") != 2 {
		t.Errorf("%q", event)
	}
}

func TestErrorsAreComparedByCode(t *testing.T) {
	err := fmt.Errorf("outer: %w", fault.New(fault.Draining, "a").WithCause(errors.New("b")))
	if !errors.Is(err, fault.New(fault.Draining, "other words")) || errors.Is(err, fault.New(fault.NotFound, "a")) {
		t.Error("errors.Is does not go by the code")
	}
	if fault.CodeOf(err) != fault.Draining || fault.CodeOf(nil) != "" || fault.CodeOf(errors.New("x")) != fault.InternalError {
		t.Error("CodeOf")
	}
}

func TestEveryCodeHasAStatusATypeAndATitle(t *testing.T) {
	for _, e := range fault.Catalogue() {
		if e.Status < 400 || e.Status > 599 || e.Type == "" || e.Title == "" || e.Code.Status() != e.Status {
			t.Errorf("%+v", e)
		}
	}
	if fault.Code("never_heard_of").Status() != 500 {
		t.Error("an unknown code is not a 500")
	}
}
