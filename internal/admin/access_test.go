package admin

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/fault"
)

// fill puts something into the places of a path.
func fill(path string) string {
	return adminapi.Prefix + strings.NewReplacer("{collection}", adminapi.Policies, "{id}", "p", "{organization}", "acme", "{project}", "web", "{key}", "00000000", "{admin}", "00000000").Replace(path)
}

func TestEveryRouteIsOpenToItsRoleAndThoseAboveAlone(t *testing.T) {
	h := newHouse(t)
	h.furnish()
	all := slices.Clone(h.routes)
	for i := range all {
		all[i].path = fill(all[i].path)
	}
	for _, page := range h.pages {
		if slices.Contains(page.query, "seconds") {
			page.path += "?seconds=0" // Whoever is let in is refused for that, at once.
		}
		all = append(all, page)
	}
	for _, r := range all {
		for who, want := range map[string]fault.Code{
			"nobody": fault.MissingAPIKey, "stranger": fault.InvalidAPIKey,
			adminapi.RoleViewer: "", adminapi.RoleOperator: "", adminapi.RoleAdmin: "", adminapi.RoleAuditor: "",
		} {
			t.Run(r.method+" "+r.path+" "+who, func(t *testing.T) {
				h.guesses.until = [1024]time.Time{} // This test is not about the pace of guessing.
				var headers []string
				if who == "stranger" {
					headers = []string{"Authorization", "Bearer viewer-token-012345678"}
				}
				if want == "" && !(actor{role: who}).may(r.access) {
					want = fault.PermissionDenied
				}
				// An empty body and a condition that does not hold keep whoever is let in from changing anything.
				if r.method == http.MethodDelete {
					headers = append(headers, "If-Match", `"999999"`)
				}
				got := h.send(who, r.method, r.path, "", headers...)
				refusals := []fault.Code{fault.MissingAPIKey, fault.InvalidAPIKey, fault.PermissionDenied}
				code := fault.Code(got.code())
				if want != "" && (code != want || got.StatusCode != want.Status()) {
					t.Errorf("%d %s, want %s", got.StatusCode, code, want)
				}
				for _, refusal := range refusals {
					if want == "" && code == refusal {
						t.Errorf("refused: %s", got.body)
					}
				}
				if challenge := got.Header.Get("WWW-Authenticate"); (challenge != "") != (got.StatusCode == http.StatusUnauthorized) {
					t.Errorf("WWW-Authenticate %q with %d", challenge, got.StatusCode)
				}
			})
		}
	}
}

func TestRolesRiseFromViewerToAdminAndTheAuditorStandsBeside(t *testing.T) {
	for role, may := range map[string][5]bool{
		adminapi.RoleViewer: {true, false, false, true, false}, adminapi.RoleOperator: {true, true, false, true, false},
		adminapi.RoleAdmin: {true, true, true, true, false}, adminapi.RoleAuditor: {false, false, false, true, false},
		"": {}, "root": {},
	} {
		for i, needed := range []access{viewer, operator, admin, reviewer, {}} {
			if got := (actor{role: role}).may(needed); got != may[i] {
				t.Errorf("%q may %v: %v", role, needed, got)
			}
		}
	}
}

