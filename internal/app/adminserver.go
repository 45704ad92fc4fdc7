package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/ai-aas/api-router/internal/admin"
	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/auth/userorg"
)

// adminWait is how long requests to the admin API may take to finish at the end.
const adminWait = 2 * time.Second

// operators is the admin listener with what it serves.
type operators struct {
	tokens   *tokens
	admins   *auth.Admins // of the state book; nil: there is none, or nobody is asked for a token
	listener net.Listener
	server   *http.Server
}

// AdminAddr is the address of the admin listener, nil where there is none.
func (a *App) AdminAddr() net.Addr {
	if a.operators == nil {
		return nil
	}
	return a.operators.listener.Addr()
}

// wireAdmin makes the admin API and opens its listener, if anybody may use it.
func (a *App) wireAdmin(opts Options, options admin.Options) error {
	list := newTokens(a.log.With("component", "admin"), a.config.Identity.AdminTokens)
	options.Open = opts.OpenAdmin && len(list.settings) == 0
	door, err := a.validationDoor(options.Metrics)
	if err != nil {
		return err
	}
	options.Bearer = a.operatorTokens()
	if !a.config.opensAdmin(opts.OpenAdmin) {
		a.log.Info("the admin listener stays closed: identity.admin_tokens is empty")
		return nil
	}
	options.Tokens = list.list
	admins := a.wireAdmins(&options, options.Metrics)
	listener, err := a.listenAdmin(opts.OpenAdmin)
	if err != nil {
		return err
	}
	a.onStop("admin listener's port", closing(listener))
	a.operators = &operators{tokens: list, admins: admins, listener: listener, server: &http.Server{
		Handler:           beside(admin.New(options), door),
		TLSConfig:         a.certificates.of(listenerAdmin).server(),
		ReadHeaderTimeout: a.config.Server.HeaderTimeout,
		IdleTimeout:       a.config.Server.IdleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(a.log.With("component", "admin").Handler(), slog.LevelDebug),

		DisableGeneralOptionsHandler: true,
	}}
	return nil
}

// opensAdmin says whether anybody may use the admin listener: operators by a token or, of this machine, without one, and other routers.
// What it lets in here has to be served by wireAdmin, and under listen.admin_tls: one condition for both.
func (c *Config) opensAdmin(open bool) bool {
	return open || len(c.Identity.AdminTokens) > 0 || len(c.Identity.ValidationTokens) > 0 || c.judgesOperators()
}

// beside puts the door for other routers, where there is one, on its path before the admin API.
func beside(operators http.Handler, door *userorg.Door) http.Handler {
	if door == nil {
		return operators
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == userorg.Path {
			door.ServeHTTP(w, r)
			return
		}
		operators.ServeHTTP(w, r)
	})
}

// listenAdmin opens the admin listener. With dev, where nobody chose the port, a taken one gives way to a free one.
func (a *App) listenAdmin(dev bool) (net.Listener, error) {
	address := a.config.Listen.Admin
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", address)
	if err == nil {
		return listener, nil
	}
	taken := errors.Is(err, syscall.EADDRINUSE)
	if host, _, cut := net.SplitHostPort(address); dev && taken && cut == nil {
		free, err := new(net.ListenConfig).Listen(context.Background(), "tcp", net.JoinHostPort(host, "0"))
		if err == nil {
			a.log.Warn("another process has the port of the admin listener: it takes a free one", "wanted", address, "address", free.Addr().String())
			return free, nil
		}
	}
	reason := err.Error()
	if taken {
		reason = "another process has this port"
	}
	ways := "listen.admin in the configuration, API_ROUTER_LISTEN_ADMIN or --admin-listen"
	if dev {
		ways = "--admin-listen"
	}
	return nil, fmt.Errorf("the admin listener cannot open %s: %s; choose another address with %s", address, reason, ways)
}

// serveAdmin serves the admin API until the process stops. It ends after the public listener, so that a drain can be watched.
func (a *App) serveAdmin() {
	o := a.operators
	if o == nil {
		return
	}
	a.loop("admin tokens", o.tokens.run)
	if o.admins != nil {
		a.loop("admins", o.admins.Run)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := serve(o.server, o.listener); !errors.Is(err, http.ErrServerClosed) {
			a.fail(fmt.Errorf("admin listener: %w", err))
		}
	}()
	a.onStop("admin listener", func(ctx context.Context) error {
		finish, cancel := context.WithTimeout(ctx, adminWait)
		defer cancel()
		if o.server.Shutdown(finish) != nil {
			_ = o.server.Close() // Whoever is left has had their time.
		}
		select {
		case <-done:
		case <-ctx.Done():
		}
		return nil
	})
	a.log.Info("admin listener open", "address", o.listener.Addr().String())
}

// closing closes a listener that may be closed already: Serve does that, too.
func closing(listener net.Listener) func(context.Context) error {
	return func(context.Context) error {
		if err := listener.Close(); !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	}
}
