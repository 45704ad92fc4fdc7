package state

import (
	"errors"
	"testing"
)

func TestAnErrorOfManyTriesIsOneLineThatSaysEachThingOnce(t *testing.T) {
	t.Parallel()
	err := flat{errors.New("failed to connect to `user=router`:\n\t127.0.0.1:1 (127.0.0.1): connection refused\n\t127.0.0.1:1 (127.0.0.1): connection refused\n\t127.0.0.2:1: no  route")}
	if got, want := err.Error(), "failed to connect to `user=router`: 127.0.0.1:1 (127.0.0.1): connection refused 127.0.0.2:1: no route"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
