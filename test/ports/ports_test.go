package ports_test

import (
	"errors"
	"net"
	"syscall"
	"testing"

	"github.com/ai-aas/api-router/test/ports"
)

func TestADeadAddressRefusesAndCannotBeTaken(t *testing.T) {
	address := ports.Dead(t)
	if conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", address); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%v, %v", conn, err)
	}
	if l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", address); err == nil {
		_ = l.Close()
		t.Error("somebody else can listen there")
	}
}

func TestAFreeAddressCanBeListenedAtAgainAndIsGivenOnce(t *testing.T) {
	given := map[string]bool{}
	for range 200 {
		address := ports.Free(t)
		if given[address] {
			t.Fatalf("%s is given twice", address)
		}
		given[address] = true
		for range 2 {
			l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			_ = l.Close()
		}
	}
}
