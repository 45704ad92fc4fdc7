package app

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

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
	current  atomic.Pointer[tokenList]
}

// tokenList is what was read at a time.
type tokenList struct {
	at       time.Time
	valid    []admin.Token
	problems map[string]trouble // by name
}

// trouble is what is wrong with something, and since when.
type trouble struct {
	text  string
	since time.Time
}

// troubles gives each text the time since which there is one, from those known before.
func troubles(texts map[string]string, before map[string]trouble) map[string]trouble {
	now := make(map[string]trouble, len(texts))
	for name, text := range texts {
		since := time.Now()
		if was, ok := before[name]; ok {
			since = was.since
		}
		now[name] = trouble{text, since}
	}
	return now
}

func newTokens(log *slog.Logger, settings []AdminToken) *tokens {
	t := &tokens{log: log, settings: settings}
	t.current.Store(&tokenList{})
	t.read()
	return t
}

// list is what is valid now.
func (t *tokens) list() []admin.Token { return t.current.Load().valid }

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
	before := t.current.Load().problems
	for name, problem := range problems {
		if before[name].text != problem {
			t.log.Error("an admin token does not work", "name", name, "error", problem)
		}
	}
	for name := range before {
		if problems[name] == "" {
			t.log.Info("an admin token works again", "name", name)
		}
	}
	t.current.Store(&tokenList{time.Now(), valid, troubles(problems, before)})
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
