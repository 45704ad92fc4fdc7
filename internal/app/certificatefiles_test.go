package app

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ai-aas/api-router/test/pki"
)

func TestACertificatesFilesAreReadAnewWithoutASignal(t *testing.T) {
	authority, dir := pki.New(t, "servers"), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		first, second := authority.Server(t, time.Hour), authority.Server(t, time.Hour)
		cert, key := first.Write(t, dir)
		c := newCertificate(slog.New(slog.DiscardHandler), listenerPublic, "listen.tls", ListenTLS{Cert: cert, Key: key})
		before := c.current.Load()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- c.run(ctx) }()
		second.Write(t, dir)
		time.Sleep(2 * secretsEvery)
		if now := c.current.Load(); before == nil || now == before || c.failure.Load() != nil {
			t.Errorf("the second certificate is not shown: %+v", c.failure.Load())
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
