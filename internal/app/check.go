package app

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/ai-aas/api-router/internal/policy"
)

// ErrFound says that check or doctor found something that needs a person; what it is has been printed.
var ErrFound = errors.New("something needs attention")

// Check validates a configuration and documents offline and prints every problem at once, one a line, to out.
//
// Without files, the documents are those that the configuration names. It returns ErrFound when there is any problem.
func Check(out io.Writer, sources Sources, files []string) error {
	failed := false
	config, notes, err := Load(sources)
	switch problems := AsProblems(err); {
	case problems != nil:
		failed = true
		fmt.Fprintln(out, problems)
	case err != nil:
		return err
	default:
		name := sources.File
		if name == "" {
			name = "defaults and environment"
		}
		fmt.Fprintf(out, "configuration: ok (%s)\n", name)
	}
	for _, n := range notes {
		fmt.Fprintf(out, "note: %s%s\n", n.Message, attrText(n))
	}
	if len(files) == 0 {
		if failed {
			return ErrFound // Where the documents are is not known.
		}
		if source := config.Policy.Source; source != SourceFile {
			fmt.Fprintf(out, "documents: not checked, because those in the policy source %s are not read offline; name files with -f, or ask doctor\n", source)
			return nil
		}
		files = []string{config.Policy.File.Path}
	}
	snapshot, err := read(files, config.Backends)
	if err != nil {
		return err
	}
	table := policy.Compile(snapshot, nil)
	for _, p := range table.Problems() {
		fmt.Fprintln(out, p)
	}
	fmt.Fprintf(out, "documents: %s are good, %d problems (%s)\n", counted(table), len(table.Problems()), snapshot.Origin)
	if len(table.Prices()) > 0 {
		fmt.Fprintln(out, "note: prices are kept and shown; nothing is charged by them in this version")
	}
	if failed || len(table.Problems()) > 0 {
		return ErrFound
	}
	return nil
}

// read loads all documents that a configuration names, as serve would see them.
func read(files []string, endpoints []Endpoint) (policy.Snapshot, error) {
	var all policy.Snapshot
	for i, file := range files {
		snapshot, err := policy.Load(file)
		if err != nil {
			return all, fmt.Errorf("%w; name it with -f, policy.file.path, API_ROUTER_POLICY_FILE_PATH or --policies", err)
		}
		if i > 0 {
			snapshot.Origin = all.Origin + ", " + snapshot.Origin
		}
		all = policy.Snapshot{
			Documents: append(all.Documents, snapshot.Documents...),
			Problems:  append(all.Problems, snapshot.Problems...),
			Origin:    snapshot.Origin,
		}
	}
	return withExtra(all, endpoints), nil
}

// withExtra adds the backends that the configuration itself names, unless there are documents of the same names.
func withExtra(all policy.Snapshot, endpoints []Endpoint) policy.Snapshot {
	for _, extra := range documents(endpoints) {
		if !slices.ContainsFunc(all.Documents, func(d policy.Document) bool { return d.Kind() == extra.Kind() && d.ID() == extra.ID() }) {
			all.Documents = append(all.Documents, extra)
		}
	}
	return all
}

// counted says how many documents of each kind are in force: of prices and marks only where there are any.
func counted(t *policy.Table) string {
	backends, policies := many(len(t.Backends()), "backend", "backends"), many(t.Routes(), "policy", "policies")
	prices, marks := len(t.Prices()), len(t.Marks())
	if prices+marks == 0 {
		return backends + " and " + policies
	}
	return fmt.Sprintf("%s, %s, %s and %s", backends, policies, many(prices, "price", "prices"), many(marks, "mark", "marks"))
}

// many counts things in words.
func many(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}

// attrText shows a note's details to a person.
func attrText(n Note) string {
	var text strings.Builder
	for _, a := range n.Attrs {
		fmt.Fprintf(&text, " %s=%v", a.Key, a.Value)
	}
	return text.String()
}
