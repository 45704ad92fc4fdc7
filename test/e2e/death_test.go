package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ai-aas/api-router/test/ports"
)

// death is a way in which an endpoint can be dead.
type death struct {
	// at is the address that whoever connects is told.
	at func(*testing.T) string
	// resolver, where it is not nil, is the /etc/resolv.conf of whoever connects.
	resolver func(*testing.T) string
}

// resolvConf is the file that stands for /etc/resolv.conf, "" for the machine's own.
func (d death) resolvConf(t *testing.T) string {
	t.Helper()
	if d.resolver == nil {
		return ""
	}
	return d.resolver(t)
}

var deaths = map[string]death{
	"refused":       {at: func(t *testing.T) string { return ports.Dead(t) }},
	"SYN dropped":   {at: dropped},
	"queue full":    {at: saturated},
	"silent":        {at: silent},
	"resetting":     {at: resetting},
	"NXDOMAIN":      {at: named, resolver: nxdomain},
	"dead resolver": {at: named, resolver: func(t *testing.T) string { return nameserver(t, nil) }},
}

// named is an address that only a resolver could find.
func named(*testing.T) string { return "telemetry.invalid:4318" }

// nxdomain is the configuration of a resolver that knows no name.
func nxdomain(t *testing.T) string {
	t.Helper()
	return nameserver(t, func(query []byte) []byte {
		const header, answer, noSuchName = 12, 0x80, 0x80 | 3 // RFC 1035, 4.1.1: QR; RA and RCODE.
		if len(query) < header {
			return nil
		}
		query[2] |= answer
		query[3] = noSuchName
		for i := 6; i < header; i++ { // No answer, no authority and nothing additional: what follows the question counts for nothing.
			query[i] = 0
		}
		return query
	})
}

// nameserver makes an /etc/resolv.conf that names a server of ours on loopback. A nil reply lets it never answer.
func nameserver(t *testing.T, reply func(query []byte) []byte) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: only root can listen on port 53 and give a process an /etc/resolv.conf of its own")
	}
	var server net.PacketConn
	var err error
	host := ""
	for i := 81; i < 120 && server == nil; i++ { // One for each run of these tests at a time.
		host = fmt.Sprintf("127.0.0.%d", i)
		server, err = new(net.ListenConfig).ListenPacket(t.Context(), "udp", net.JoinHostPort(host, "53"))
	}
	if server == nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	var asked atomic.Int64
	t.Cleanup(func() {
		if asked.Load() == 0 && !t.Failed() {
			t.Error("nobody has asked the resolver: the test proves nothing")
		}
	})
	go func() {
		query := make([]byte, 1<<10)
		for {
			n, from, err := server.ReadFrom(query)
			if err != nil {
				return
			}
			asked.Add(1)
			if reply != nil {
				_, _ = server.WriteTo(reply(query[:n]), from) // Whoever misses it asks again.
			}
		}
	}()
	file := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(file, []byte("nameserver "+host+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// dropped is an address that a firewall drops every packet to.
func dropped(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("iptables")
	if err != nil {
		path = "/usr/sbin/iptables"
	}
	_, port, err := net.SplitHostPort(ports.Dead(t))
	if err != nil {
		t.Fatal(err)
	}
	const host = "127.0.0.79" // Whatever this rule does, it does to nobody else.
	rule := []string{"INPUT", "-i", "lo", "-d", host, "-p", "tcp", "--dport", port, "-j", "DROP"}
	if out, err := exec.CommandContext(t.Context(), path, append([]string{"-w", "-A"}, rule...)...).CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: no packet can be dropped without root and iptables (a full queue stands for it): %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command(path, append([]string{"-w", "-D"}, rule...)...).CombinedOutput(); err != nil {
			t.Errorf("the rule stays: %v: %s", err, out)
		}
	})
	return net.JoinHostPort(host, port)
}

// saturated is an address whose queue of new connections is full: the kernel drops further SYNs.
func saturated(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	at := net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: name.(*syscall.SockaddrInet4).Port}
	for range 64 {
		c, err := net.DialTimeout("tcp", at.String(), 200*time.Millisecond)
		if err != nil {
			return at.String()
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	t.Fatal("the queue of connections never fills")
	return ""
}

// silent accepts and never says a word.
func silent(t *testing.T) string { return acceptor(t, func(net.Conn) {}) }

// resetting accepts and resets.
func resetting(t *testing.T) string {
	return acceptor(t, func(c net.Conn) {
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
	})
}

func acceptor(t *testing.T, then func(net.Conn)) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = c.Close() })
			then(c)
		}
	}()
	return l.Addr().String()
}
