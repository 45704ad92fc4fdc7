//go:build race

package auth_test

// raceEnabled says that memory is not what it is in production.
const raceEnabled = true
