package policy

import (
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	maxName     = 256       // bytes of a model's name
	maxWeight   = 1_000_000 // of one backend in one policy
	maxTier     = 1_000
	maxAttempts = 20
	maxClamp    = 1<<31 - 1 // the largest number that a request's figures can have
	maxTimeout  = 24 * time.Hour
)

var (
	idForm    = regexp.MustCompile(`^[A-Za-z0-9._-]{1,128}$`)
	keyIDForm = regexp.MustCompile(`^[[:graph:]]{1,128}$`)
	modelForm = regexp.MustCompile(`^[A-Za-z0-9._:/@+-]{1,256}$`)
	labelForm = regexp.MustCompile(`^[A-Za-z0-9._/-]{1,128}$`)
	hostForm  = regexp.MustCompile(`^[A-Za-z0-9._:-]{1,253}$`)

	engines    = []string{"vllm", "sglang", "tgi", "llamacpp", "ollama", "openai", "anthropic"}
	strategies = []string{StrategyAdaptive, StrategyWeighted, StrategyRoundRobin, StrategyLeastLoaded, StrategySession}
)

const (
	idRule    = "must be 1 to 128 of the characters A-Z a-z 0-9 . _ -"
	modelRule = "must be 1 to 256 of the characters A-Z a-z 0-9 . _ : / @ + -"
)

// flaws collects what is wrong with one document. A path names a field as in "backends[2].weight".
type flaws struct {
	report func(path, message string)
}

func (f flaws) addf(path, format string, args ...any) { f.report(path, fmt.Sprintf(format, args...)) }

func (f flaws) form(path, value string, form *regexp.Regexp, rule string) {
	switch {
	case value == "":
		f.addf(path, "%s is missing or empty", path)
	case !form.MatchString(value):
		f.addf(path, "%s %s", path, rule)
	}
}

func (f flaws) oneOf(path, value string, known []string) {
	if !slices.Contains(known, value) {
		f.addf(path, "%s must be one of %s%s", path, strings.Join(known, ", "), suggest(value, known))
	}
}

func (f flaws) between(path string, value, low, high int) {
	if value < low || value > high {
		f.addf(path, "%s must be between %d and %d", path, low, high)
	}
}

func (f flaws) positive(path string, d Duration) {
	if d <= 0 || time.Duration(d) > maxTimeout {
		f.addf(path, "%s must be above 0s and at most %s", path, Duration(maxTimeout))
	}
}

// moment bounds a time to what can be written again, and brings it into UTC. The zero time is left alone.
func (f flaws) moment(path string, at *time.Time) {
	if at.IsZero() {
		return
	}
	*at = at.Round(0).UTC()
	if year := at.Year(); year < 1970 || year > 9999 {
		f.addf(path, "%s must be between the years 1970 and 9999", path)
	}
}

// check reports what is wrong with b itself and brings its URL into the normal form.
func (b *Backend) check(f flaws) {
	f.form("id", b.ID, idForm, idRule)
	if normal, err := normalURL(b.URL); err != nil {
		f.addf("url", "url %s", err)
	} else {
		b.URL = normal
	}
	f.oneOf("engine", b.Engine, engines)
	for _, public := range slices.Sorted(maps.Keys(b.Models)) {
		path := "models." + public
		if !modelForm.MatchString(public) {
			f.addf(path, "a public model name %s", modelRule)
		}
		if own := b.Models[public]; own == "" || len(own) > maxName || strings.ContainsFunc(own, isUnquotable) {
			f.addf(path, "the backend's own name of a model must be 1 to %d bytes without quotes, backslashes and control characters", maxName)
		}
	}
	f.between("max_concurrency", b.MaxConcurrency, 0, 1_000_000)
	f.positive("timeouts.connect", b.Timeouts.Connect)
	f.positive("timeouts.first_byte", b.Timeouts.FirstByte)
	f.positive("timeouts.between_bytes", b.Timeouts.BetweenBytes)
	f.positive("timeouts.total", b.Timeouts.Total)
	for _, name := range slices.Sorted(maps.Keys(b.Labels)) {
		if !labelForm.MatchString(name) {
			f.addf("labels."+name, "a label's name must be 1 to 128 of the characters A-Z a-z 0-9 . _ / -")
		}
		if v := b.Labels[name]; len(v) > 256 || strings.ContainsFunc(v, isControl) {
			f.addf("labels."+name, "a label's value must be at most 256 bytes without control characters")
		}
	}
	b.checkTLS(f)
}

