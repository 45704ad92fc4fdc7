// Package leaks finds goroutines that tests leave behind.
package leaks

import (
	"time"

	"go.uber.org/goleak"
)

// patience is how long what was closed may take to end. goleak itself waits for less than half a second, which a busy machine needs for a
// connection that was closed at both ends.
const patience = 30 * time.Second

// Main runs the tests of a binary, and fails unless all goroutines end that they began.
func Main(tests interface{ Run() int }) { goleak.VerifyTestMain(patient{tests}) }

type patient struct{ tests interface{ Run() int } }

// Run is testing.M's.
func (p patient) Run() int {
	code := p.tests.Run()
	_ = Find() // Whoever called asks again, and says what it is.
	return code
}

// Find waits for goroutines to end, and tells of those that do not.
func Find(options ...goleak.Option) error {
	for deadline := time.Now().Add(patience); ; {
		if err := goleak.Find(options...); err == nil || time.Now().After(deadline) {
			return err
		}
	}
}
