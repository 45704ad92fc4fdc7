package conformance

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// recordings are the streams that the stage plays, each under the model "plays-" and its name.
var recordings = []string{"vllm-chat", "vllm-continuous", "vllm-tools", "sglang", "llamacpp", "ollama", "openai-two", "completions"}

// endings are the ways in which a stream of the stage breaks in the middle, each under the model "breaks-" and its name.
var endings = map[string]ending{
	"reset":   {"vllm-chat", 3, reset},
	"close":   {"vllm-chat", 3, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
	"clean":   {"vllm-chat", 3, func(http.ResponseWriter, *http.Request) {}},
	"done":    {"vllm-chat", 3, func(w http.ResponseWriter, _ *http.Request) { send(w, []byte("data: [DONE]\n\n")) }},
	"cut":     {"broken-off", all, func(http.ResponseWriter, *http.Request) {}},
	"error":   {"vllm-error", all, func(http.ResponseWriter, *http.Request) {}},
	"silence": {"vllm-chat", 3, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }},
	"tools":   {"vllm-tools", 3, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
}

// ending is the beginning of a recording, and what the backend does then.
type ending struct {
	recording string
	events    int
	end       http.HandlerFunc
}

const all = 1 << 10 // more events than any recording has

// refusals are the answers of the stage without a stream, each under the model "answers-" and its name.
var refusals = []string{"400", "401", "402", "422", "500", "503", "503-once"}

// silenceLimit is how long the router waits for the next byte of the backend that falls silent.
const silenceLimit = 300 * time.Millisecond

// stage is a backend that does what the model's name says, whatever it is asked.
type stage struct {
	server  http.Server
	streams map[string][]byte // recordings by name
	answers map[string][]byte // whole answers by recording, where there is one
	base    string
	busy    chan struct{} // holds the one refusal of answers-503-once
}

// newStage starts a stage on a port of its own until the test ends.
func newStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{streams: map[string][]byte{}, answers: map[string][]byte{}, busy: make(chan struct{}, 1)}
	s.busy <- struct{}{}
	for _, name := range append([]string{"broken-off", "vllm-error"}, recordings...) {
		content, err := os.ReadFile(filepath.Join("..", "..", "internal", "wire", "testdata", name+".sse"))
		if err != nil {
			t.Fatal(err)
		}
		s.streams[name] = content
	}
	whole, err := os.ReadFile(filepath.Join("testdata", "vllm-tools.json"))
	if err != nil {
		t.Fatal(err)
	}
	s.answers["vllm-tools"] = whole
	s.base = serve(t, &s.server, s)
	return s
}

// models are the names that the stage knows.
func (s *stage) models() []string {
	var names []string
	for _, name := range recordings {
		names = append(names, "plays-"+name)
	}
	for name := range endings {
		names = append(names, "breaks-"+name)
	}
	for _, name := range refusals {
		names = append(names, "answers-"+name)
	}
	slices.Sort(names)
	return names
}

func (s *stage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet {
		s.tell(w, r)
		return
	}
	var ask struct {
		Model  string `json:"model"`
		Stream bool   `json:"stream"`
	}
	if err := json.NewDecoder(r.Body).Decode(&ask); err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	verb, name, _ := strings.Cut(ask.Model, "-")
	switch verb {
	case "plays":
		s.play(w, name, ask.Stream)
	case "breaks":
		broken := endings[name]
		w.Header().Set("Content-Type", "text/event-stream")
		events := bytes.SplitAfter(s.streams[broken.recording], []byte("\n\n"))
		send(w, bytes.Join(events[:min(broken.events, len(events))], nil)) // In one piece: however slow the machine is, all of it arrives.
		broken.end(w, r)
	case "answers":
		s.refusal(w, name)
	default:
		refuse(w, http.StatusNotFound, "The model `"+ask.Model+"` does not exist.")
	}
}

// tell answers probes.
func (s *stage) tell(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/v1/models" {
		return
	}
	type entry struct {
		ID      string `json:"id"`
		Object  string `json:"object"`
		OwnedBy string `json:"owned_by"`
	}
	var list []entry
	for _, name := range s.models() {
		list = append(list, entry{name, "model", "vllm"})
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"object": "list", "data": list})
}

// play sends a recording, or the whole answer that stands beside it. Its pieces are not its events.
func (s *stage) play(w http.ResponseWriter, name string, stream bool) {
	if !stream {
		if s.answers[name] == nil {
			refuse(w, http.StatusBadRequest, "there is no whole answer of this name")
			return
		}
		w.Header().Set("Content-Type", "application/json")
		send(w, s.answers[name])
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	for piece := range slices.Chunk(s.streams[name], 97) {
		send(w, piece)
	}
}

func (s *stage) refusal(w http.ResponseWriter, name string) {
	status, _ := strconv.Atoi(name[:3])
	if name == "503-once" {
		select {
		case <-s.busy:
		default:
			s.play(w, "vllm-tools", false)
			return
		}
	}
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	refuse(w, status, "The stage answers "+name+".")
}

// refuse writes an error as vLLM does, with the field at fault.
func refuse(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{
		"message": message, "type": strings.ReplaceAll(http.StatusText(status), " ", "") + "Error", "param": "max_tokens", "code": status,
	}})
}

func send(w http.ResponseWriter, piece []byte) {
	_, _ = w.Write(piece)
	_ = http.NewResponseController(w).Flush()
}

// reset ends the connection with a TCP reset: what was sent may be lost on its way.
func reset(w http.ResponseWriter, _ *http.Request) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// serve runs a server on a free port until the test ends, and returns its base URL.
func serve(t *testing.T, server *http.Server, handler http.Handler) string {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server.Handler = handler
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	t.Cleanup(func() {
		_ = server.Close()
		<-ended
	})
	return "http://" + listener.Addr().String()
}
