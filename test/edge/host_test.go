package edge

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

// Other gateways let a client say where its request shall go, by a header or a field. Here nobody listens to such words: the request
// goes to the configured backend, its body as it is, and without those headers.
func TestNothingInARequestChoosesAHost(t *testing.T) {
	trap, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer trap.Close()
	var caught atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := trap.Accept()
			if err != nil {
				return
			}
			caught.Add(1)
			conn.Close()
		}
	}()
	host := trap.Addr().String()
	url := "http://" + host + "/v1"
	r := start(t, nil)

	names := []string{
		"X-Portkey-Custom-Host", "X-Portkey-Config", "X-Portkey-Provider", "X-Custom-Host", "X-Base-Url", "X-Api-Base", "X-Target-Url", "X-Upstream", "X-Backend",
		"Helicone-Target-Url", "Helicone-OpenAI-Api-Base", "X-Stainless-Base-Url", "OpenAI-Base-Url", "X-LiteLLM-Api-Base", "X-Forwarded-Host", "X-Forwarded-Server",
		"X-Original-Url", "X-Rewrite-Url", "X-Host", "X-Real-Ip", "Forwarded", "Referer", "Origin", "Destination", "Location", "Proxy", "Proxy-Authorization", "Http-Proxy",
	}
	lines := make([]string, 0, len(names)+2)
	for _, name := range names {
		lines = append(lines, name+": "+url)
	}
	lines = append(lines, "Cookie: backend="+host, "Baggage: backend="+host, "Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	body := strings.TrimSuffix(hello, "}") + strings.ReplaceAll(`,"api_base":"URL","base_url":"URL","api_url":"URL","endpoint":"URL","url":"URL","host":"URL","backend":"URL","proxy":"URL",`+
		`"custom_host":"URL","custom_llm_provider":"openai","api_key":"sk-other","azure_endpoint":"URL","deployment_id":"x","user_config":{"api_base":"URL"},`+
		`"extra_headers":{"Host":"URL"},"extra_body":{"api_base":"URL"},"metadata":{"base_url":"URL"}}`, "URL", url)
	request := strings.Replace(chat(body, lines...), "Host: router", "Host: "+host, 1)
	request = strings.Replace(request, " HTTP/1.1", "?api_base="+url+" HTTP/1.1", 1)

	conn := r.dial(t)
	_, _ = io.WriteString(conn, request)
	if got := receive(bufio.NewReader(conn), http.MethodPost); got.status != http.StatusOK {
		t.Fatalf("got %+v", got)
	}
	seen, content := r.backend.seen()
	if content != body {
		t.Errorf("the backend got %s", content)
	}
	if want := strings.TrimPrefix(r.backend.URL, "http://"); seen.Host != want || seen.RequestURI != "/v1/chat/completions" {
		t.Errorf("the backend was asked for %s at %s", seen.RequestURI, seen.Host)
	}
	for name, values := range seen.Header {
		if text := strings.Join(values, " "); strings.Contains(text, host) || strings.Contains(text, key) {
			t.Errorf("the backend got %s: %s", name, text)
		}
	}
	for _, name := range append(names, "Cookie", "Baggage", "X-Api-Key", "Authorization") {
		if seen.Header.Get(name) != "" {
			t.Errorf("the backend got %s", name)
		}
	}
	if seen.Header.Get("Traceparent") == "" {
		t.Error("the backend got no traceparent, so this test sees no headers")
	}
	trap.Close()
	<-done
	if n := caught.Load(); n > 0 {
		t.Errorf("%d connections to a host that the client named", n)
	}
}
