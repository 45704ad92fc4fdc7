package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/app"
)

// maxFingerprints is the largest file of fingerprints, in bytes: some half a million.
const maxFingerprints = 64 << 20

func keyCommand(p app.Process, env map[string]string) *cobra.Command {
	c := &cobra.Command{
		Use:   "key",
		Short: "Make keys; list, change, rotate, revoke, import or delete them",
		Long: `Make the keys that clients send, and end them. A key is shown once, when it is made: the state book keeps a digest, and nobody can ask for
the key again. Commands name a key by its id, the eight characters after "ar_", never by the key.`,
		Example: `  api-router key create --org acme --name checkout --model "gpt-oss-*" --expires 90d
  api-router key list --org acme
  api-router key update --org acme 1a2B3c4D --model gpt-oss-20b --clear network
  api-router key rotate --org acme 1a2B3c4D --grace 24h
  api-router key revoke --org acme 1a2B3c4D --reason "it was in a public repository"`,
	}
	c.AddCommand(keyCreateCommand(p, env), keyListCommand(p, env), keyGetCommand(p, env), keyUpdateCommand(p, env), keyRotateCommand(p, env),
		keyRevokeCommand(p, env), keyDeleteCommand(p, env), keyImportCommand(p, env))
	return c
}

// ownerFlag adds --org, which every command about keys and projects needs.
func ownerFlag(c *cobra.Command, noun string) *string {
	organization := c.Flags().String("org", "", "`ORGANIZATION` that the "+noun+" belongs to")
	if err := c.MarkFlagRequired("org"); err != nil {
		panic(noun + ": " + err.Error()) // The flag was added a line above.
	}
	return organization
}

// oneKey wants exactly one id.
func oneKey(verb string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != 1 {
			return fmt.Errorf("name one key by its id: api-router key %s --org ORGANIZATION KEY; \"api-router key list\" lists them", verb)
		}
		return noKey(args[0])
	}
}

// noKey refuses a key where its id is meant.
func noKey(id string) error {
	if strings.HasPrefix(id, "ar_") {
		return errors.New("this is a key, and a command line is kept in histories and lists of processes: name it by its id, the eight characters after \"ar_\"")
	}
	return nil
}

// signatures are what --signed can be.
var signatures = []string{"optional", "required"}

// scopeFlags are those that say what keys may do.
type scopeFlags struct {
	scopes           adminapi.Scopes
	project, expires string
	tags             []string
}

func addScopeFlags(c *cobra.Command, signs bool) *scopeFlags {
	s := &scopeFlags{}
	f := c.Flags()
	f.StringVar(&s.project, "project", "", "`ID` of the organization's project that it is for")
	f.StringArrayVar(&s.scopes.Models, "model", nil, "`MODEL` that it may use, or the beginning of names and *; may be given several times (default: all of its organization)")
	f.StringArrayVar(&s.scopes.Endpoints, "endpoint", nil, "`PATH` that it may use, as in /v1/embeddings; may be given several times (default: all)")
	f.StringArrayVar(&s.scopes.Networks, "network", nil, "`NETWORK` that it may be used from, as in 10.0.0.0/8; may be given several times (default: everywhere)")
	f.StringVar(&s.expires, "expires", "", "when it ends: in a `TIME` such as 90d or 12h, or at one such as 2027-01-31 or 2027-01-31T12:00:00Z (default: never)")
	f.Int64Var(&s.scopes.MaxTokens, "max-tokens", 0, "`N` of tokens at most in an answer, where the request names no bound; 0: the backend's own")
	f.StringArrayVar(&s.tags, "tag", nil, "`NAME=VALUE` that stands in its usage records; may be given several times")
	f.BoolVar(&s.scopes.Priority, "priority", false, "let it set the header x-priority")
	offer(c, "endpoint", adminapi.Endpoints()...)
	notEmpty(c, "project", "expires")
	if signs {
		f.StringVar(&s.scopes.Signature, "signed", "", "give it a secret to sign requests with; `HOW` is optional or required")
		offer(c, "signed", signatures...)
		notEmpty(c, "signed")
	}
	return s
}

