package telemetry

import (
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http/httpproxy"
)

// The protocols of OTLP that are spoken.
const (
	GRPC = "grpc"
	HTTP = "http/protobuf"
)

// The ports that are registered for OTLP.
const (
	portGRPC = "4317"
	portHTTP = "4318"
)

// collector is where one signal goes, and how.
type collector struct {
	off      string // why nothing is sent; "" when something is
	unusable bool   // that is a mistake
	protocol string
	url      *url.URL // of HTTP with its path; of gRPC scheme and host alone. It has no user.
	headers  []secretHeader
	gzip     bool
	timeout  time.Duration // of one attempt
	// Files of TLS, read when a connection is made, so that they may come late and change.
	authorities, certificate, key string
	proxy                         func(*url.URL) (*url.URL, error) // of HTTP
}

// secretHeader is sent with each export. Its value is mostly a credential: it prints as a mask.
type secretHeader struct{ name, value string }

func (h secretHeader) String() string   { return h.name + ": ***" }
func (h secretHeader) GoString() string { return h.String() }

// LogValue is what a log line shows.
func (h secretHeader) LogValue() slog.Value { return slog.StringValue(h.String()) }

// tls reports whether the way to the collector is encrypted.
func (c *collector) tls() bool { return c.url != nil && c.url.Scheme == "https" }

// display is the collector's address for people: no user, no query.
func (c *collector) display() string {
	if c.url == nil {
		return ""
	}
	shown := url.URL{Scheme: c.url.Scheme, Host: c.url.Host, Path: c.url.Path}
	return shown.String()
}

// otlp is what begins the names of the variables of a collector.
const otlp = "OTEL_EXPORTER_OTLP_"

// collector reads where a signal goes. What is wrong switches the signal off, and a note says which variable it was.
func (r *reader) collector(signal string) collector {
	if text := r.text("OTEL_" + strings.ToUpper(signal) + "_EXPORTER"); text != "" {
		name, on := "OTEL_"+strings.ToUpper(signal)+"_EXPORTER", false
		for kind := range strings.SplitSeq(text, ",") {
			switch strings.ToLower(strings.TrimSpace(kind)) {
			case "otlp":
				on = true
			case "none", "":
			case "prometheus": // /metrics is there whatever this says.
				if signal == Metrics {
					continue
				}
				fallthrough
			default:
				return r.unusable(signal, name, errors.New("only otlp and none are known"))
			}
		}
		if !on {
			return collector{off: name + " does not say otlp"}
		}
	}
	v := &variables{reader: r, signal: signal}
	endpoint := v.get("ENDPOINT")
	if endpoint == "" {
		return collector{off: otlp + "ENDPOINT is empty"}
	}
	own := r.text(v.own("ENDPOINT")) != ""
	c := collector{gzip: v.compression(), timeout: v.timeout()}
	if err := c.address(v, endpoint, own); err != nil {
		return r.unusable(signal, v.name("ENDPOINT"), err)
	}
	for _, step := range []struct {
		variable string
		read     func(*variables) error
	}{{"HEADERS", c.readHeaders}, {"CLIENT_KEY", c.readFiles}} {
		if err := step.read(v); err != nil {
			return r.unusable(signal, v.name(step.variable), err)
		}
	}
	return c
}

func (r *reader) unusable(signal, name string, err error) collector {
	if other, ok := errors.AsType[*variableError](err); ok {
		name, err = other.name, other.err
	}
	r.warn(name, err, "no "+signal+" are sent")
	return collector{off: name + " has no usable value: " + err.Error(), unusable: true}
}

// variableError says which variable was wrong, where it is not the one that was being read.
type variableError struct {
	name string
	err  error
}

func (e *variableError) Error() string { return e.name + ": " + e.err.Error() }

// variables are those of one signal: its own stand above those of all signals.
type variables struct {
	*reader
	signal string
}

func (v *variables) own(suffix string) string { return otlp + strings.ToUpper(v.signal) + "_" + suffix }

// name is the variable that decides.
func (v *variables) name(suffix string) string {
	if v.text(v.own(suffix)) != "" {
		return v.own(suffix)
	}
	return otlp + suffix
}

func (v *variables) get(suffix string) string { return v.text(v.name(suffix)) }

func (v *variables) compression() bool {
	switch v.get("COMPRESSION") {
	case "gzip":
		return true
	case "", "none":
	default:
		v.warn(v.name("COMPRESSION"), errors.New("it is neither gzip nor none"), v.signal+" are sent uncompressed")
	}
	return false
}

func (v *variables) timeout() time.Duration {
	return v.milliseconds(v.name("TIMEOUT"), 10*time.Second, maxWait)
}

