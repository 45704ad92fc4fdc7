package simengine

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestTokensAreWordPieces(t *testing.T) {
	for _, c := range []struct {
		text string
		want []string
	}{
		{"", nil},
		{"a bc", []string{"a", " bc"}},
		{"understanding", []string{"unders", "tandin", "g"}},
		{"one  two", []string{"one", "  two"}},
		{"a\nb\n\nc", []string{"a\n", "b\n\n", "c"}},
		{"日本語", []string{"日本", "語"}},
		{"\xff\xfe", []string{"\xff\xfe"}},
	} {
		if diff := cmp.Diff(c.want, slices.Collect(tokens(c.text))); diff != "" {
			t.Errorf("tokens(%q): %s", c.text, diff)
		}
	}
}

func TestTokensKeepTheText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.String().Draw(t, "text")
		var again strings.Builder
		for token := range tokens(text) {
			if len(token) > maxToken || !utf8.ValidString(token) {
				t.Fatalf("bad token %q", token)
			}
			back, err := tokenText(tokenID(token))
			if err != nil || back != token {
				t.Fatalf("token %q came back as %q, %v", token, back, err)
			}
			again.WriteString(back)
		}
		if again.String() != text {
			t.Fatalf("%q became %q", text, again.String())
		}
	})
}

func TestTokensStayWhenAWordIsAdded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`[a-z\n .]{0,40}[a-z.]`).Draw(t, "text")
		word := rapid.StringMatching(` [a-z]{1,20}`).Draw(t, "word")
		if got, want := countTokens(text+word), countTokens(text)+countTokens(word); got != want {
			t.Fatalf("%d tokens, want %d", got, want)
		}
	})
}

func TestTokenTextRefusesForeignIDs(t *testing.T) {
	for _, id := range []uint64{0, 1, 2, 255, 1 << 9, 1 << 63} {
		if text, err := tokenText(id); err == nil {
			t.Errorf("id %d gave %q", id, text)
		}
	}
}