// read gives the scopes and the end that the flags name.
func (s *scopeFlags) read(now time.Time) (adminapi.Scopes, time.Time, error) {
	for _, tag := range s.tags {
		name, value, ok := strings.Cut(tag, "=")
		if !ok || name == "" {
			return s.scopes, time.Time{}, fmt.Errorf("--tag %q is not of the form NAME=VALUE", tag)
		}
		if s.scopes.Tags == nil {
			s.scopes.Tags = map[string]string{}
		}
		s.scopes.Tags[name] = value
	}
	end, err := readEnd(s.expires, now)
	return s.scopes, end, err
}

// readEnd reads a length such as 90d, a day or a moment.
func readEnd(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if length, err := readLength(text); err == nil {
		return now.Add(length).UTC().Truncate(time.Second), nil
	}
	for _, form := range []string{time.RFC3339, time.DateOnly} {
		if end, err := time.Parse(form, text); err == nil {
			return end, nil
		}
	}
	return time.Time{}, fmt.Errorf("--expires %q is neither a time such as 90d or 12h, nor a date such as 2027-01-31 or 2027-01-31T12:00:00Z", text)
}

var errLength = errors.New("a length of time is above 0, and written as in 90d, 12h or 30m")

// readLength reads a duration, or a number of days.
func readLength(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.Atoi(days)
		if err != nil || n <= 0 || n > 100*366 {
			return 0, errLength
		}
		return time.Duration(n) * 24 * time.Hour, nil
	}
	length, err := time.ParseDuration(text)
	if err != nil || length <= 0 {
		return 0, errLength
	}
	return length, nil
}

// span is a flag that takes what readLength reads.
type span time.Duration

func (s *span) Set(text string) error {
	length, err := readLength(text)
	*s = span(length)
	return err
}

func (s *span) String() string {
	if *s == 0 {
		return "" // Help shows no default.
	}
	return time.Duration(*s).String()
}

func (s *span) Type() string { return "duration" }

func keyCreateCommand(p app.Process, env map[string]string) *cobra.Command {
	c := &cobra.Command{
		Use: "create --org ORGANIZATION", Short: "Make a key",
		Long: `Make a key and print it, this once. Without restrictions it may use every model of its organization, from everywhere, for ever.`,
		Example: `  api-router key create --org acme --name checkout
  api-router key create --org acme --model "gpt-oss-*" --endpoint /v1/chat/completions --network 10.0.0.0/8 --expires 90d --max-tokens 512 --tag team=shop
  api-router key create --org acme -o json | jq -r .secret`,
		Args: noArguments,
	}
	organization, s := ownerFlag(c, "key"), addScopeFlags(c, true)
	name := c.Flags().String("name", "", "what people call it")
	reason := c.Flags().String("reason", "", "why, for the audit")
	return operate(p, env, c, func(o *operation, api *adminapi.Client, _ []string) error {
		scopes, end, err := s.read(time.Now())
		if err != nil {
			return err
		}
		made, err := api.CreateKey(o.Context(), *organization, adminapi.KeyRequest{
			Project: s.project, Name: *name, Scopes: scopes, ExpiresAt: end, Reason: *reason,
		})
		if err != nil {
			return err
		}
		return o.newKey(&made, "")
	}).withOutput().Command
}

// newKey shows a key, once.
func (o *operation) newKey(made *adminapi.NewKey, more string) error {
	if o.output != asTable {
		return o.print(made)
	}
	text := fmt.Sprintf("key %s of organization %s is created; this is the only time that it is shown:\n\n  %s\n\n", made.ID, made.Organization, made.Secret)
	if made.SigningSecret != "" {
		text += fmt.Sprintf("Its requests are signed with this secret, which is shown this once, too:\n\n  %s\n\n", made.SigningSecret)
	}
	text += "Keep it where secrets are kept. Whoever has it can use it; if it is lost or known, \"api-router key rotate\" and \"api-router key revoke\" help.\n"
	return o.printf("%s", text+more)
}

