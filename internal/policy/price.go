package policy

import (
	"errors"
	"strconv"
	"strings"
	"time"
)

// Price is what the tokens of a model cost from a time on. Prices are read, checked and shown; nothing is charged by them in this version.
type Price struct {
	ID            string    `json:"id"`
	Model         string    `json:"model"`
	ValidFrom     time.Time `json:"valid_from"`
	USDPerMillion Rates     `json:"usd_per_million"`
}

// Rates are the prices of the classes of tokens, in US dollars for a million of them. A document that leaves CachedInput out
// means Input, and one that leaves Reasoning out means Output.
type Rates struct {
	Input       USD `json:"input"`
	CachedInput USD `json:"cached_input"`
	Output      USD `json:"output"`
	Reasoning   USD `json:"reasoning"`
}

// USD is an amount in millionths of a US dollar, written as a decimal number such as 0.40.
type USD int64

const (
	dollar  USD = 1_000_000
	maxRate     = 1_000_000 * dollar
	// unset stands for a rate that is left out. It cannot be written.
	unset USD = -1
)

var errUSD = errors.New("must be an amount in US dollars from 0 to 1000000 with at most 6 decimals, such as 0.40")

func (p *Price) fill() { p.USDPerMillion = Rates{unset, unset, unset, unset} }

// check reports what is wrong with p itself, and puts in the rates that follow from others.
func (p *Price) check(f flaws) {
	f.form("id", p.ID, idForm, idRule)
	f.form("model", p.Model, modelForm, modelRule)
	if p.ValidFrom.IsZero() {
		f.addf("valid_from", "valid_from is missing: write when the price begins, as in 2026-01-01T00:00:00Z")
	} else {
		f.moment("valid_from", &p.ValidFrom)
	}
	r := &p.USDPerMillion
	f.rate("usd_per_million.input", &r.Input, nil)
	f.rate("usd_per_million.output", &r.Output, nil)
	f.rate("usd_per_million.cached_input", &r.CachedInput, &r.Input)
	f.rate("usd_per_million.reasoning", &r.Reasoning, &r.Output)
}

// lean takes out the rates that follow from others.
func (r *Rates) lean() {
	if r.CachedInput == r.Input {
		r.CachedInput = unset
	}
	if r.Reasoning == r.Output {
		r.Reasoning = unset
	}
}

func (f flaws) rate(path string, value, otherwise *USD) {
	switch {
	case *value == unset && otherwise != nil:
		*value = *otherwise
	case *value == unset:
		f.addf(path, "%s is missing: write 0 where such tokens cost nothing", path)
	case *value < 0 || *value > maxRate:
		f.addf(path, "%s %s", path, errUSD)
	}
}

// UnmarshalText reads a decimal number, exactly.
func (u *USD) UnmarshalText(text []byte) error {
	whole, decimals, point := strings.Cut(string(text), ".")
	if point && decimals == "" || len(decimals) > 6 || leadingZero(whole) {
		return errUSD
	}
	dollars, err := strconv.ParseUint(whole, 10, 32)
	if err != nil {
		return errUSD
	}
	millionths, err := strconv.ParseUint((decimals + "000000")[:6], 10, 32)
	if err != nil {
		return errUSD
	}
	amount := USD(dollars)*dollar + USD(millionths)
	if amount > maxRate {
		return errUSD
	}
	*u = amount
	return nil
}

// UnmarshalJSON reads a number, or text that holds one.
func (u *USD) UnmarshalJSON(text []byte) error {
	if string(text) == "null" {
		return nil
	}
	return u.UnmarshalText([]byte(strings.Trim(string(text), `"`)))
}

// MarshalJSON writes a number.
func (u USD) MarshalJSON() ([]byte, error) { return []byte(u.String()), nil }

// String is the amount as a decimal number, with no more decimals than it needs: 0.4.
func (u USD) String() string {
	sign := ""
	if u < 0 {
		sign, u = "-", -u
	}
	text := sign + strconv.FormatInt(int64(u/dollar), 10)
	if rest := u % dollar; rest != 0 {
		text += "." + strings.TrimRight(strconv.FormatInt(int64(rest+dollar), 10)[1:], "0")
	}
	return text
}

// Prices lists all prices in force, sorted by id: of one model also those that are over or not yet valid.
func (t *Table) Prices() []Price {
	return all(t, KindPrice, func(d Document) Price { return *d.Price })
}
