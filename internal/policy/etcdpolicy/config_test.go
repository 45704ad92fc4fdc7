package etcdpolicy

import (
	"slices"
	"strings"
	"testing"

	"github.com/ai-aas/api-router/internal/policy"
)

func TestConfigurationsAreChecked(t *testing.T) {
	password, err := policy.ParseSecretRef("env:ETCD_PASSWORD")
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		config Config
		says   string // empty: it is good
	}{
		"an address":                     {Config{Endpoints: []string{"etcd:2379"}}, ""},
		"addresses":                      {Config{Endpoints: []string{"etcd-0:2379", "http://[::1]:2379/"}}, ""},
		"a user":                         {Config{Endpoints: []string{"etcd:2379"}, Username: "u", Password: password}, ""},
		"none":                           {Config{}, "there is no endpoint"},
		"no port":                        {Config{Endpoints: []string{"etcd"}}, "endpoint 1: an endpoint is host:port"},
		"no host":                        {Config{Endpoints: []string{":2379"}}, "an endpoint is host:port"},
		"a path":                         {Config{Endpoints: []string{"a:1", "http://etcd:2379/v3"}}, "endpoint 2: an endpoint is host:port"},
		"another scheme":                 {Config{Endpoints: []string{"ftp://etcd:2379"}}, "only http:// and https://"},
		"a password in an endpoint":      {Config{Endpoints: []string{"http://u:hidden@etcd:2379"}}, "an endpoint is host:port"},
		"a password in a bare endpoint":  {Config{Endpoints: []string{"u:hidden@etcd:2379"}}, "an endpoint is host:port"},
		"a mixture":                      {Config{Endpoints: []string{"http://a:1", "https://b:1"}}, "TLS all or none"},
		"TLS without TLS":                {Config{Endpoints: []string{"http://a:1"}, TLS: policy.TLS{CA: "ca"}}, "http:// has none"},
		"half a certificate":             {Config{Endpoints: []string{"a:1"}, TLS: policy.TLS{Cert: "c"}}, "belong together"},
		"a user without a password":      {Config{Endpoints: []string{"a:1"}, Username: "u"}, "belong together"},
		"a password without a user":      {Config{Endpoints: []string{"a:1"}, Password: password}, "belong together"},
		"the prefix of everything there": {Config{Endpoints: []string{"a:1"}, Prefix: "/"}, "not a prefix of our own"},
	} {
		book, err := New(test.config)
		switch {
		case test.says == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says)):
			t.Errorf("%s: %v, want %q", name, err, test.says)
		case err != nil && strings.Contains(err.Error(), "hidden"):
			t.Errorf("%s: the error shows the password: %v", name, err)
		}
		if err == nil {
			if err := book.Close(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestPrefixesEndInASlash(t *testing.T) {
	for prefix, want := range map[string]string{"": "/api-router/", "/x": "/x/", "/x//": "/x/", "x": "x/"} {
		config := Config{Endpoints: []string{"a:1", "https://b:2"}[:1], Prefix: prefix}
		if err := config.settle(); err != nil || config.Prefix != want {
			t.Errorf("%q becomes %q, want %q: %v", prefix, config.Prefix, want, err)
		}
	}
	secure := Config{Endpoints: []string{"a:1", "https://b:2/"}, TLS: policy.TLS{CA: "ca"}}
	if err := secure.settle(); err != nil || !slices.Equal(secure.Endpoints, []string{"https://a:1", "https://b:2"}) {
		t.Errorf("%q, %v", secure.Endpoints, err)
	}
}