func TestCredentialsAreReadStrictly(t *testing.T) {
	h := newHouse(t)
	good := "Bearer " + secrets[adminapi.RoleViewer]
	for name, tc := range map[string]struct {
		headers []string
		want    fault.Code
	}{
		"as it should be":        {[]string{"Authorization", good}, ""},
		"in another letter case": {[]string{"Authorization", "bearer" + good[6:]}, ""},
		"with spaces around":     {[]string{"Authorization", "Bearer   " + secrets[adminapi.RoleViewer]}, ""},
		"twice":                  {[]string{"Authorization", good, "Authorization", good}, fault.AmbiguousRequest},
		"another scheme":         {[]string{"Authorization", "Basic " + secrets[adminapi.RoleViewer]}, fault.InvalidAPIKey},
		"no scheme":              {[]string{"Authorization", secrets[adminapi.RoleViewer]}, fault.InvalidAPIKey},
		"an empty token":         {[]string{"Authorization", "Bearer "}, fault.InvalidAPIKey},
		"a token that goes on":   {[]string{"Authorization", good + "x"}, fault.InvalidAPIKey},
		"a header of a client":   {[]string{"X-API-Key", secrets[adminapi.RoleAdmin]}, fault.MissingAPIKey},
	} {
		t.Run(name, func(t *testing.T) {
			got := h.send("", http.MethodGet, adminapi.Prefix+"/fleet", "", tc.headers...)
			if fault.Code(got.code()) != tc.want {
				t.Errorf("%d %s, want %s", got.StatusCode, got.body, tc.want)
			}
		})
	}
	for _, secret := range secrets {
		if strings.Contains(h.log.String(), secret) {
			t.Error("a token is in the log")
		}
	}
}

func TestATokenThatIsTakenAwayWorksNoMore(t *testing.T) {
	all := tokens(t)()
	h := newHouse(t, func(o *Options) { o.Tokens = func() []Token { return all } })
	if got := h.send(adminapi.RoleAdmin, http.MethodGet, adminapi.Prefix+"/fleet", ""); got.StatusCode != http.StatusOK {
		t.Fatalf("%d", got.StatusCode)
	}
	all = nil
	if got := h.send(adminapi.RoleAdmin, http.MethodGet, adminapi.Prefix+"/fleet", ""); got.StatusCode != http.StatusUnauthorized {
		t.Errorf("%d", got.StatusCode)
	}
}

func TestTokensAreRefusedThatLetAnybodyIn(t *testing.T) {
	for name, args := range map[string][3]string{
		"no name": {"", adminapi.RoleAdmin, "secret"}, "no role": {"ops", "", "secret"}, "another role": {"ops", "root", "secret"},
		"no token": {"ops", adminapi.RoleAdmin, ""},
	} {
		if _, err := NewToken(args[0], args[1], args[2]); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// slowed guesses until that is slowed down. One more guess is paid for every two seconds: on a slow machine there are some among the refused.
func slowed(t *testing.T, guess func() response) {
	t.Helper()
	eventually(t, "guesses are slowed down", func() bool { return guess().StatusCode == http.StatusTooManyRequests })
}

func TestARightTokenIsLetInWhateverItsNeighboursSend(t *testing.T) {
	h := newHouse(t)
	slowed(t, func() response { // A poller with a token that was changed, behind the same proxy.
		return h.send("nobody", http.MethodGet, adminapi.Prefix+"/fleet", "", "Authorization", "Bearer of-old")
	})
	for role := range secrets {
		if got := h.send(role, http.MethodGet, adminapi.Prefix+"/status", ""); got.StatusCode != http.StatusOK {
			t.Errorf("%s: %d %s", role, got.StatusCode, got.body)
		}
	}
}

func TestWrongTokensAreSlowedByTheirAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := New(Options{Tokens: tokens(t)})
		login := func(from, token string) (fault.Code, time.Duration) {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.RemoteAddr = from
			r.Header.Set("Authorization", "Bearer "+token)
			_, err := a.login(r, false)
			if err == nil {
				return "", 0
			}
			return fault.CodeOf(err), fault.From(err).RetryAfter
		}
		for i := range guessBurst {
			if code, _ := login("192.0.2.1:1", "wrong"); code != fault.InvalidAPIKey {
				t.Fatalf("guess %d: %s", i, code)
			}
		}
		code, wait := login("192.0.2.1:2", "wrong")
		if code != fault.RateLimitExceeded || wait <= 0 || wait > guessEvery {
			t.Errorf("after the burst: %s, wait %s", code, wait)
		}
		if code, _ := login("198.51.100.7:1", "wrong"); code != fault.InvalidAPIKey {
			t.Errorf("another address: %s", code)
		}
		time.Sleep(wait)
		if code, _ := login("192.0.2.1:3", "wrong"); code != fault.InvalidAPIKey { // One more is paid for, and then the next wait begins.
			t.Errorf("after the wait: %s", code)
		}
		for range 3 {
			_, _ = login("192.0.2.1:4", "wrong")
		}
		if code, wait := login("192.0.2.1:5", "wrong"); code != fault.RateLimitExceeded || wait > guessEvery {
			t.Errorf("after more guesses: %s, wait %s", code, wait)
		}
		time.Sleep(guessBurst * guessEvery)
		for i := range guessBurst {
			if code, _ := login("192.0.2.1:6", "wrong"); code != fault.InvalidAPIKey {
				t.Fatalf("after a pause, guess %d: %s", i, code)
			}
		}
		for i := range guessBurst + 1 { // A host has a whole /64.
			code, _ = login("[2001:db8::"+string(rune('a'+i%6))+"]:1", "wrong")
		}
		if code != fault.RateLimitExceeded {
			t.Errorf("a network's guesses are not taken together: %s", code)
		}
	})
}

