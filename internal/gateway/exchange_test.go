package gateway

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
)

func TestRequestIDsAreVersion7AndSortByTime(t *testing.T) {
	at := time.Date(2026, 11, 23, 6, 0, 0, 999_000, time.UTC)
	var ids []string
	for range 1000 {
		text := newRequestID(at)
		id, err := uuid.Parse(text)
		if err != nil || id.Version() != 7 || id.Variant() != uuid.RFC4122 {
			t.Fatalf("%s: %v", text, err)
		}
		seconds, nanos := id.Time().UnixTime()
		if got := time.Unix(seconds, nanos); got.Sub(at).Abs() > time.Millisecond {
			t.Fatalf("%s is of %v, want %v", text, got, at)
		}
		ids = append(ids, text)
		at = at.Add(time.Microsecond)
	}
	if !slices.IsSorted(ids) {
		t.Error("later ids sort before earlier ones")
	}
	if len(slices.Compact(ids)) != 1000 {
		t.Error("an id came twice")
	}
}

func TestTheRequestIsFoundInItsContext(t *testing.T) {
	type other struct{}
	x := &exchange{Context: context.WithValue(t.Context(), other{}, 7)}
	x.RequestID = "id"
	ctx, cancel := context.WithCancelCause(x)
	defer cancel(nil)
	if RequestID(ctx) != "id" || RequestID(t.Context()) != "" || ctx.Value(other{}) != 7 {
		t.Error("the context lost a value")
	}
}
