package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/app"
)

// cleared are what --clear takes away, by the flag that sets it.
var cleared = map[string]func(*adminapi.KeyChange){
	"project":    func(k *adminapi.KeyChange) { k.Project = adminapi.To("") },
	"name":       func(k *adminapi.KeyChange) { k.Name = adminapi.To("") },
	"model":      func(k *adminapi.KeyChange) { k.Scopes.Models = adminapi.To[[]string](nil) },
	"endpoint":   func(k *adminapi.KeyChange) { k.Scopes.Endpoints = adminapi.To[[]string](nil) },
	"network":    func(k *adminapi.KeyChange) { k.Scopes.Networks = adminapi.To[[]string](nil) },
	"expires":    func(k *adminapi.KeyChange) { k.ExpiresAt = adminapi.To(time.Time{}) },
	"max-tokens": func(k *adminapi.KeyChange) { k.Scopes.MaxTokens = adminapi.To[int64](0) },
	"tag":        func(k *adminapi.KeyChange) { k.Scopes.Tags = adminapi.To[map[string]string](nil) },
	"priority":   func(k *adminapi.KeyChange) { k.Scopes.Priority = adminapi.To(false) },
	"signed":     func(k *adminapi.KeyChange) { k.Scopes.Signature = adminapi.To("") },
}

// changeFlags say what is to change of a key.
type changeFlags struct {
	scopeFlags

	name  string
	clear []string
}

func addChangeFlags(c *cobra.Command) *changeFlags {
	s := &changeFlags{}
	f := c.Flags()
	f.StringVar(&s.name, "name", "", "what people call it from now on")
	f.StringVar(&s.project, "project", "", "`ID` of the organization's project that it is for from now on")
	f.StringArrayVar(&s.scopes.Models, "model", nil, "`MODEL` that it may use from now on, or the beginning of names and *; several times for more: they replace those of before")
	f.StringArrayVar(&s.scopes.Endpoints, "endpoint", nil, "`PATH` that it may use from now on, as in /v1/embeddings; several times for more: they replace those of before")
	f.StringArrayVar(&s.scopes.Networks, "network", nil, "`NETWORK` from where it may be used from now on, as in 10.0.0.0/8; several times for more: they replace those of before")
	f.StringVar(&s.expires, "expires", "", "when it ends: in a `TIME` from now such as 90d or 12h, or at one such as 2027-01-31 or 2027-01-31T12:00:00Z")
	f.Int64Var(&s.scopes.MaxTokens, "max-tokens", 0, "`N` of tokens at most in an answer, where the request names no bound; 0: the backend's own")
	f.StringArrayVar(&s.tags, "tag", nil, "`NAME=VALUE` that stands in its usage records; several times for more: they replace those of before")
	f.BoolVar(&s.scopes.Priority, "priority", false, "let it set the header x-priority; --priority=false forbids it")
	f.StringVar(&s.scopes.Signature, "signed", "", "whether its requests are signed: `HOW` is optional or required; a key that has no secret to sign with gets one, which is shown once")
	f.StringArrayVar(&s.clear, "clear", nil, "take away what this `FLAG` sets, as in --clear model (every model) or --clear expires (for ever); may be given several times")
	offer(c, "clear", slices.Sorted(maps.Keys(cleared))...)
	offer(c, "endpoint", adminapi.Endpoints()...)
	offer(c, "signed", signatures...)
	return s
}

// change reads what the flags of c name. What they do not name stays.
func (s *changeFlags) change(c *cobra.Command, now time.Time) (k adminapi.KeyChange, err error) {
	scopes, end, err := s.read(now)
	if err != nil {
		return k, err
	}
	for flag, set := range map[string]func(){
		"project":    func() { k.Project = adminapi.To(s.project) },
		"name":       func() { k.Name = adminapi.To(s.name) },
		"model":      func() { k.Scopes.Models = adminapi.To(scopes.Models) },
		"endpoint":   func() { k.Scopes.Endpoints = adminapi.To(scopes.Endpoints) },
		"network":    func() { k.Scopes.Networks = adminapi.To(scopes.Networks) },
		"expires":    func() { k.ExpiresAt = adminapi.To(end) },
		"max-tokens": func() { k.Scopes.MaxTokens = adminapi.To(scopes.MaxTokens) },
		"tag":        func() { k.Scopes.Tags = adminapi.To(scopes.Tags) },
		"priority":   func() { k.Scopes.Priority = adminapi.To(scopes.Priority) },
		"signed":     func() { k.Scopes.Signature = adminapi.To(scopes.Signature) },
	} {
		if !c.Flags().Changed(flag) {
			continue
		}
		if c.Flags().Lookup(flag).Value.String() == "" { // An empty variable of a script must not open a key.
			return k, fmt.Errorf("--%[1]s is empty; --clear %[1]s takes away what there is", flag)
		}
		set()
	}
	for _, flag := range s.clear {
		take, ok := cleared[flag]
		switch {
		case !ok:
			return k, fmt.Errorf("--clear %q is none of %s", flag, strings.Join(slices.Sorted(maps.Keys(cleared)), ", "))
		case c.Flags().Changed(flag):
			return k, fmt.Errorf("--%[1]s and --clear %[1]s do not go together", flag)
		}
		take(&k)
	}
	if k.Project.There || k.Name.There || k.ExpiresAt.There || !k.Scopes.IsZero() {
		return k, nil
	}
	return k, errors.New("name what is to change, as in --model MODEL or --clear expires; --help lists it")
}

