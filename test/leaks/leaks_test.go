package leaks_test

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ai-aas/api-router/test/leaks"
)

func TestWhatEndsLateIsNoLeak(t *testing.T) {
	before := goleak.IgnoreCurrent()
	go time.Sleep(2 * time.Second)
	if err := goleak.Find(before); err == nil {
		t.Error("nothing was found while it ran")
	}
	if err := leaks.Find(before); err != nil {
		t.Error(err)
	}
}