func TestTheOpenDoorAnswersItsOwnMachineAlone(t *testing.T) {
	h := newHouse(t, func(o *Options) { o.Open, o.Tokens = true, nil })
	for host, want := range map[string]int{
		"localhost": 200, "LOCALHOST:8082": 200, "127.0.0.1:8082": 200, "127.9.9.9": 200, "[::1]:8082": 200, "[::1]": 200,
		"attacker.example": 403, "attacker.example:8082": 403, "localhost.attacker.example": 403, "10.0.0.1:8082": 403, "0.0.0.0": 403,
		"127.0.0.1.attacker.example": 403, "localhost:8082@attacker.example": 403,
	} {
		if got := h.send("", http.MethodGet, adminapi.Prefix+"/fleet", "", "Host", host); got.StatusCode != want && got.StatusCode != http.StatusBadRequest {
			t.Errorf("asked as %s: %d %s", host, got.StatusCode, got.body)
		}
	}
	r := httptest.NewRequest(http.MethodGet, adminapi.Prefix+"/fleet", nil)
	r.Host, r.RemoteAddr = "localhost", "10.0.0.9:4711"
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusForbidden {
		t.Errorf("from another machine: %d", w.Code)
	}
	got := h.send("", http.MethodPut, adminapi.Prefix+"/backends/a", backendA)
	if got.StatusCode != http.StatusCreated {
		t.Fatalf("%d %s", got.StatusCode, got.body)
	}
	if history := h.send("", http.MethodGet, adminapi.Prefix+"/backends/a/history", ""); !strings.Contains(string(history.body), `"actor":"dev"`) {
		t.Errorf("%s", history.body)
	}
}

func TestPagesOfOtherOriginsChangeNothing(t *testing.T) {
	h := newHouse(t)
	for name, headers := range map[string][]string{
		"another site":   {"Sec-Fetch-Site", "cross-site", "Origin", "https://attacker.example"},
		"an old browser": {"Origin", "https://attacker.example"},
	} {
		if got := h.send(adminapi.RoleAdmin, http.MethodPut, adminapi.Prefix+"/backends/a", backendA, headers...); got.code() != string(fault.PermissionDenied) {
			t.Errorf("%s: %d %s", name, got.StatusCode, got.body)
		}
	}
	for name, headers := range map[string][]string{"no browser": nil, "the same origin": {"Sec-Fetch-Site", "same-origin"}} {
		if got := h.send(adminapi.RoleAdmin, http.MethodPut, adminapi.Prefix+"/backends/a", backendA, headers...); got.StatusCode >= 400 {
			t.Errorf("%s: %d %s", name, got.StatusCode, got.body)
		}
	}
}
