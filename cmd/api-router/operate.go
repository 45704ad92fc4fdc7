package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/app"
	"github.com/ai-aas/api-router/internal/policy"
)

// The environment variables that say which router is operated. They are no settings of a router.
const (
	envAdminURL   = "API_ROUTER_ADMIN_URL"
	envAdminToken = "API_ROUTER_ADMIN_TOKEN"
	envAdminCA    = "API_ROUTER_ADMIN_CA"
	envAdminCert  = "API_ROUTER_ADMIN_CERT"
	envAdminKey   = "API_ROUTER_ADMIN_KEY"
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
	ca, cert, key         string // files
}

// operate makes a command out of c, with the flags that say which router is meant.
func operate(p app.Process, env map[string]string, c *cobra.Command, run func(o *operation, api *adminapi.Client, args []string) error) *operation {
	o := &operation{Command: c, stdin: os.Stdin, stdout: p.Stdout, env: env}
	f := c.Flags()
	f.StringVar(&o.server, "server", cmp.Or(env[envAdminURL], "http://127.0.0.1:8082"), "`URL` of the router's admin listener ["+envAdminURL+"]")
	f.StringVar(&o.token, "token", "", "where the admin token is: `REF` is env:NAME or file:PATH, never the token itself ["+envAdminToken+" holds the token]")
	f.StringVar(&o.ca, "ca", env[envAdminCA], "PEM `FILE` of the authorities of an https:// server's certificate; without one the system's hold ["+envAdminCA+"]")
	f.StringVar(&o.cert, "client-cert", env[envAdminCert], "PEM `FILE` of the certificate to show to a server that wants one ["+envAdminCert+"]")
	f.StringVar(&o.key, "client-key", env[envAdminKey], "PEM `FILE` of the key of --client-cert ["+envAdminKey+"]")
	c.RunE = func(_ *cobra.Command, args []string) error {
		if o.output != "" && !slices.Contains([]string{asTable, asYAML, asJSON}, o.output) {
			return fmt.Errorf("-o: %q is none of table, yaml, json", o.output)
		}
		token, err := o.secret()
		if err != nil {
			return err
		}
		api, err := adminapi.New(adminapi.Options{Server: o.server, Token: token, CA: o.ca, Cert: o.cert, Key: o.key})
		if err != nil {
			return fmt.Errorf("--server: %w", err)
		}
		return advise(run(o, api, args))
	}
	return o
}

// advise adds to an error what to do about it at this command line.
func advise(err error) error {
	if refusal, ok := errors.AsType[*adminapi.Error](err); ok {
		switch {
		case refusal.Code == "missing_api_key":
			return fmt.Errorf("%w; it is taken from %s, or from where --token env:NAME or --token file:PATH says", err, envAdminToken)
		case refusal.Code == "not_found" && strings.Contains(refusal.Message, adminapi.EndpointChat):
			return fmt.Errorf("%w; that is the public listener: --server or %s must name listen.admin", err, envAdminURL)
		}
		return err
	}
	if failed, ok := errors.AsType[*net.OpError](err); ok && failed.Op == "dial" {
		return fmt.Errorf("%w; is the router running, with identity.admin_tokens, and is this its listen.admin? --server or %s says where to look", err, envAdminURL)
	}
	return err
}

// withOutput adds -o.
func (o *operation) withOutput() *operation {
	o.Flags().StringVarP(&o.output, "output", "o", asTable, "`FORM` of the output: table, yaml or json")
	offer(o.Command, "output", asTable, asYAML, asJSON)
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
	if o.output != asYAML {
		return o.printf("%s\n", escaped(string(text)))
	}
	lines, err := toYAML(text)
	if err != nil {
		return fmt.Errorf("print the answer: %w", err)
	}
	return o.printf("%s\n", lines)
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

// whole writes everything that is kept of one thing, field by field.
func (o *operation) whole(fields [][]string) error {
	return o.table([]string{"FIELD", "VALUE"}, fields)
}

// oneLine keeps a terminal from obeying what stands in a document, and from turning it around.
func oneLine(text string) string {
	return strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
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
