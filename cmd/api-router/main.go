// Command api-router is an OpenAI-compatible router in front of inference servers that you run yourself.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	_ "time/tzdata" // For an image without files: TZ works there,

	_ "golang.org/x/crypto/x509roots/fallback" // and so do certificates. Where the system has roots, those hold alone.

	"github.com/ai-aas/api-router/internal/app"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run turns arguments and signals into a command, and its error into an exit code: 0 done, 1 failed.
func run(args []string, stdout, stderr io.Writer) int {
	ctx, process, release := catch(stdout, stderr)
	defer release()
	root := newRoot(process, app.Environ(os.Environ()))
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if !errors.Is(err, app.ErrFound) && !errors.Is(err, app.ErrLogged) { // Both were said already.
		for line := range strings.Lines(err.Error()) {
			fmt.Fprintln(stderr, "api-router: "+strings.TrimRight(oneLine(line), " "))
		}
	}
	return 1
}

// catch turns signals into values, here and nowhere else. The first SIGINT or SIGTERM ends the context, which begins the drain;
// the second asks for the end at once; a third meets the operating system's own way. SIGHUP asks for a reload.
func catch(stdout, stderr io.Writer) (context.Context, app.Process, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	force, reload := make(chan struct{}), make(chan struct{}, 1)
	end, hangup := make(chan os.Signal, 2), make(chan os.Signal, 1)
	signal.Notify(end, os.Interrupt, syscall.SIGTERM)
	signal.Notify(hangup, syscall.SIGHUP)
	done := make(chan struct{})
	go func() {
		var ends <-chan os.Signal = end // The variable end belongs to the release.
		for ended := 0; ; {
			select {
			case <-done:
				return
			case <-hangup:
				select {
				case reload <- struct{}{}:
				default: // One is already due.
				}
			case <-ends:
				if ended++; ended == 1 {
					cancel()
					continue
				}
				signal.Stop(end)
				close(force)
				ends = nil
			}
		}
	}()
	process := app.Process{Version: version(), Stdout: stdout, Stderr: stderr, Reload: reload, Force: force}
	return ctx, process, func() {
		signal.Stop(hangup)
		signal.Stop(end)
		close(done)
		cancel()
	}
}