// address works out protocol, encryption and URL:
//
// A scheme says whether the way is encrypted. Without one it is not, unless INSECURE says false, or the port is 443 or a certificate is named
// and INSECURE says nothing. The protocol is what PROTOCOL says; else that of the port, 4317 or 4318; else HTTP for a URL and gRPC for a bare
// host. Over HTTP the endpoint of all signals is completed by the signal's path, one of the signal's own is taken as it is.
func (c *collector) address(v *variables, endpoint string, own bool) error {
	scheme, _, given := strings.Cut(endpoint, "://")
	if !given {
		scheme, endpoint = "http", "http://"+endpoint
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || u.Hostname() == "" || u.Fragment != "" {
		return errors.New("it is not of the form host:port, http://host:port or https://host:port") // It is not repeated: it may hold a password.
	}
	if u.Scheme = strings.ToLower(scheme); u.Scheme != "http" && u.Scheme != "https" {
		return errors.New("its scheme is neither http nor https")
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return errors.New("its port is not between 1 and 65535")
		}
	}
	if err := c.encryption(v, u, given); err != nil {
		return err
	}
	if err := c.choose(v, u, given); err != nil {
		return err
	}
	if user := u.User; user != nil {
		password, _ := user.Password()
		c.headers = append(c.headers, secretHeader{"authorization", "Basic " + base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password))})
		u.User = nil
	}
	c.url = u
	if c.protocol == GRPC {
		if strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
			return errors.New("it has a path, which gRPC cannot use; leave the path out, or set " + otlp + "PROTOCOL=http/protobuf")
		}
		u.Path, u.RawPath = "", ""
		return nil
	}
	if !own {
		c.url = u.JoinPath("v1", v.signal)
	} else if u.Path == "" {
		u.Path = "/"
	}
	// No request of a client goes through it, so that a proxy is welcome here; what it is comes from the same map as everything else.
	c.proxy = v.proxies().ProxyFunc()
	return nil
}

func (c *collector) encryption(v *variables, u *url.URL, given bool) error {
	text := v.get("INSECURE")
	insecure := false
	if err := readTruth(text, &insecure); err != nil {
		return &variableError{v.name("INSECURE"), err}
	}
	switch {
	case given:
		if text != "" && insecure != (u.Scheme == "http") {
			v.notes = append(v.notes, note{
				slog.LevelWarn, "an environment variable has no effect, because the scheme of the endpoint says otherwise",
				[]any{"name", v.name("INSECURE"), "endpoint", v.name("ENDPOINT")},
			})
		}
	case text != "" && !insecure,
		text == "" && (u.Port() == "443" || v.get("CERTIFICATE") != "" || v.get("CLIENT_CERTIFICATE") != ""):
		u.Scheme = "https"
	}
	return nil
}

// choose picks the protocol, and the port where none is given.
func (c *collector) choose(v *variables, u *url.URL, given bool) error {
	switch v.get("PROTOCOL") {
	case GRPC:
		c.protocol = GRPC
	case HTTP:
		c.protocol = HTTP
	case "":
		switch port := u.Port(); {
		case strings.Trim(u.Path, "/") != "", port == portHTTP:
			c.protocol = HTTP
		case port == portGRPC, !given:
			c.protocol = GRPC
		default:
			c.protocol = HTTP
		}
	default:
		return &variableError{v.name("PROTOCOL"), errors.New("it is neither grpc nor http/protobuf")}
	}
	if u.Port() != "" {
		return nil
	}
	switch {
	case c.protocol == GRPC && u.Scheme == "https" && given:
		u.Host = net.JoinHostPort(u.Hostname(), "443")
	case c.protocol == GRPC:
		u.Host = net.JoinHostPort(u.Hostname(), portGRPC)
	case !given:
		u.Host = net.JoinHostPort(u.Hostname(), portHTTP)
	}
	return nil
}

// reserved are headers that belong to the protocol.
var reserved = []string{"content-type", "content-encoding", "content-length", "transfer-encoding", "connection", "host", "te", "trailer", "upgrade"}

func (c *collector) readHeaders(v *variables) error {
	pairs, err := readPairs(v.get("HEADERS"))
	if err != nil {
		return err
	}
	for i, p := range pairs {
		name := strings.ToLower(p.key)
		switch {
		case !httpguts.ValidHeaderFieldName(name) || !printable(p.value):
			return fmt.Errorf("entry %d is not a header", i+1)
		case slices.Contains(reserved, name) || strings.HasPrefix(name, "grpc-"):
			return fmt.Errorf("entry %d sets a header that belongs to the protocol", i+1)
		}
		c.headers = slices.DeleteFunc(c.headers, func(h secretHeader) bool { return h.name == name })
		c.headers = append(c.headers, secretHeader{name, p.value})
	}
	return nil
}

// printable is what both protocols can carry.
func printable(text string) bool {
	return !strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c > '~' })
}

func (c *collector) readFiles(v *variables) error {
	c.authorities, c.certificate, c.key = v.get("CERTIFICATE"), v.get("CLIENT_CERTIFICATE"), v.get("CLIENT_KEY")
	if (c.certificate == "") != (c.key == "") {
		return errors.New("a client certificate and its key need each other")
	}
	return nil
}

// header is the headers for net/http.
func (c *collector) header() http.Header {
	h := make(http.Header, len(c.headers))
	for _, each := range c.headers {
		h.Set(each.name, each.value)
	}
	return h
}

// proxies reads the usual variables. CGI is not a case here.
func (r *reader) proxies() *httpproxy.Config {
	get := func(name string) string {
		if text := r.text(name); text != "" {
			return text
		}
		return r.text(strings.ToLower(name))
	}
	return &httpproxy.Config{HTTPProxy: get("HTTP_PROXY"), HTTPSProxy: get("HTTPS_PROXY"), NoProxy: get("NO_PROXY")}
}