func (b *Backend) checkTLS(f flaws) {
	if b.TLS == (TLS{}) {
		return
	}
	if !strings.HasPrefix(b.URL, "https://") {
		f.addf("tls", "tls is only for a backend whose url begins with https://")
	}
	pemFile := func(path, value string) {
		switch {
		case strings.Contains(value, "-----BEGIN"), strings.ContainsFunc(value, isControl):
			f.addf(path, "%s must be the path of a PEM file, not its content", path)
		case strings.HasPrefix(value, "file:"), strings.HasPrefix(value, "env:"):
			f.addf(path, "%s is the path of a PEM file: write it without file: or env:", path)
		}
	}
	pemFile("tls.ca", b.TLS.CA)
	pemFile("tls.cert", b.TLS.Cert)
	pemFile("tls.key", b.TLS.Key)
	if (b.TLS.Cert == "") != (b.TLS.Key == "") {
		f.addf("tls", "tls.cert and tls.key go together: write both or none")
	}
	if name := b.TLS.ServerName; name != "" && !hostForm.MatchString(name) {
		f.addf("tls.server_name", "tls.server_name must be a host name")
	}
}

func isUnquotable(r rune) bool { return isControl(r) || r == '"' || r == '\\' || r == '\uFFFD' }

// urlError is a rule that a url breaks. It never holds the url: a password or key may be in it.
type urlError string

func (e urlError) Error() string { return string(e) }

// normalURL checks a backend's url and returns scheme, host and path prefix, with /v1 and what follows it cut off.
func normalURL(text string) (string, error) {
	if text == "" {
		return "", urlError("is missing")
	}
	u, err := url.Parse(text)
	if err != nil || strings.ContainsFunc(text, isControl) {
		return "", urlError("is not a valid URL: write it as http://host:port")
	}
	switch u.Scheme {
	case "http", "https":
	case "dns+http", "dns+https", "k8s":
		return "", urlError("with " + u.Scheme + ":// is not available in this version: write one Backend for each address")
	default:
		return "", urlError("must begin with http:// or https://")
	}
	switch {
	case u.User != nil:
		return "", urlError("must not hold a user or password: use api_key")
	case u.Hostname() == "":
		return "", urlError("has no host: write it as http://host:port")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.Contains(text, "#"):
		return "", urlError("must not have a query or a fragment")
	case !validPort(u):
		return "", urlError("has a port that is not between 1 and 65535")
	}
	path, err := pathPrefix(u.EscapedPath())
	if err != nil {
		return "", err
	}
	return u.Scheme + "://" + strings.ToLower(u.Host) + path, nil
}

