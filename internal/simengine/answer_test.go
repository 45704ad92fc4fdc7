package simengine

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

const aPrompt = "<|user|>\nHow do bridges carry trucks?\n<|assistant|>\n"

var plenty = bounds{most: 100_000}

func (a *answer) tokens() []string {
	list := make([]string, len(a.ends))
	for i := range list {
		list[i] = a.piece(i)
	}
	return list
}

func TestAnswersDependOnWeightsPromptSeedAndChoice(t *testing.T) {
	seed := int64(7)
	v := newVoice(0, "m")
	texts := map[string]string{}
	for name, a := range map[string]answer{
		"base":   v.answer(aPrompt, len(aPrompt), plenty),
		"prompt": v.answer(" "+aPrompt, len(aPrompt)+1, plenty),
		"root":   newVoice(0, "other").answer(aPrompt, len(aPrompt), plenty),
		"engine": newVoice(1, "m").answer(aPrompt, len(aPrompt), plenty),
		"seed":   v.vary(&seed, 0).answer(aPrompt, len(aPrompt), plenty),
		"choice": v.vary(nil, 1).answer(aPrompt, len(aPrompt), plenty),
	} {
		if other, ok := texts[a.text]; ok {
			t.Errorf("%s and %s have the same answer", name, other)
		}
		texts[a.text] = name
	}
	if a := v.answer(aPrompt, len(aPrompt), plenty); texts[a.text] != "base" {
		t.Error("the second answer differs from the first")
	}
}

func TestAnswersAreOfModerateLengthAndEndInAFullStop(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		prompt := rapid.String().Draw(t, "prompt") + "\n"
		a := newVoice(0, "m").answer(prompt, len(prompt), plenty)
		if n := len(a.ends); n < 10 || n > 200 {
			t.Errorf("%d tokens", n)
		}
		if !strings.HasSuffix(a.text, ".") || a.finish != "stop" {
			t.Errorf("%q ends with %s", a.text, a.finish)
		}
	})
}

// TestContinuationIsTheRest cuts an answer anywhere, also inside a token, and lets another run go on from there: as a message
// to continue, where the start of the answer is known, and as a plain text, where it is not.
func TestContinuationIsTheRest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		words := rapid.SliceOfN(rapid.StringMatching(`[A-Za-z]{1,9}[ .?!\n]{1,2}`), 1, 12)
		base := strings.Join(words.Draw(t, "prompt"), "") + rapid.SampledFrom([]string{"", "\n", " ", " H", "The"}).Draw(t, "end")
		v := newVoice(rapid.Uint64().Draw(t, "weights"), "m")
		if rapid.Bool().Draw(t, "seeded") {
			seed := rapid.Int64().Draw(t, "seed")
			v = v.vary(&seed, 0)
		}
		from := 0
		if rapid.Bool().Draw(t, "known start") {
			from = len(base)
		}
		limits := bounds{most: rapid.IntRange(1, 300).Draw(t, "most"), ignoreEnd: rapid.Bool().Draw(t, "endless")}
		whole := v.answer(base, from, limits)
		list := whole.tokens()

		n := rapid.IntRange(0, len(list)-1).Draw(t, "cut")
		head := strings.Join(list[:n], "")
		rest := limits
		rest.most -= n
		got := v.answer(base+head, from, rest)
		if head+got.text != whole.text || n+len(got.ends) != len(list) || got.finish != whole.finish {
			t.Fatalf("cut after %d tokens\nwhole %q %s\nhead  %q\nrest  %q %s", n, whole.text, whole.finish, head, got.text, got.finish)
		}

		anywhere := rapid.IntRange(0, len(whole.text)).Draw(t, "byte")
		if got := v.answer(base+whole.text[:anywhere], from, plenty); !limits.ignoreEnd && whole.finish == "stop" && whole.text[:anywhere]+got.text != whole.text {
			t.Fatalf("cut after %d bytes of %q: %q", anywhere, whole.text, got.text)
		}
	})
}

