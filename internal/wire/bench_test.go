package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
)

// paragraph is what prompts are made of: prose with a line break and quotes every now and then.
const paragraph = `The committee met at nine and did not rise before noon. Its chairman said: \"A report that nobody reads is a report that nobody wrote.\"\n` +
	`Three members asked for the figures of the last quarter, two for those of the year before, and one for a glass of water; all of them got what they had asked for, ` +
	`though not in the order in which they had asked. It was then resolved to meet again, at the same hour and in the same room, as soon as there was something to say.\n\n`

// code is the hard case: an escape every few bytes.
const code = `\tif err := w.Write(\"head\"); err != nil {\n\t\treturn fmt.Errorf(\"write %q: %w\", name, err)\n\t}\n`

// chatBody makes a chat request of about size bytes out of text, which must be valid within a JSON string.
func chatBody(size int, text string) []byte {
	var b bytes.Buffer
	b.WriteString(`{"model":"gpt-oss-20b","messages":[{"role":"system","content":"You are helpful."}`)
	for i := 0; b.Len() < size-150; i++ {
		role := "user"
		if i%2 == 1 {
			role = "assistant"
		}
		fmt.Fprintf(&b, `,{"role":%q,"content":"`, role)
		for range max(1, min(8, (size-150-b.Len())/len(text))) {
			room := size - 130 - b.Len()
			if room < len(text) {
				b.WriteString(strings.Repeat("a", max(0, room)))
				break
			}
			b.WriteString(text)
		}
		b.WriteString(`"}`)
	}
	b.WriteString(`],"temperature":0.7,"max_tokens":256,"stream":true,"stream_options":{"include_usage":true}}`)
	return b.Bytes()
}

func BenchmarkScan(b *testing.B) {
	for _, text := range []struct{ name, text string }{{"prose", paragraph}, {"code", code}, {"chinese", strings.Repeat("會議在九點開始，中午前沒有結束。", 8)}} {
		for _, size := range []int{1 << 10, 16 << 10, 128 << 10, 400 << 10} {
			body := chatBody(size, text.text)
			b.Run(fmt.Sprintf("%s/%dKB", text.name, size>>10), func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(len(body)))
				for b.Loop() {
					if _, err := Scan(body, Chat); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
	parts := []byte(`{"model":"gpt-oss-20b","messages":[` + strings.Repeat(`{"role":"user","content":[{"type":"text","text":"And this one?"},`+
		`{"type":"image_url","image_url":{"url":"data:image/png;base64,iVBORw0KGgo=","detail":"low"}}]},`, 100) + `{}],"n":1,"max_tokens":256,"top_logprobs":5}`)
	b.Run("parts/16KB", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(parts)))
		for b.Loop() {
			if _, err := Scan(parts, Chat); err != nil {
				b.Fatal(err)
			}
		}
	})
	body := []byte(`{"model":"gpt-oss-20b","input":[[` + strings.Repeat("15339,1917,11,", 28000) + `1]]}`)
	b.Run("tokens/400KB", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(body)))
		for b.Loop() {
			if _, err := Scan(body, Embedding); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkDecode is what Scan saves: encoding/json on the same body, into the fields that a router needs.
func BenchmarkDecode(b *testing.B) {
	body := chatBody(1<<10, paragraph)
	b.ReportAllocs()
	for b.Loop() {
		var request struct {
			Model    string            `json:"model"`
			Stream   bool              `json:"stream"`
			Messages []json.RawMessage `json:"messages"`
		}
		if err := json.Unmarshal(body, &request); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRewrite(b *testing.B) {
	body := chatBody(1<<10, paragraph)
	r, err := Scan(body, Chat)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		out := r.Rewrite(body, Rewrite{Model: "unsloth/gpt-oss-20b", IncludeUsage: true, ContinuousUsage: true})
		if out.Len() <= int64(len(body)) {
			b.Fatal(out.Len())
		}
	}
}

// BenchmarkClamp is a request that a policy lowers in three places.
func BenchmarkClamp(b *testing.B) {
	body := []byte(`{"n":8,"top_logprobs":20,` + string(chatBody(1<<10, paragraph)[1:]))
	scanned, err := Scan(body, Chat)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		r := scanned
		if err := r.Clamp(Clamps{N: 4, BestOf: 4, MaxTokens: 100, Logprobs: 5, Prompts: 64, Stops: 16}, Refused{ChatTemplate: true, RemoteMedia: true}); err != nil {
			b.Fatal(err)
		}
		if out := r.Rewrite(body, Rewrite{Model: "unsloth/gpt-oss-20b"}); out.Len() == int64(len(body)) {
			b.Fatal(out.Len())
		}
	}
}

const benchEvent = `data: {"id":"chatcmpl-8f1b5c4e","object":"chat.completion.chunk","created":1760000000,"model":"gpt-oss-20b",` +
	`"choices":[{"index":0,"delta":{"content":" answer"},"logprobs":null,"finish_reason":null}],` +
	`"usage":{"prompt_tokens":27,"total_tokens":41,"completion_tokens":14}}` + "\n\n"

func BenchmarkEvents(b *testing.B) {
	stream := []byte(strings.Repeat(benchEvent, 1000))
	buf := make([]byte, 4<<10)
	b.ReportAllocs()
	b.SetBytes(int64(len(benchEvent)))
	var events *Events
	for b.Loop() {
		if events == nil {
			events = NewEvents(bytes.NewReader(stream), buf)
		}
		if _, err := events.Next(); err == io.EOF {
			events = nil
		} else if err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkTap(b *testing.B) {
	for _, bench := range []struct {
		name  string
		strip Strip
	}{{"none", StripNone}, {"continuous", StripContinuous}, {"all", StripAll}} {
		b.Run(bench.name, func(b *testing.B) {
			ev, err := NewEvents(strings.NewReader(benchEvent), nil).Next()
			if err != nil {
				b.Fatal(err)
			}
			tap := NewTap(Chat, 1, bench.strip)
			b.ReportAllocs()
			b.SetBytes(int64(len(benchEvent)))
			for b.Loop() {
				if v := tap.Event(ev); len(v.Out) == 0 || v.Malformed {
					b.Fatal(v)
				}
			}
		})
	}
}

func BenchmarkAnswer(b *testing.B) {
	vector := "[" + strings.Repeat("-0.0123456789,0.98765432,", 512) + "0]"
	chat := []byte(`{"id":"x","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"` +
		strings.Repeat(paragraph, 3) + `"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":300}}`)
	floats := []byte(`{"object":"list","data":[` + strings.Repeat(`{"object":"embedding","embedding":`+vector+`},`, 30) + `{}],"usage":{"prompt_tokens":9}}`)
	for _, bench := range []struct {
		name string
		data []byte
	}{{"chat", chat}, {"embeddings", floats}} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(bench.data)))
			for b.Loop() {
				var a Answer
				for data := bench.data; len(data) > 0; {
					n := min(len(data), 16<<10)
					_, _ = a.Write(data[:n])
					data = data[n:]
				}
				if _, ok := a.Usage(); !ok || !a.Complete() {
					b.Fatal("no usage")
				}
			}
		})
	}
}
