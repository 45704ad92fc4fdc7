package policy

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestAmountsAreReadExactly(t *testing.T) {
	good := map[string]USD{
		"0": 0, "0.10": 100_000, "0.4": 400_000, "0.000001": 1, "1": dollar, "12.345678": 12_345_678, "1000000": maxRate, "0.0": 0,
	}
	for text, want := range good {
		for _, written := range []string{text, `"` + text + `"`} {
			var got USD
			if err := json.Unmarshal([]byte(written), &got); err != nil || got != want {
				t.Errorf("%s: %d, %v", written, got, err)
			}
		}
	}
	for _, text := range []string{
		"", " 1", "-1", "-0", "+1", "1.", ".5", "0.0000001", "1e3", "0x10", "1_000", "01", "1,5", "1000000.000001", "99999999999999999999", "$1", "0.1 ", "NaN", "1.-5", "1.+5",
	} {
		var got USD
		if err := got.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is read as %s", text, got)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		amount := USD(rapid.Int64Range(0, int64(maxRate)).Draw(t, "amount"))
		content, err := json.Marshal(amount)
		must(t, err)
		var again USD
		if err := json.Unmarshal(content, &again); err != nil || again != amount {
			t.Fatalf("%d is written %s and read %d, %v", amount, content, again, err)
		}
		if text := amount.String(); strings.Contains(text, ".") && strings.HasSuffix(text, "0") {
			t.Fatal(text)
		}
	})
}

func TestPricesAreRead(t *testing.T) {
	tests := []struct {
		name, rates string
		want        Rates
		written     string
	}{
		{"all four", "{input: 0.10, cached_input: 0.05, output: 0.40, reasoning: 0.60}", Rates{100_000, 50_000, 400_000, 600_000}, `{"input":0.1,"cached_input":0.05,"output":0.4,"reasoning":0.6}`},
		{"what follows", `{input: "0.10", output: 2}`, Rates{100_000, 100_000, 2 * dollar, 2 * dollar}, `{"input":0.1,"output":2}`},
		{"nothing for what is cached", `{input: 0.10, cached_input: 0, output: 0}`, Rates{100_000, 0, 0, 0}, `{"input":0.1,"cached_input":0,"output":0}`},
		{"null is left out", `{input: 0.10, cached_input: null, output: 0, reasoning: ~}`, Rates{100_000, 100_000, 0, 0}, `{"input":0.1,"output":0}`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			text := "kind: Price\nid: p\nmodel: gpt-oss-20b\nvalid_from: 2026-01-01T02:00:00+02:00\nusd_per_million: " + test.rates
			documents := read(t, text)
			want := Price{"p", "gpt-oss-20b", time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), test.want}
			if diff := cmp.Diff(want, *documents[0].Price); diff != "" {
				t.Error(diff)
			}
			content, err := JSON(documents[0])
			if want := `{"kind":"Price","id":"p","model":"gpt-oss-20b","valid_from":"2026-01-01T00:00:00Z","usd_per_million":` + test.written + `}`; err != nil || string(content) != want {
				t.Errorf("got  %s\nwant %s; %v", content, want, err)
			}
			roundTrip(t, documents[0])
			table := Compile(Snapshot{Documents: documents}, nil)
			if got := table.Prices(); len(got) != 1 || got[0].USDPerMillion != test.want || len(table.Problems()) > 0 {
				t.Error(got, table.Problems())
			}
		})
	}
}

func TestPricesMustBeRight(t *testing.T) {
	text := func(validFrom, rates string) string {
		return "kind: Price\nid: p\nmodel: m\nvalid_from: " + validFrom + "\nusd_per_million: " + rates + "\n"
	}
	const day, rule = "2026-01-01T00:00:00Z", " must be an amount in US dollars from 0 to 1000000 with at most 6 decimals, such as 0.40"
	checkProblems(t, []problemCase{
		{"nothing", "kind: Price\nid: p\n", []string{
			"f:1:1: Price p: model is missing or empty",
			"f:1:1: Price p: usd_per_million.input is missing: write 0 where such tokens cost nothing",
			"f:1:1: Price p: usd_per_million.output is missing: write 0 where such tokens cost nothing",
			"f:1:1: Price p: valid_from is missing: write when the price begins, as in 2026-01-01T00:00:00Z",
		}},
		{"a day is no time", text("2026-01-01", "{input: 1, output: 1}"), []string{
			"f:4:13: Price p: valid_from must be a time with its zone, such as 2026-01-01T00:00:00Z",
		}},
		{"a year that cannot be written", text("9999-12-31T23:59:59-01:00", "{input: 1, output: 1}"), []string{
			"f:4:13: Price p: valid_from must be between the years 1970 and 9999",
		}},
		{"amounts", text(day, "{input: -1, cached_input: 0.0000001, output: 1e3, reasoning: yes}"), []string{
			"f:5:26: Price p: usd_per_million.input" + rule,
			"f:5:44: Price p: usd_per_million.cached_input" + rule,
			"f:5:63: Price p: usd_per_million.output" + rule,
			"f:5:79: Price p: usd_per_million.reasoning" + rule,
		}},
		{"not amounts", text(day, "{input: [1], output: true}"), []string{
			"f:5:26: Price p: usd_per_million.input must be text",
			"f:5:39: Price p: usd_per_million.output must be text: put it in quotes",
		}},
		{"no rates", text(day, "7"), []string{"f:5:18: Price p: usd_per_million must hold fields, as in {a: b}"}},
		{"unknown fields", text(day, "{input: 1, output: 1, chached_input: 1}") + "currency: EUR\n", []string{
			`f:5:40: Price p: unknown field "chached_input" in usd_per_million; did you mean cached_input?`,
			`f:6:1: Price p: unknown field "currency"`,
		}},
	})
}

func TestAModelHasOnePriceAtATime(t *testing.T) {
	price := func(id, from, input string) string {
		return "---\nkind: Price\nid: " + id + "\nmodel: m\nvalid_from: " + from + "\nusd_per_million: {input: " + input + ", output: 1}\n"
	}
	first := price("a", "2026-01-01T00:00:00Z", "1") + price("b", "2026-02-01T00:00:00Z", "2")
	table := Compile(Snapshot{Documents: read(t, first+price("c", "2026-01-01T01:00:00+01:00", "3"))}, nil)
	want := []string{`a.yaml:14: Price c: model "m" has a price from 2026-01-01T00:00:00Z on already: price a at a.yaml:2`}
	if diff := cmp.Diff(want, said(table)); diff != "" || len(table.Prices()) != 2 {
		t.Error(diff, table.Prices())
	}
	// A price that comes to clash keeps its last good version, unless that clashes too.
	table = Compile(Snapshot{Documents: read(t, first+price("c", "2026-03-01T00:00:00Z", "3"))}, nil)
	table = Compile(Snapshot{Documents: read(t, first+price("c", "2026-01-01T00:00:00Z", "4"))}, table.documents)
	if c, found := table.Find(KindPrice, "c"); !found || c.Price.USDPerMillion.Input != 3*dollar || !table.Problems()[0].Serving {
		t.Error(found, said(table))
	}
	table = Compile(Snapshot{Documents: read(t, first+price("d", "2026-03-01T00:00:00Z", "5")+price("c", "2026-01-01T00:00:00Z", "4"))}, table.documents)
	if _, found := table.Find(KindPrice, "c"); found || table.Problems()[0].Serving {
		t.Error("two prices for one time", said(table))
	}
}
