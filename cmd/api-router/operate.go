package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/app"
	"github.com/ai-aas/api-router/internal/policy"
)

// The environment variables that say which router is operated. They are no settings of a router.
const (
	envAdminURL   = "API_ROUTER_ADMIN_URL"
	envAdminToken = "API_ROUTER_ADMIN_TOKEN"
)

// The forms of output.
const (
	asTable = "table"
	asYAML  = "yaml"
	asJSON  = "json"
)

// operation is a command that asks the admin API.
type operation struct {
	*cobra.Command
	stdin  io.Reader
	stdout io.Writer
	env    map[string]string

	server, token, output string
}

// operate makes a command out of c, with the flags that say which router is meant.
func operate(p app.Process, env map[string]string, c *cobra.Command, run func(o *operation, api *adminapi.Client, args []string) error) *operation {
	o := &operation{Command: c, stdin: os.Stdin, stdout: p.Stdout, env: env}
	f := c.Flags()
	f.StringVar(&o.server, "server", cmp.Or(env[envAdminURL], "http://127.0.0.1:8082"), "`URL` of the router's admin listener ["+envAdminURL+"]")
	f.StringVar(&o.token, "token", "", "where the admin token is: `REF` is env:NAME or file:PATH, never the token itself ["+envAdminToken+" holds the token]")
	c.RunE = func(_ *cobra.Command, args []string) error {
		if o.output != "" && !slices.Contains([]string{asTable, asYAML, asJSON}, o.output) {
			return fmt.Errorf("-o: %q is none of table, yaml, json", o.output)
		}
		token, err := o.secret()
		if err != nil {
			return err
		}
		api, err := adminapi.New(adminapi.Options{Server: o.server, Token: token})
		if err != nil {
			return fmt.Errorf("--server: %w", err)
		}
		return run(o, api, args)
	}
	return o
}

// withOutput adds -o.
func (o *operation) withOutput() *operation {
	o.Flags().StringVarP(&o.output, "output", "o", asTable, "`FORM` of the output: table, yaml or json")
	return o
}

// secret reads the admin token.
func (o *operation) secret() (string, error) {
	if o.token == "" {
		return strings.TrimSpace(o.env[envAdminToken]), nil
	}
	ref, err := policy.ParseSecretRef(o.token)
	if err != nil {
		return "", fmt.Errorf("--token %w", err)
	}
	token, err := ref.Resolve()
	if err != nil {
		return "", fmt.Errorf("--token: %w", err)
	}
	return token, nil
}

func (o *operation) printf(format string, args ...any) error {
	_, err := fmt.Fprintf(o.stdout, format, args...)
	return err
}

// print writes v as JSON or YAML.
func (o *operation) print(v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("print the answer: %w", err)
	}
	if o.output == asYAML {
		if text, err = yaml.JSONToYAML(text); err != nil {
			return fmt.Errorf("print the answer: %w", err)
		}
	}
	return o.printf("%s\n", strings.TrimSpace(string(text)))
}

// table writes rows under their heads, which are in capitals.
func (o *operation) table(head []string, rows [][]string) error {
	w := tabwriter.NewWriter(o.stdout, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{head}, rows...) {
		for i, cell := range row {
			row[i] = oneLine(cmp.Or(cell, "-"))
		}
		if _, err := fmt.Fprintln(w, strings.Join(row, "\t")); err != nil {
			return err
		}
	}
	return w.Flush()
}

// oneLine keeps a terminal from obeying what stands in a document.
func oneLine(text string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f || c >= 0x80 && c < 0xa0 {
			return ' '
		}
		return c
	}, text)
}

// when is a time as a person at a terminal reads it.
func when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

// writing is the documents of all files, one after the other, and where each line of that comes from.
type writing struct {
	text  []byte
	files []written
}

type written struct {
	name  string
	first int // its first line in the text, from 1
}

// read takes files, directories and - for the standard input.
func (o *operation) read(paths []string) (*writing, error) {
	if len(paths) == 0 {
		return nil, fmt.Errorf("name the documents with -f FILE, -f DIRECTORY or -f - for the standard input")
	}
	w := &writing{}
	for _, path := range paths {
		files, err := documentsAt(path)
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			if err := w.add(file, o.stdin); err != nil {
				return nil, err
			}
		}
	}
	return w, nil
}

// documentsAt lists the files that a path means.
func documentsAt(path string) ([]string, error) {
	if path == "-" {
		return []string{path}, nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); !strings.HasPrefix(e.Name(), ".") && slices.Contains([]string{".yaml", ".yml", ".json"}, ext) && !e.IsDir() {
			files = append(files, filepath.Join(path, e.Name()))
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s holds no file *.yaml, *.yml or *.json", path)
	}
	return files, nil
}

func (w *writing) add(name string, stdin io.Reader) error {
	source := stdin
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return err
		}
		defer func() { _ = file.Close() }() // It was only read.
		source = file
	} else {
		name = "standard input"
	}
	text, err := io.ReadAll(io.LimitReader(source, policy.MaxFile+1))
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if len(text) > policy.MaxFile {
		return fmt.Errorf("%s is larger than %d MiB", name, policy.MaxFile>>20)
	}
	text = []byte(strings.TrimPrefix(string(text), "\uFEFF"))
	if len(w.text) > 0 {
		w.text = append(w.text, "---\n"...)
	}
	w.files = append(w.files, written{name, 1 + strings.Count(string(w.text), "\n")})
	w.text = append(w.text, text...)
	if len(text) > 0 && text[len(text)-1] != '\n' {
		w.text = append(w.text, '\n')
	}
	return nil
}

// locate turns a problem's place in the text into one in a file.
func (w *writing) locate(p adminapi.Problem) adminapi.Problem {
	for _, f := range slices.Backward(w.files) {
		if p.Line >= f.first && p.Line > 0 {
			p.Place, p.Line = f.name, p.Line-f.first+1
			return p
		}
	}
	return p
}

// complain prints the problems that keep documents from being used, and says whether there were any.
func (w *writing) complain(o *operation, problems []adminapi.Problem) error {
	for _, p := range problems {
		if _, err := fmt.Fprintln(o.ErrOrStderr(), oneLine(w.locate(p).String())); err != nil {
			return err
		}
	}
	if len(problems) == 0 {
		return nil
	}
	return fmt.Errorf("nothing was written: %d problems in the documents, see above", len(problems))
}