func keyListCommand(p app.Process, env map[string]string) *cobra.Command {
	c := &cobra.Command{
		Use: "list --org ORGANIZATION", Short: "List the keys of an organization",
		Long: `List the keys of an organization by id: what they may do, until when, and when they were used last, to a minute or so. Where a key
may do much, the table has the beginning of that; "api-router key get", -o yaml and -o json have all of it.`,
		Args: noArguments, Example: `  api-router key list --org acme`,
	}
	organization, pages := ownerFlag(c, "key"), addPageFlags(c, "keys")
	return operate(p, env, c, func(o *operation, api *adminapi.Client, _ []string) error {
		items, next, err := gather(pages.after, pages.limit, func(after string, limit int) ([]adminapi.Key, string, error) {
			found, err := api.Keys(o.Context(), *organization, after, limit)
			return found.Items, found.Next, err
		})
		switch {
		case err != nil:
			return err
		case o.output != asTable:
			return o.print(adminapi.Keys{Items: items, Next: next})
		case len(items) == 0:
			return o.printf("Organization %[1]s has no such keys; \"api-router key create --org %[1]s\" makes one.\n", *organization)
		}
		rows := make([][]string, 0, len(items))
		for i := range items {
			k := &items[i]
			rows = append(rows, []string{k.ID, k.Name, k.Project, k.State, may(&k.Scopes), when(k.ExpiresAt), when(k.LastUsedAt), when(k.CreatedAt), k.CreatedBy})
		}
		return o.part([]string{"ID", "NAME", "PROJECT", "STATE", "MAY", "EXPIRES", "LAST USED", "CREATED", "BY"}, rows, follows, next)
	}).withOutput().Command
}

// may is what a key may do, in a few words.
func may(s *adminapi.Scopes) string {
	var words []string
	for _, list := range [][]string{s.Models, s.Endpoints, s.Networks} {
		const most = 2
		if len(list) > most {
			list = append(slices.Clone(list[:most]), fmt.Sprintf("and %d more", len(list)-most))
		}
		words = append(words, list...)
	}
	if s.Signature != "" {
		words = append(words, "signed: "+s.Signature)
	}
	if words == nil {
		return "everything"
	}
	return strings.Join(words, ", ")
}

func keyRotateCommand(p app.Process, env map[string]string) *cobra.Command {
	c := &cobra.Command{
		Use: "rotate --org ORGANIZATION KEY", Short: "Make a key that takes the place of another",
		Long: `Make a key with the same project, name, scopes and end as another, and print it, this once. Both work until the grace is over; then the other
is refused as expired.`,
		Example: `  api-router key rotate --org acme 1a2B3c4D --grace 24h`, Args: oneKey("rotate"),
	}
	organization := ownerFlag(c, "key")
	grace := c.Flags().String("grace", "24h", "how long the other key works on, as `TIME` such as 24h or 7d")
	reason := c.Flags().String("reason", "", "why, for the audit")
	return operate(p, env, c, func(o *operation, api *adminapi.Client, args []string) error {
		length, err := readLength(*grace)
		if err != nil {
			return fmt.Errorf("--grace: %w; to end a key at once, revoke it", err)
		}
		made, err := api.RotateKey(o.Context(), *organization, args[0], adminapi.Rotation{Grace: adminapi.Duration(length), Reason: *reason}, nil)
		if err != nil {
			return err
		}
		return o.newKey(&made, fmt.Sprintf("Key %s works on for %s at most.\n", args[0], *grace))
	}).withOutput().Command
}

