package app

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/ai-aas/api-router/internal/admin"
)

// minToken is the least length of an admin token, in bytes: shorter ones can be guessed.
const minToken = 16

// tokens are the admin tokens, read anew from time to time: their files change without a change of the configuration.
//
// A token that cannot be read does not work, also if it did before: whoever took it away may have meant that.
type tokens struct {
	log      *slog.Logger
	settings []AdminToken
	current  atomic.Pointer[[]admin.Token]
	problems map[string]string // by name; it belongs to read's caller
}

func newTokens(log *slog.Logger, settings []AdminToken) *tokens {
	t := &tokens{log: log, settings: settings, problems: map[string]string{}}
	t.read()
	return t
}

// list is what is valid now.
func (t *tokens) list() []admin.Token { return *t.current.Load() }

func (t *tokens) run(ctx context.Context) error {
	for {
		if pause(ctx, secretsEvery); ctx.Err() != nil {
			return nil
		}
		t.read()
	}
}

// read resolves every token. Each problem is logged when it appears and when it has gone.
func (t *tokens) read() {
	valid := make([]admin.Token, 0, len(t.settings))
	problems := map[string]string{}
	for _, s := range t.settings {
		token, err := s.resolve()
		if err != nil {
			problems[s.Name] = err.Error()
			continue
		}
		valid = append(valid, token)
	}
	for name, problem := range problems {
		if t.problems[name] != problem {
			t.log.Error("an admin token does not work", "name", name, "error", problem)
		}
	}
	for name := range t.problems {
		if problems[name] == "" {
			t.log.Info("an admin token works again", "name", name)
		}
	}
	t.problems = problems
	t.current.Store(&valid)
}

// resolve reads the token. The error holds nothing of it.
func (s AdminToken) resolve() (admin.Token, error) {
	text, err := s.Token.Resolve()
	if err != nil {
		return admin.Token{}, err
	}
	if len(text) < minToken {
		return admin.Token{}, fmt.Errorf("secret %s is shorter than %d bytes: make a new one, as with openssl rand -hex 32", s.Token, minToken)
	}
	return admin.NewToken(s.Name, s.Role, text)
}