func validPort(u *url.URL) bool {
	if u.Port() == "" {
		return !strings.HasSuffix(u.Host, ":")
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	return err == nil && port > 0
}

func pathPrefix(path string) (string, error) {
	if before, _, ok := strings.Cut(path+"/", "/v1/"); ok {
		path = before
	}
	path = strings.TrimRight(path, "/")
	for i, segment := range strings.Split(path, "/") {
		if i > 0 && (segment == "" || segment == "." || segment == "..") || strings.Contains(segment, "%") {
			return "", urlError("has a path with empty, dot or escaped segments")
		}
	}
	return path, nil
}

// check reports what is wrong with p itself; whether its backends exist is for Compile.
func (p *RoutingPolicy) check(f flaws) {
	f.form("id", p.ID, idForm, idRule)
	if p.Organization != Everyone {
		f.form("organization", p.Organization, idForm, `must be "*" or an organization's id: 1 to 128 of the characters A-Z a-z 0-9 . _ -`)
	}
	f.form("model", p.Model, modelForm, modelRule)
	p.checkNames(f)
	p.checkBackends(f)
	f.oneOf("strategy", p.Strategy, strategies)
	f.between("retry.attempts", p.Retry.Attempts, 1, maxAttempts)
	if b := time.Duration(p.Retry.Backoff); b < 0 || b > time.Minute {
		f.addf("retry.backoff", "retry.backoff must be between 0s and 1m")
	}
	f.between("failover_threshold", p.FailoverThreshold, 1, 1000)
	switch p.Stream.OnBreak {
	case OnBreakError:
	case "resume":
		f.addf("stream.on_break", "stream.on_break: resuming a broken stream is not available in this version: write error, or leave it out")
	default:
		f.addf("stream.on_break", "stream.on_break must be error")
	}
	if p.Stream.Heartbeat != 0 {
		f.addf("stream.heartbeat", "stream.heartbeat is not available in this version: write 0s, or leave it out")
	}
	p.checkKeys(f)
	p.Clamps.check(f)
	p.Fields.check(f)
}

// check refuses a best_of below n: engines refuse the requests that it would make.
func (c Clamps) check(f flaws) {
	f.between("clamps.n", c.N, 0, maxClamp)
	f.between("clamps.best_of", c.BestOf, 0, maxClamp)
	f.between("clamps.max_tokens", c.MaxTokens, 0, maxClamp)
	f.between("clamps.logprobs", c.Logprobs, 0, maxClamp)
	f.between("clamps.prompts", c.Prompts, 0, maxClamp)
	f.between("clamps.stops", c.Stops, 0, maxClamp)
	if c.BestOf > 0 && (c.N == 0 || c.N > c.BestOf) {
		f.addf("clamps.best_of", "clamps.best_of needs a clamps.n that is not above it: engines refuse a best_of below n")
	}
}

func (o Fields) check(f flaws) {
	permissions := []string{Allow, Refuse}
	f.oneOf("fields.chat_template", o.ChatTemplate, permissions)
	f.oneOf("fields.chat_template_kwargs", o.ChatTemplateKwargs, permissions)
	f.oneOf("fields.remote_media", o.RemoteMedia, permissions)
}

// checkNames looks at every further name of the policy. Aliases and fallback models must be new names, each written once.
func (p *RoutingPolicy) checkNames(f flaws) {
	own := map[string]string{p.Model: "the policy's model"}
	for i, alias := range p.Aliases {
		path := fmt.Sprintf("aliases[%d]", i)
		f.form(path, alias, modelForm, modelRule)
		if is, taken := own[alias]; taken && alias != "" {
			f.addf(path, "alias %q is already %s", alias, is)
			continue
		}
		own[alias] = "an alias of this policy"
	}
	for i, model := range p.FallbackModels {
		path := fmt.Sprintf("fallback_models[%d]", i)
		f.form(path, model, modelForm, modelRule)
		if is, taken := own[model]; taken && model != "" {
			f.addf(path, "fallback model %q is already %s", model, is)
			continue
		}
		own[model] = "a fallback model of this policy"
	}
}

func (p *RoutingPolicy) checkBackends(f flaws) {
	if len(p.Backends) == 0 {
		f.addf("backends", "backends is missing: a policy needs at least one, as in backends: [{id: my-backend}]")
		return
	}
	seen := make(map[string]bool, len(p.Backends))
	share := false
	for i, c := range p.Backends {
		path := fmt.Sprintf("backends[%d]", i)
		f.form(path+".id", c.Backend, idForm, idRule)
		if seen[c.Backend] && c.Backend != "" {
			f.addf(path+".id", "backend %q is listed twice", c.Backend)
		}
		seen[c.Backend] = true
		f.between(path+".weight", c.Weight, 0, maxWeight)
		f.between(path+".tier", c.Tier, 0, maxTier)
		share = share || c.Weight != 0
	}
	if !share {
		f.addf("backends", "every backend has weight 0: at least one must be above 0")
	}
}

func (p *RoutingPolicy) checkKeys(f flaws) {
	f.rules("keys", p.Keys, "key", "must be a key's id: 1 to 128 visible ASCII characters")
	for i, c := range p.Backends {
		path := fmt.Sprintf("backends[%d].callers", i)
		f.rules(path, c.Callers, "caller", "must be the id of a key or an organization: 1 to 128 visible ASCII characters")
		for j, id := range c.Callers.Allow {
			if id == Everyone {
				f.addf(fmt.Sprintf("%s.allow[%d]", path, j), `%s.allow must list callers: leave it out to serve all of them`, path)
			}
		}
		for j, id := range c.Callers.Deny {
			if id == Everyone {
				f.addf(fmt.Sprintf("%s.deny[%d]", path, j), `%s.deny must list callers: to serve none of them, leave the backend out`, path)
			}
		}
	}
}

// rules looks at the lists of rules. No id may be on both.
func (f flaws) rules(path string, rules KeyRules, noun, rule string) {
	allowed := set(rules.Allow)
	for i, id := range rules.Allow {
		f.form(fmt.Sprintf("%s.allow[%d]", path, i), id, keyIDForm, rule)
	}
	for i, id := range rules.Deny {
		at := fmt.Sprintf("%s.deny[%d]", path, i)
		f.form(at, id, keyIDForm, rule)
		if in(allowed, id) {
			f.addf(at, "%s %q is both allowed and denied", noun, id)
		}
	}
}