func keyRevokeCommand(p app.Process, env map[string]string) *cobra.Command {
	c := &cobra.Command{
		Use: "revoke --org ORGANIZATION KEY", Short: "End a key for good",
		Long:    `Refuse a key with 401 from now on, on every router within five seconds. What runs may finish. It cannot be undone.`,
		Example: `  api-router key revoke --org acme 1a2B3c4D --reason "it was in a public repository"`, Args: oneKey("revoke"),
	}
	organization := ownerFlag(c, "key")
	reason := c.Flags().String("reason", "", "why, for the audit")
	return operate(p, env, c, func(o *operation, api *adminapi.Client, args []string) error {
		k, err := api.RevokeKey(o.Context(), *organization, args[0], adminapi.If{Reason: *reason})
		if err != nil {
			return err
		}
		return o.printf("key %s of organization %s is revoked\n", k.ID, k.Organization)
	}).Command
}

func keyImportCommand(p app.Process, env map[string]string) *cobra.Command {
	c := &cobra.Command{
		Use: "import --org ORGANIZATION -f FILE", Short: "Import keys of another service, by their SHA-256",
		Long: `Import keys of another service, which keep working as they are. A line of the file is the SHA-256 of a key, in hexadecimal digits or base64, and
after a space its name, if it has one; empty lines and those that begin with # mean nothing. What is imported already is left as it is, so that a
command that was interrupted can be run again. Never put keys themselves into the file.`,
		Example: `  api-router key import --org acme -f fingerprints.txt --expires 90d
  printf %s "$OLD_KEY" | sha256sum | cut -d" " -f1 | api-router key import --org acme -f -`,
		Args: noArguments,
	}
	organization, s := ownerFlag(c, "key"), addScopeFlags(c, false)
	file := c.Flags().StringP("file", "f", "", "`FILE` with a SHA-256 on each line; - is the standard input")
	reason := c.Flags().String("reason", "", "why, for the audit")
	return operate(p, env, c, func(o *operation, api *adminapi.Client, _ []string) error {
		if *file == "" {
			return errors.New("name the file with -f FILE, or -f - for the standard input")
		}
		text, err := o.input(*file, maxFingerprints)
		if err != nil {
			return err
		}
		scopes, end, err := s.read(time.Now())
		if err != nil {
			return err
		}
		prints, lines := fingerprints(text, s.project, scopes, end)
		if len(prints) == 0 {
			return fmt.Errorf("there is no SHA-256 in %s", called(*file))
		}
		var total adminapi.Imported
		for some := range slices.Chunk(prints, adminapi.MaxFingerprints) {
			done, err := api.ImportKeys(o.Context(), *organization, adminapi.Import{Keys: some, Reason: *reason})
			if err != nil {
				return fmt.Errorf("after %d keys were imported: %w", total.Imported, inLines{err, lines})
			}
			lines = lines[len(some):]
			total.Imported, total.Known = total.Imported+done.Imported, total.Known+done.Known
		}
		return o.printf("imported: %d, there already: %d\n", total.Imported, total.Known)
	}).Command
}

// fingerprints reads an import, and the number of the line that each is on. What is wrong with one is said by the server.
func fingerprints(text []byte, project string, scopes adminapi.Scopes, end time.Time) (found []adminapi.Fingerprint, lines []int) {
	read := bufio.NewScanner(bytes.NewReader(text))
	read.Buffer(nil, len(text)+1)
	for number := 1; read.Scan(); number++ {
		line := strings.TrimSpace(read.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		digest, name, _ := strings.Cut(line, " ")
		found = append(found, adminapi.Fingerprint{SHA256: digest, Name: strings.TrimSpace(name), Project: project, Scopes: scopes, ExpiresAt: end})
		lines = append(lines, number)
	}
	return found, lines
}

// inLines is an error of an import that names lines of the file where the server names places in what it was sent.
type inLines struct {
	error
	lines []int
}

var sentKey = regexp.MustCompile(`keys\[(\d+)\]\.?`)

func (e inLines) Error() string {
	return sentKey.ReplaceAllStringFunc(e.error.Error(), func(place string) string {
		if i, err := strconv.Atoi(sentKey.FindStringSubmatch(place)[1]); err == nil && i < len(e.lines) {
			return fmt.Sprintf("line %d, ", e.lines[i])
		}
		return place
	})
}

func (e inLines) Unwrap() error { return e.error }