func keyUpdateCommand(p app.Process, env map[string]string) *cobra.Command {
	c := &cobra.Command{
		Use: "update --org ORGANIZATION KEY", Short: "Change what a key may do, what it is called, or when it ends",
		Long: `Change a key. What is not named stays as it is; --clear FLAG takes away what that flag sets. Clients keep the key that they have, and every router acts
by the change within five seconds. A key that begins to sign (--signed) gets a signing secret, which is printed this once; one that signs no more
(--clear signed) loses it. A key that has expired works again with a later --expires; one that was rotated can only end
earlier, and one that is revoked stays so.`,
		Example: `  api-router key update --org acme 1a2B3c4D --model gpt-oss-20b --model "qwen3-*"
  api-router key update --org acme 1a2B3c4D --clear model --clear network
  api-router key update --org acme 1a2B3c4D --project shop --expires 90d --reason "moves to the shop"`,
		Args: oneKey("update"),
	}
	organization, flags := ownerFlag(c, "key"), addChangeFlags(c)
	reason := c.Flags().String("reason", "", "why, for the audit")
	return operate(p, env, c, func(o *operation, api *adminapi.Client, args []string) error {
		change, err := flags.change(o.Command, time.Now())
		if err != nil {
			return err
		}
		change.Reason = *reason
		changed, err := api.ChangeKey(o.Context(), *organization, args[0], change, nil)
		switch {
		case err != nil:
			return err
		case o.output != asTable:
			return o.print(changed)
		}
		if changed.SigningSecret != "" {
			err := o.printf("The requests of key %s are signed with this secret from now on; this is the only time that it is shown:\n\n  %s\n\n", changed.ID, changed.SigningSecret)
			if err != nil {
				return err
			}
		}
		return o.wholeKey(&changed.Key)
	}).withOutput().Command
}

func keyGetCommand(p app.Process, env map[string]string) *cobra.Command {
	c := &cobra.Command{
		Use: "get --org ORGANIZATION KEY", Short: "Show everything that is kept of a key",
		Long:    `Show everything that is kept of a key: all that it may do, until when, and when it was used last, to a minute or so. The key itself is kept nowhere.`,
		Example: `  api-router key get --org acme 1a2B3c4D`, Args: oneKey("get"),
	}
	organization := ownerFlag(c, "key")
	return operate(p, env, c, func(o *operation, api *adminapi.Client, args []string) error {
		k, err := api.Key(o.Context(), *organization, args[0])
		switch {
		case err != nil:
			return err
		case o.output != asTable:
			return o.print(k)
		}
		return o.wholeKey(&k)
	}).withOutput().Command
}

// wholeKey shows all that is kept of one.
func (o *operation) wholeKey(k *adminapi.Key) error {
	s := &k.Scopes
	var tags []string
	for _, name := range slices.Sorted(maps.Keys(s.Tags)) {
		tags = append(tags, name+"="+s.Tags[name])
	}
	bound := ""
	if s.MaxTokens > 0 {
		bound = strconv.FormatInt(s.MaxTokens, 10)
	}
	state := damaged(k.State, k.Damage)
	if k.RotatedTo != "" {
		state += ", " + k.RotatedTo + " takes its place"
	}
	if k.Imported {
		state += ", imported"
	}
	return o.whole([][]string{
		{"ID", k.ID},
		{"Organization", k.Organization},
		{"Project", k.Project},
		{"Name", k.Name},
		{"State", state},
		{"Models", cmp.Or(strings.Join(s.Models, ", "), "all")},
		{"Endpoints", cmp.Or(strings.Join(s.Endpoints, ", "), "all")},
		{"Networks", cmp.Or(strings.Join(s.Networks, ", "), "all")},
		{"Tokens at most", bound},
		{"Tags", strings.Join(tags, ", ")},
		{"May set x-priority", yes(s.Priority)},
		{"Signed", cmp.Or(s.Signature, "no")},
		{"Expires", cmp.Or(when(k.ExpiresAt), "never")},
		{"Revoked", when(k.RevokedAt)},
		{"Last used", when(k.LastUsedAt)},
		{"Created", strings.TrimSpace(when(k.CreatedAt) + " " + k.CreatedBy)},
		{"Revision", revision(k.Revision)},
	})
}

// damaged is a state with what cannot be read of the thing, if that is so.
func damaged(state, damage string) string {
	if damage != "" {
		state += ": " + damage
	}
	return state
}

func yes(is bool) string {
	if is {
		return "yes"
	}
	return "no"
}

func keyDeleteCommand(p app.Process, env map[string]string) *cobra.Command {
	c := &cobra.Command{
		Use: "delete --org ORGANIZATION KEY", Short: "Take a key that is revoked or expired out of the book",
		Long: `Take a key that is revoked or expired out of the book, for good: it is listed no more, and a client that still sends it reads that it is unknown.
The audit keeps what it was. A key that is in force is revoked first.`,
		Example: `  api-router key delete --org acme 1a2B3c4D --reason "revoked a year ago"`, Args: oneKey("delete"),
	}
	organization := ownerFlag(c, "key")
	reason := c.Flags().String("reason", "", "why, for the audit")
	return operate(p, env, c, func(o *operation, api *adminapi.Client, args []string) error {
		gone, err := api.DeleteKey(o.Context(), *organization, args[0], adminapi.If{Reason: *reason})
		if err != nil {
			return err
		}
		return o.printf("key %s of organization %s is deleted\n", gone.ID, gone.Organization)
	}).Command
}
