//go:build !linux

package load

import "time"

func sharpen() {}

func blunt() {}

func sleepUntil(t time.Time) { time.Sleep(time.Until(t)) }
