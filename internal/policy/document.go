// Package policy turns documents (backends, routing policies, prices and marks) into one immutable table and keeps that table current.
//
// Parse reads documents from text and finds every problem at once. Compile checks them against each other and builds a Table.
// A Store follows a Source, keeps the last good version of every document, and publishes tables with one atomic store.
// Readers take Store.Table once per request and ask it with Lookup.
package policy

import "time"

// Kind names what a document describes.
type Kind string

// The kinds that this version reads.
const (
	KindBackend       Kind = "Backend"
	KindRoutingPolicy Kind = "RoutingPolicy"
	KindPrice         Kind = "Price"
	KindMark          Kind = "Mark"
)

// Everyone is the organization of a policy that holds for every organization without a policy of its own for the model.
const Everyone = "*"

// The strategies of a routing policy.
const (
	StrategyAdaptive    = "adaptive"
	StrategyWeighted    = "weighted"
	StrategyRoundRobin  = "round_robin"
	StrategyLeastLoaded = "least_loaded"
	StrategySession     = "session"
)

// OnBreakError ends a stream whose backend died with an error event.
const OnBreakError = "error"

// What a policy can say of a field.
const (
	Allow  = "allow"
	Refuse = "refuse"
)

// Backend describes one inference server.
type Backend struct {
	ID string `json:"id"`
	// URL is the server's base: scheme, host and perhaps a path prefix, without /v1 and without a slash at its end.
	URL    string `json:"url"`
	Engine string `json:"engine"`
	// Models maps public names to the backend's own, only where they differ.
	Models map[string]string `json:"models,omitempty"`
	// APIKey is sent to the backend. The zero value sends none.
	APIKey SecretRef `json:"api_key,omitzero"`
	// MaxConcurrency caps requests in flight; 0 sets no fixed cap.
	MaxConcurrency int               `json:"max_concurrency"`
	Timeouts       Timeouts          `json:"timeouts"`
	Labels         map[string]string `json:"labels,omitempty"`
	TLS            TLS               `json:"tls,omitzero"`
}

// Timeouts are the deadlines of one attempt at a backend.
type Timeouts struct {
	Connect      Duration `json:"connect"`
	FirstByte    Duration `json:"first_byte"`
	BetweenBytes Duration `json:"between_bytes"`
	Total        Duration `json:"total"`
}

// TLS says how an https backend is verified and how the router proves itself. CA, Cert and Key are paths of PEM files;
// an empty CA means the system's roots, an empty ServerName the host of the URL.
type TLS struct {
	CA         string `json:"ca,omitempty"`
	Cert       string `json:"cert,omitempty"`
	Key        string `json:"key,omitempty"`
	ServerName string `json:"server_name,omitempty"`
}

// RoutingPolicy says which backends serve a model for an organization.
type RoutingPolicy struct {
	ID string `json:"id"`
	// Organization is an organization's id or Everyone.
	Organization   string      `json:"organization"`
	Model          string      `json:"model"`
	Aliases        []string    `json:"aliases,omitempty"`
	FallbackModels []string    `json:"fallback_models,omitempty"`
	Backends       []Candidate `json:"backends"`
	Strategy       string      `json:"strategy"`
	Retry          Retry       `json:"retry"`
	// FailoverThreshold is the number of consecutive failures that eject a backend.
	FailoverThreshold int         `json:"failover_threshold"`
	Stream            StreamRules `json:"stream"`
	Keys              KeyRules    `json:"keys,omitzero"`
	Clamps            Clamps      `json:"clamps,omitzero"`
	Fields            Fields      `json:"fields"`
}

// Candidate is one backend of a policy. A lower tier is used first; within a tier the weights share the traffic.
type Candidate struct {
	Backend string `json:"id"`
	Weight  int    `json:"weight"`
	Tier    int    `json:"tier"`
	// Degraded keeps this policy from using the backend while it has another that works.
	Degraded bool `json:"degraded,omitempty"`
	// Callers narrow the backend to some callers: key ids or organizations.
	Callers KeyRules `json:"callers,omitzero"`

	allow, deny map[string]struct{} // Callers, in a Route
}

// Serves says whether the backend may answer this caller. It knows only for the candidates of a Route, and allocates nothing.
func (c *Candidate) Serves(keyID, organization string) bool {
	return c.allow == nil && c.deny == nil || // The common case costs no hash.
		!in(c.deny, keyID) && !in(c.deny, organization) && (c.allow == nil || in(c.allow, keyID) || in(c.allow, organization))
}

func in(ids map[string]struct{}, id string) bool {
	_, found := ids[id]
	return found
}

// Retry bounds the attempts at one request before its first byte.
type Retry struct {
	// Attempts counts all of them, the first included.
	Attempts int      `json:"attempts"`
	Backoff  Duration `json:"backoff"`
}

// StreamRules say what happens to a stream.
type StreamRules struct {
	OnBreak   string   `json:"on_break"`
	Heartbeat Duration `json:"heartbeat"`
}

// KeyRules narrow a policy to some keys, by key id. A key on Deny is refused; where Allow is not empty, any key that is not on it is too.
type KeyRules struct {
	Allow []string `json:"allow,omitempty"`
	Deny  []string `json:"deny,omitempty"`
}

// Clamps are the upper bounds of one request, whatever the client asks for; 0 sets none.
//
// The first four lower the request's own number: n, best_of, the token bound under each of its names, and logprobs, top_logprobs and
// prompt_logprobs. A chat that states no token bound gets MaxTokens as its own. The other two refuse a request that has more prompts
// (inputs, for embeddings) or stop texts.
type Clamps struct {
	N         int `json:"n"`
	BestOf    int `json:"best_of"`
	MaxTokens int `json:"max_tokens"`
	Logprobs  int `json:"logprobs"`
	Prompts   int `json:"prompts"`
	Stops     int `json:"stops"`
}

