package fleet

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/ai-aas/api-router/internal/upstream"
)

// Secret is a value that never prints.
type Secret = upstream.Secret

// TLS says how an https backend is recognized and how the router shows itself to it.
type TLS = upstream.TLS

// The engines whose ways are known. Any other name, and "", means a server that speaks OpenAI's dialect.
const (
	EngineVLLM      = "vllm"
	EngineSGLang    = "sglang"
	EngineTGI       = "tgi"
	EngineLlamaCPP  = "llamacpp"
	EngineOllama    = "ollama"
	EngineOpenAI    = "openai"
	EngineAnthropic = "anthropic"
)

// Timeouts bound the phases of one request. Connect is applied by the transport, the others are the proxy's.
// Zero means the default of the side that applies it.
type Timeouts struct {
	Connect      time.Duration
	FirstByte    time.Duration
	BetweenBytes time.Duration
	Total        time.Duration
}

// Spec is what the configuration says about one backend. Its maps must not be changed after Apply.
type Spec struct {
	ID  string
	URL string // http or https, with a host, without query and user; a path is kept as a prefix
	// Engine chooses the probes and how the key is sent.
	Engine string
	// Models maps public names to the backend's own, only where they differ.
	Models map[string]string
	APIKey Secret
	// MaxConcurrency caps the requests in flight. Zero or less: no cap.
	MaxConcurrency int
	Timeouts       Timeouts
	Labels         map[string]string
	TLS            TLS // for https only
}

// identity is what a backend's connections and health depend on. While it stays the same, so does the backend's state.
// Secrets are in it as a digest: fmt does not ask an unexported field's type how it wants to be printed.
type identity struct {
	id, url, engine string
	connect         time.Duration
	secrets         [sha256.Size]byte // of the key and the TLS material
}

func (s *Spec) identity() identity {
	digest := sha256.New()
	for _, part := range []string{string(s.APIKey), s.TLS.CA, s.TLS.Cert, string(s.TLS.Key), s.TLS.ServerName} {
		_, _ = fmt.Fprintf(digest, "%d:%s", len(part), part) // A hash takes everything.
	}
	i := identity{id: s.ID, url: s.URL, engine: s.Engine, connect: s.Timeouts.Connect}
	digest.Sum(i.secrets[:0])
	return i
}

// base parses the URL and refuses what cannot be a backend.
func (s *Spec) base() (*url.URL, error) {
	if s.ID == "" {
		return nil, errors.New("a backend without an id")
	}
	return parseBase(s.URL)
}

func parseBase(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, err
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("url %q: the scheme must be http or https", u.Redacted())
	case u.Hostname() == "":
		return nil, fmt.Errorf("url %q: the host is missing", u.Redacted())
	case u.User != nil:
		return nil, fmt.Errorf("url %q: a user in the url is not supported, use api_key", u.Redacted())
	case u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("url %q: a query or fragment makes no sense here", u.Redacted())
	}
	u.Path = strings.TrimRight(u.Path, "/")
	u.RawPath = ""
	return u, nil
}

// cloud reports whether the backend is most likely a public service, and not a server of one's own that speaks its dialect.
func cloud(engine string, u *url.URL) bool {
	return u.Scheme == "https" && (engine == EngineOpenAI || engine == EngineAnthropic)
}

// cloudIdle is for the public services: their front ends keep an idle connection for a minute or more, and a TLS
// handshake across the internet is worth saving.
const cloudIdle = 30 * time.Second

// NewTransport builds the transport that a Fleet uses when its Options name none.
func NewTransport(spec Spec) (upstream.Transport, error) {
	u, err := spec.base()
	if err != nil {
		return nil, err
	}
	return connect(transportConfig(spec, u))
}

// connect chooses the connections: our own for plain HTTP, net/http's for TLS and the HTTP/2 that comes with it.
func connect(cfg upstream.Config) (upstream.Transport, error) {
	if cfg.TLS == nil {
		return upstream.Direct(cfg)
	}
	return upstream.Standard(cfg)
}

// transportConfig says how spec's backend is connected to, u being its parsed URL.
func transportConfig(spec Spec, u *url.URL) upstream.Config {
	cfg := upstream.Config{Address: upstream.Address(u), Connect: spec.Timeouts.Connect}
	if cloud(spec.Engine, u) {
		cfg.IdleTimeout = cloudIdle
	}
	if u.Scheme == "https" {
		cfg.TLS = &spec.TLS
	}
	return cfg
}

// authorize sets the header that carries key to an engine of that kind. Without a key it sets nothing.
func authorize(h http.Header, engine string, key Secret) {
	if key == "" {
		return
	}
	if engine == EngineAnthropic {
		h.Set("X-Api-Key", string(key))
		h.Set("Anthropic-Version", cmp.Or(h.Get("Anthropic-Version"), "2023-06-01"))
		return
	}
	h.Set("Authorization", "Bearer "+string(key))
}
