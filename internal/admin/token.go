package admin

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"hash/maphash"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/fault"
)

// ladder are the roles in order: each may do what those before it may. The auditor stands beside it.
var ladder = []string{adminapi.RoleViewer, adminapi.RoleOperator, adminapi.RoleAdmin}

// roles are all that there are.
var roles = append(slices.Clone(ladder), adminapi.RoleAuditor)

// access says who may use a route: on the ladder everybody from a role on, and the auditor where that is said. The zero value is nobody.
type access struct {
	from    string
	auditor bool
}

// What routes ask for.
var (
	viewer   = access{from: adminapi.RoleViewer}
	operator = access{from: adminapi.RoleOperator}
	admin    = access{from: adminapi.RoleAdmin}
	// overseer is for who may do what.
	overseer = access{from: adminapi.RoleAdmin, auditor: true}
	// reviewer is for what tells of changes and of the state of things.
	reviewer = access{from: adminapi.RoleViewer, auditor: true}
)

func (a access) String() string {
	if a.auditor {
		return a.from + " or " + adminapi.RoleAuditor
	}
	return a.from
}

// Token lets its bearer in. It holds a digest: the token itself is not kept.
type Token struct {
	name, role string
	digest     [sha256.Size]byte
}

// NewToken gives the bearer of token a name, which stands in the history of what they change, and a role of package adminapi.
// Its errors do not hold the token.
func NewToken(name, role, token string) (Token, error) {
	switch {
	case name == "":
		return Token{}, fmt.Errorf("an admin token has no name")
	case !slices.Contains(roles, role):
		return Token{}, fmt.Errorf("the role of the admin token %s is none of %s", name, strings.Join(roles, ", "))
	case token == "":
		return Token{}, fmt.Errorf("the admin token %s is empty", name)
	}
	return Token{name, role, sha256.Sum256([]byte(token))}, nil
}

// actor is who asks.
type actor struct{ name, role string }

func (a actor) may(use access) bool {
	if a.role == adminapi.RoleAuditor {
		return use.auditor
	}
	least := slices.Index(ladder, use.from)
	return least >= 0 && slices.Index(ladder, a.role) >= least
}

// login finds out who asks. On a page, where a browser has no Bearer, the password of HTTP Basic is the token, whatever the user name.
func (a *Admin) login(r *http.Request, page bool) (actor, error) {
	from := remote(r)
	if a.Open {
		return openDoor(r, from)
	}
	ways := "as Authorization: Bearer TOKEN"
	if page {
		ways += ", or in a browser as the password, whatever the user name"
	}
	values := r.Header.Values("Authorization")
	if len(values) == 0 {
		return actor{}, fault.New(fault.MissingAPIKey, "authentication required: send an admin token "+ways)
	}
	if len(values) > 1 {
		return actor{}, fault.New(fault.AmbiguousRequest, "the Authorization header is there more than once").WithParam("Authorization")
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	switch _, password, basic := r.BasicAuth(); {
	case strings.EqualFold(scheme, "Bearer"):
	case page && basic:
		token = password
	default:
		return actor{}, fault.New(fault.InvalidAPIKey, "this scheme of Authorization is not known here: send an admin token "+ways)
	}
	digest := sha256.Sum256([]byte(strings.TrimSpace(token)))
	var found actor
	for _, t := range a.Tokens() { // All of them, whichever fits: the time tells nothing.
		if subtle.ConstantTimeCompare(digest[:], t.digest[:]) == 1 {
			found = actor{t.name, t.role}
		}
	}
	if found.name != "" {
		return found, nil
	}
	who, err := a.known(r.Context(), strings.TrimSpace(token), ways)
	if err == nil || fault.From(err).Status() != http.StatusUnauthorized {
		return who, err
	}
	if wait := a.guesses.wrong(from, time.Now()); wait > 0 {
		return actor{}, fault.New(fault.RateLimitExceeded, "this admin token is not known here, and many such came from this address: correct it before you send it again").
			WithRetryAfter(wait)
	}
	return actor{}, err
}

// strongest are the roles that a signed token may give, the one that is taken of several first.
var strongest = []string{adminapi.RoleAdmin, adminapi.RoleOperator, adminapi.RoleViewer, adminapi.RoleAuditor}

// bearer is the login of who shows a signed token.
func (a *Admin) bearer(ctx context.Context, token string) (actor, error) {
	name, given, err := a.Bearer(ctx, token)
	if err != nil {
		return actor{}, err
	}
	for _, role := range strongest {
		if slices.Contains(given, role) {
			return actor{name, role}, nil
		}
	}
	return actor{}, fault.New(fault.PermissionDenied, "this token is genuine and gives no role here: see roles_claim and roles of identity.jwt")
}

// openDoor is the login of the mode without tokens. A web page can make a browser resolve its own name to a loopback
// address and then ask us as if it were us: only requests that name a loopback host are let in.
func openDoor(r *http.Request, from netip.Addr) (actor, error) {
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	named, err := netip.ParseAddr(strings.Trim(host, "[]"))
	if !from.IsLoopback() || !strings.EqualFold(host, "localhost") && (err != nil || !named.IsLoopback()) {
		return actor{}, fault.New(fault.PermissionDenied, "without admin tokens the admin API answers this machine alone, asked as localhost or 127.0.0.1")
	}
	return actor{"dev", adminapi.RoleAdmin}, nil
}

// remote is the address that a request came from; the zero value if it is not known.
func remote(r *http.Request) netip.Addr {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return at.Addr().Unmap()
}

const (
	guessBurst = 10              // wrong tokens that an address may send at once
	guessEvery = 2 * time.Second // and then one in this time
)

// guesses tell clients with a wrong token to slow down, by the address that they come from. A right token is let in whatever its
// address has sent: behind a proxy all share one, and a poller with an old token must not keep an operator from the kill switch. What
// keeps a token from being guessed is its length.
//
// Addresses share a fixed number of places by a secret hash: it never grows, and nobody can choose whom to share with.
type guesses struct {
	seed  maphash.Seed
	mu    sync.Mutex
	until [1024]time.Time // when the place has paid for all its wrong tokens
}

func (g *guesses) place(from netip.Addr) *time.Time {
	if from.Is6() {
		if network, err := from.Prefix(64); err == nil { // A host has a whole /64 to change its address in.
			from = network.Addr()
		}
	}
	return &g.until[maphash.Comparable(g.seed, from)%uint64(len(g.until))]
}

// wrong takes note of a wrong token and returns 0, or how long the address has to wait before the next.
func (g *guesses) wrong(from netip.Addr, now time.Time) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	until := g.place(from)
	if until.Before(now) {
		*until = now
	}
	if wait := until.Sub(now) - (guessBurst-1)*guessEvery; wait > 0 {
		return wait
	}
	*until = until.Add(guessEvery)
	return 0
}