func TestContinuationFromEveryByte(t *testing.T) {
	v := newVoice(0, "m")
	for _, base := range []string{"Tell me of rivers", "Tell me of rivers ", "Tell me of rivers\n", "Tell me T", "Überfluß"} {
		whole := v.answer(base, 0, plenty)
		for cut := range len(whole.text) + 1 {
			if got := v.answer(base+whole.text[:cut], 0, plenty); whole.text[:cut]+got.text != whole.text || got.finish != "stop" {
				t.Errorf("%q and %q go on with %q", base, whole.text[:cut], got.text)
			}
		}
	}
}

func TestContinuationPastTheNaturalEndStopsAtTheNextFullStop(t *testing.T) {
	v := newVoice(0, "m")
	natural := v.answer(aPrompt, len(aPrompt), plenty)
	endless := v.answer(aPrompt, len(aPrompt), bounds{most: 1000, ignoreEnd: true})
	said := endless.text[:len(natural.text)+10]
	got := v.answer(aPrompt+said, len(aPrompt), plenty)
	if !strings.HasPrefix(endless.text, said+got.text) || strings.Count(got.text, ".") != 1 || got.finish != "stop" {
		t.Errorf("%q goes on with %q", said, got.text)
	}
	if got := v.answer(aPrompt+natural.text, len(aPrompt), plenty); got.text != "" || len(got.ends) != 1 {
		t.Errorf("a finished answer goes on with %q", got.text)
	}
}

func TestBoundsOfAnAnswer(t *testing.T) {
	v := newVoice(0, "m")
	natural := v.answer(aPrompt, len(aPrompt), plenty)
	word := strings.Fields(natural.text)[3]
	until := natural.text[:strings.Index(natural.text, word)]
	for _, c := range []struct {
		name         string
		bounds       bounds
		text, finish string
		tokens       int // 0: any
	}{
		{"most", bounds{most: 3}, strings.Join(natural.tokens()[:3], ""), "length", 3},
		{"most is all but the end", bounds{most: len(natural.ends) - 1}, natural.text, "length", len(natural.ends) - 1},
		{"the end is a token", bounds{most: len(natural.ends)}, natural.text, "stop", len(natural.ends)},
		{"stop string", bounds{most: 1000, stops: []string{"no such text", word}}, until, "stop", 0},
		{"kept stop string", bounds{most: 1000, stops: []string{word}, keepStop: true}, until + word, "stop", 0},
		{"across tokens", bounds{most: 1000, stops: []string{natural.text[2:14]}}, natural.text[:2], "stop", 0},
	} {
		got := v.answer(aPrompt, len(aPrompt), c.bounds)
		if got.text != c.text || got.finish != c.finish || c.tokens != 0 && len(got.ends) != c.tokens {
			t.Errorf("%s: %q %s, %d tokens; want %q %s, %d", c.name, got.text, got.finish, len(got.ends), c.text, c.finish, c.tokens)
		}
		if joined := strings.Join(got.tokens(), ""); joined != got.text {
			t.Errorf("%s: tokens %q, text %q", c.name, joined, got.text)
		}
	}
	endless := v.answer(aPrompt, len(aPrompt), bounds{most: 500, ignoreEnd: true})
	if len(endless.ends) != 500 || endless.finish != "length" || !strings.HasPrefix(endless.text, natural.text) {
		t.Errorf("ignoring the end: %d tokens, %s", len(endless.ends), endless.finish)
	}
	longer := v.answer(aPrompt, len(aPrompt), bounds{most: 5000, least: 300})
	if n := len(longer.ends); n < 300 || n > 400 || longer.finish != "stop" {
		t.Errorf("at least 300: %d tokens, %s", n, longer.finish)
	}
}

func TestAnswersSpeakOfThePrompt(t *testing.T) {
	a := newVoice(0, "m").answer(aPrompt, len(aPrompt), plenty)
	if !strings.Contains(a.text, "bridges") && !strings.Contains(a.text, "trucks") {
		t.Errorf("%q", a.text)
	}
}

func BenchmarkAnswerToALongPrompt(b *testing.B) {
	prompt := strings.Repeat("Some words of a prompt. And More Of Them, ", 10_000)
	b.SetBytes(int64(len(prompt)))
	for b.Loop() {
		newVoice(0, "m").answer(prompt, 0, bounds{most: 16})
	}
}