// Fields say, each with Allow or Refuse, what of a request may reach a backend.
type Fields struct {
	// ChatTemplate is a template of the client's own: code that the backend's template engine runs.
	ChatTemplate string `json:"chat_template"`
	// ChatTemplateKwargs are arguments for the model's template, such as enable_thinking. A template among them counts as ChatTemplate.
	ChatTemplateKwargs string `json:"chat_template_kwargs"`
	// RemoteMedia are URLs in messages, which the backend fetches from wherever the client says. data: URLs are always allowed.
	RemoteMedia string `json:"remote_media"`
}

// NewBackend returns a Backend with every default filled in.
func NewBackend(id, url string) Backend {
	b := Backend{ID: id, URL: url}
	b.fill()
	return b
}

// NewRoutingPolicy returns a RoutingPolicy for everyone with every default filled in, shared among backends by equal weights.
func NewRoutingPolicy(id, model string, backends ...string) RoutingPolicy {
	p := RoutingPolicy{ID: id, Model: model}
	p.fill()
	for _, backend := range backends {
		c := Candidate{Backend: backend}
		c.fill()
		p.Backends = append(p.Backends, c)
	}
	return p
}

// fill sets the defaults; the decoder calls it before it reads a value's fields.
func (b *Backend) fill() {
	b.Engine = "vllm"
	b.Timeouts = Timeouts{
		Connect:      Duration(2 * time.Second),
		FirstByte:    Duration(2 * time.Minute),
		BetweenBytes: Duration(time.Minute),
		Total:        Duration(30 * time.Minute),
	}
}

func (p *RoutingPolicy) fill() {
	p.Organization = Everyone
	p.Strategy = StrategyAdaptive
	p.Retry = Retry{Attempts: 2, Backoff: Duration(100 * time.Millisecond)}
	p.FailoverThreshold = 3
	p.Stream = StreamRules{OnBreak: OnBreakError}
	p.Fields.fill()
}

func (o *Fields) fill() {
	*o = Fields{ChatTemplate: Refuse, ChatTemplateKwargs: Allow, RemoteMedia: Refuse}
}

func (c *Candidate) fill() { c.Weight = 100 }

// Document is one document (exactly one of the first four is set) and the place where it was read. Make a new one rather than change one
// that Parse gave: it has been checked.
type Document struct {
	Backend *Backend       `json:"backend,omitempty"`
	Policy  *RoutingPolicy `json:"policy,omitempty"`
	Price   *Price         `json:"price,omitempty"`
	Mark    *Mark          `json:"mark,omitempty"`
	// File is the file's path, a key, or another name for the place: "environment".
	File string `json:"file,omitempty"`
	// Revision is the document's in its book; 0 where that keeps none.
	Revision int64 `json:"revision,omitempty"`
	// Legacy says that it was read from the form of the earlier service.
	Legacy bool `json:"legacy,omitempty"`
	// Line is 0 where there is none. It is not kept on disk: lines move without a change of content.
	Line int `json:"-"`

	checked bool     // see seal: nothing is wrong with it alone, and its values are in their normal forms
	sum     [16]byte // the hash of its content, once it is checked
}

// Kind tells which kind of document it is.
func (d Document) Kind() Kind {
	switch {
	case d.Backend != nil:
		return KindBackend
	case d.Price != nil:
		return KindPrice
	case d.Mark != nil:
		return KindMark
	}
	return KindRoutingPolicy
}

// ID is the document's id.
func (d Document) ID() string { return *d.name() }

func (d Document) name() *string {
	switch {
	case d.Backend != nil:
		return &d.Backend.ID
	case d.Price != nil:
		return &d.Price.ID
	case d.Mark != nil:
		return &d.Mark.ID
	}
	return &d.Policy.ID
}

// content is what a document holds, of whatever kind.
type content interface {
	// check reports what is wrong with it alone, and brings its values into their normal forms.
	check(f flaws)
}

// blank is a document of a kind with nothing in it; it has no content for an unknown kind.
func blank(kind Kind) (d Document) {
	switch kind {
	case KindBackend:
		d.Backend = new(Backend)
	case KindRoutingPolicy:
		d.Policy = new(RoutingPolicy)
	case KindPrice:
		d.Price = new(Price)
	case KindMark:
		d.Mark = new(Mark)
	}
	return d
}

// content is nil if nothing is set.
func (d Document) content() content {
	switch {
	case d.Backend != nil:
		return d.Backend
	case d.Policy != nil:
		return d.Policy
	case d.Price != nil:
		return d.Price
	case d.Mark != nil:
		return d.Mark
	}
	return nil
}

// own gives d a content that it shares with nobody, as far as check changes it.
func (d Document) own() Document {
	switch {
	case d.Backend != nil:
		d.Backend = new(*d.Backend)
	case d.Price != nil:
		d.Price = new(*d.Price)
	case d.Mark != nil:
		d.Mark = new(*d.Mark)
	}
	return d
}

type key struct {
	kind Kind
	id   string
}

func (d Document) key() key { return key{d.Kind(), d.ID()} }

func (d Document) place() string { return place(d.File, d.Line, 0) }

// Duration is a time.Duration that is written as in "2s" or "100ms".
type Duration time.Duration

// String is the duration as time.Duration prints it.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText is String, for JSON.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what time.ParseDuration reads.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	if err != nil {
		return errDuration
	}
	*d = Duration(parsed)
	return nil
}
