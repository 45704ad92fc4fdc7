// Command bench measures the router beside a plain nginx, a plain HAProxy and no proxy at all, on this machine, and writes the figures
// into bench/README.md. "make bench" runs it; -help lists its flags.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/ai-aas/api-router/bench/backend"
	"github.com/ai-aas/api-router/bench/proc"
	"github.com/ai-aas/api-router/bench/report"
	"github.com/ai-aas/api-router/bench/subject"
)

// backendCommand makes this program the backend in place of the harness: it follows the shapes' models and, last, the address.
const backendCommand = "backend"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := command(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1) //nolint:forbidigo // This is a main function.
	}
}

// command is the program: the harness, or one of its processes.
func command(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) > 1 && args[0] == backendCommand {
		return serveBackend(ctx, args[1:len(args)-1], args[len(args)-1])
	}
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	return bench(ctx, o, stdout, stderr)
}

func serveBackend(ctx context.Context, models []string, address string) error {
	shapes := make([]backend.Shape, len(models))
	for i, model := range models {
		var err error
		if shapes[i], err = backend.ParseModel(model); err != nil {
			return err
		}
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return backend.New(shapes...).Serve(ctx, l)
}

// options are the flags.
type options struct {
	programs map[string]string // by subject
	subjects []string
	plan     plan
	only     *regexp.Regexp
	out      string // page to write to; "" prints only
	micro    bool
}

func parse(args []string, stderr io.Writer) (*options, error) {
	o := &options{programs: map[string]string{}}
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(stderr)
	for name, program := range map[string]string{subject.Router: "bin/api-router", subject.Nginx: "nginx", subject.HAProxy: "haproxy"} {
		flagName := strings.TrimPrefix(strings.ToLower(name), "api-")
		f.Func(flagName, "the "+name+" `program` (default "+program+")", func(v string) error { o.programs[name] = v; return nil })
		o.programs[name] = program
	}
	all := strings.Join([]string{subject.Direct, subject.Router, subject.Nginx, subject.HAProxy}, ",")
	subjects := f.String("subjects", all, "what to measure, in a `list`")
	rounds := f.Int("rounds", 3, "how many interleaved rounds")
	quick := f.Bool("quick", false, "one short round that shows that everything works; writes no page unless -out is given")
	only := f.String("only", "", "only scenarios that match this regular `expression`; writes no page unless -out is given")
	out := f.String("out", "bench/README.md", "the `page` to write into, between its marks")
	compare := f.Bool("compare", false, "print the results and write no page")
	f.BoolVar(&o.micro, "micro", true, "run the micro-benchmarks too; the working directory must be the module's root")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("unknown argument %q", f.Arg(0))
	}
	var err error
	if o.only, err = regexp.Compile(*only); err != nil {
		return nil, fmt.Errorf("-only: %w", err)
	}
	o.plan = fullPlan
	o.plan.rounds = *rounds
	if *quick {
		o.plan = quickPlan
	}
	if *rounds < 1 {
		return nil, errors.New("-rounds: at least 1")
	}
	o.subjects = strings.Split(*subjects, ",")
	outGiven := false
	f.Visit(func(f *flag.Flag) { outGiven = outGiven || f.Name == "out" })
	if !*compare && (outGiven || !*quick && *only == "") {
		o.out = *out
	}
	return o, nil
}

// bench runs the whole benchmark.
func bench(ctx context.Context, o *options, stdout, stderr io.Writer) (err error) {
	b := &run{plan: o.plan, only: o.only, log: stderr, workers: runtime.GOMAXPROCS(0)}
	// The load must find a processor whenever the kernel gives it one, and should not spend its share on collecting garbage.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(max(4, 2*b.workers)))
	defer debug.SetGCPercent(debug.SetGCPercent(400))

	if err := proc.Available(); err != nil {
		b.skip("CPU and memory: %v", err)
	} else {
		b.accounting = true
	}
	for _, name := range o.subjects {
		s, err := subject.Find(ctx, name, o.programs[name])
		if err != nil {
			b.skip("%s: %v", name, err)
			continue
		}
		b.subjects = append(b.subjects, s)
		if name == subject.Router {
			b.variants = subject.Variants(s)
		}
	}
	if len(b.subjects) == 0 {
		return errors.New("there is nothing to measure")
	}
	if b.dir, err = os.MkdirTemp("", "api-router-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	if err := b.rounds(ctx); err != nil {
		return err
	}
	var micro []report.Micro
	if o.micro {
		if micro, err = b.microBenchmarks(ctx); err != nil {
			return err
		}
	}
	text := b.text(ctx, micro)
	fmt.Fprint(stdout, text)
	if b.failures > 0 {
		return fmt.Errorf("%d requests or streams failed, see above: these figures are not written anywhere", b.failures)
	}
	if o.out == "" {
		return nil
	}
	return report.Update(o.out, text)
}
