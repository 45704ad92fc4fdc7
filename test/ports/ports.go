// Package ports gives tests addresses of the loopback interface that stay theirs.
//
// A port that was opened and closed again is anybody's: the system gives it to the next connection or listener of any process, and a busy
// machine has thousands of those. A test that means to start a server there, or counts on nobody, would fail by chance.
package ports

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"syscall"
	"testing"
)

// Dead is an address where nobody listens, and nobody else can before the test ends.
func Dead(tb testing.TB) string {
	tb.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		tb.Fatal(err)
	}
	syscall.CloseOnExec(fd)
	tb.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil { // And no listen: whoever connects is refused.
		tb.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	own, ok := name.(*syscall.SockaddrInet4)
	if err != nil || !ok {
		tb.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", own.Port)
}

// Free is an address where a server of the test may listen, now and again, until the test ends.
func Free(tb testing.TB) string {
	tb.Helper()
	address, release, err := Reserve()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(release)
	return address
}

// Reserve is Free for what outlives a test. The address is kept until release is called.
//
// Its port is none that the system gives to somebody by itself. From others who choose as this does, it is kept by the UDP port of the same number.
func Reserve() (address string, release func(), err error) {
	config := new(net.ListenConfig)
	for range 1000 {
		address = fmt.Sprintf("127.0.0.1:%d", lowest+rand.IntN(ephemeral()-lowest))
		claim, err := config.ListenPacket(context.Background(), "udp", address)
		if err != nil {
			continue
		}
		if l, err := config.Listen(context.Background(), "tcp", address); err == nil {
			return address, func() { _ = claim.Close() }, l.Close()
		}
		_ = claim.Close()
	}
	return "", nil, errors.New("no port of the loopback interface is free")
}

// lowest is the first port that Reserve may give: below it there are well-known services.
const lowest = 10_000

// ephemeral is the first port that the system gives to whoever asks for any. One that begins low leaves no room, and is not kept to.
func ephemeral() int {
	first := 0
	if text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		_, _ = fmt.Sscan(string(text), &first) // It stays 0 where there is no number.
	}
	if first < lowest+1000 {
		return 32_768
	}
	return first
}
