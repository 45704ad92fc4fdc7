package wire

import (
	"bytes"
	"encoding/json"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"
)

func TestRewriteTouchesNothingElse(t *testing.T) {
	both := Rewrite{IncludeUsage: true, ContinuousUsage: true}
	for name, test := range map[string]struct {
		body    string
		rewrite Rewrite
		want    string
	}{
		"nothing asked":      {`{"model":"m",` + hello + `}`, Rewrite{}, `{"model":"m",` + hello + `}`},
		"the same model":     {`{"model":"\u006d",` + hello + `}`, Rewrite{Model: "m"}, `{"model":"\u006d",` + hello + `}`},
		"an alias":           {`{ "model" : "m" ,` + hello + `}`, Rewrite{Model: "org/m"}, `{ "model" : "org/m" ,` + hello + `}`},
		"an odd alias":       {`{"model":"m",` + hello + `}`, Rewrite{Model: "a\"b\\é\n"}, `{"model":"a\"b\\é\n",` + hello + `}`},
		"no stream":          {`{"model":"m",` + hello + `}`, both, `{"model":"m",` + hello + `}`},
		"options absent":     {`{"stream":true,"model":"m",` + hello + `}`, both, `{"stream":true,"model":"m","stream_options":{"include_usage":true,"continuous_usage_stats":true},` + hello + `}`},
		"alias and options":  {`{"stream":true,` + hello + `,"model":"m"}`, Rewrite{Model: "b", IncludeUsage: true}, `{"stream":true,` + hello + `,"model":"b","stream_options":{"include_usage":true}}`},
		"options of null":    {`{"stream_options": null,"stream":true,"model":"m",` + hello + `}`, Rewrite{IncludeUsage: true}, `{"stream_options": {"include_usage":true},"stream":true,"model":"m",` + hello + `}`},
		"empty options":      {`{"stream_options":{ },"stream":true,"model":"m",` + hello + `}`, Rewrite{ContinuousUsage: true}, `{"stream_options":{"continuous_usage_stats":true },"stream":true,"model":"m",` + hello + `}`},
		"other options":      {`{"stream_options":{"x":1},"stream":true,"model":"m",` + hello + `}`, both, `{"stream_options":{"include_usage":true,"continuous_usage_stats":true,"x":1},"stream":true,"model":"m",` + hello + `}`},
		"options of false":   {`{"stream_options":{"include_usage":false,"continuous_usage_stats":null},"stream":true,"model":"m",` + hello + `}`, both, `{"stream_options":{"include_usage":true,"continuous_usage_stats":true},"stream":true,"model":"m",` + hello + `}`},
		"one there, one not": {`{"model":"m","stream":true,"stream_options":{"continuous_usage_stats":false},` + hello + `}`, Rewrite{Model: "b", IncludeUsage: true, ContinuousUsage: true}, `{"model":"b","stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true},` + hello + `}`},
		"asked already":      {`{"model":"m","stream":true,"stream_options":{"include_usage":true},` + hello + `}`, Rewrite{IncludeUsage: true}, `{"model":"m","stream":true,"stream_options":{"include_usage":true},` + hello + `}`},
		"never taken back":   {`{"model":"m","stream":true,"stream_options":{"include_usage":true},` + hello + `}`, Rewrite{}, `{"model":"m","stream":true,"stream_options":{"include_usage":true},` + hello + `}`},
	} {
		t.Run(name, func(t *testing.T) {
			body := []byte(test.body)
			r, err := Scan(body, Chat)
			if err != nil {
				t.Fatal(err)
			}
			if got := string(join(t, r.Rewrite(body, test.rewrite))); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
			if string(body) != test.body {
				t.Error("the body itself was changed")
			}
		})
	}
}

// join reads a body in all its ways and checks that they agree.
func join(t interface{ Fatalf(string, ...any) }, b Body) []byte {
	joined := bytes.Join(b.Pieces(), nil)
	read, err := io.ReadAll(iotest.OneByteReader(b.Reader()))
	var written bytes.Buffer
	n, err2 := b.Reader().(io.WriterTo).WriteTo(&written)
	if err != nil || err2 != nil || b.Len() != int64(len(joined)) || n != b.Len() || !bytes.Equal(read, joined) || !bytes.Equal(written.Bytes(), joined) {
		t.Fatalf("the pieces, Read, WriteTo and Len do not agree: %q %q %q %d %v %v", joined, read, written.Bytes(), b.Len(), err, err2)
	}
	return joined
}

func TestBodyIsReadAgainAndAgain(t *testing.T) {
	body := []byte(`{"model":"m",` + hello + `}`)
	r, err := Scan(body, Chat)
	if err != nil {
		t.Fatal(err)
	}
	b := r.Rewrite(body, Rewrite{Model: "another"})
	first := b.Reader()
	if _, err := io.CopyN(io.Discard, first, 14); err != nil {
		t.Fatal(err)
	}
	var rest bytes.Buffer
	if _, err := io.Copy(&rest, first); err != nil {
		t.Fatal(err)
	}
	whole := join(t, b)
	if !bytes.Equal(rest.Bytes(), whole[14:]) {
		t.Errorf("the rest is %s", rest.Bytes())
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if again := join(t, b); !bytes.Equal(again, whole) {
		t.Errorf("the second reading gives %s", again)
	}
	if n, err := (&bodyReader{rest: b.pieces}).WriteTo(iotest.TruncateWriter(io.Discard, 0)); n != b.Len() || err != nil {
		t.Fatal(n, err)
	}
	if _, err := b.Reader().(io.WriterTo).WriteTo(brokenWriter{}); err == nil {
		t.Error("the writer's error is lost")
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 3, io.ErrClosedPipe }

// TestRewriteMeansWhatItSays builds requests of every shape: what comes out decodes to the request with just the changes asked for, and
// taking the changes away leaves the very bytes that came in.
func TestRewriteMeansWhatItSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		space := rapid.SampledFrom([]string{"", " ", "\n\t"})
		maybe := func(name string, values ...string) string {
			value := rapid.SampledFrom(append(values, "")).Draw(t, name)
			if value == "" {
				return ""
			}
			return space.Draw(t, "space") + `"` + name + `"` + space.Draw(t, "space") + ":" + space.Draw(t, "space") + value
		}
		list := func(members []string) string {
			members = rapid.Permutation(members).Draw(t, "order")
			var there []string
			for _, m := range members {
				if m != "" {
					there = append(there, m)
				}
			}
			return "{" + strings.Join(there, space.Draw(t, "space")+",") + space.Draw(t, "space") + "}"
		}
		options := list([]string{maybe("include_usage", "true", "false", "null"), maybe("continuous_usage_stats", "true", "false", "null"), maybe("x", `{"include_usage":false}`)})
		body := []byte(list([]string{
			`"model":"m"`, hello, maybe("stream", "true", "true", "false", "null"), maybe("stream_options", options, options, "null"),
			maybe("seed", "18446744073709551615"), maybe("temperature", "1.10", "1e-7"),
		}))
		r, err := Scan(body, Chat)
		if err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		rewrite := Rewrite{
			Model:        rapid.SampledFrom([]string{"", "m", "org/other", `q"`}).Draw(t, "alias"),
			IncludeUsage: rapid.Bool().Draw(t, "usage"), ContinuousUsage: rapid.Bool().Draw(t, "continuous"),
		}
		out := join(t, r.Rewrite(body, rewrite))

		want := decode(t, body)
		if rewrite.Model != "" {
			want["model"] = rewrite.Model
		}
		if want["stream"] == true && (rewrite.IncludeUsage || rewrite.ContinuousUsage) {
			options, _ := want["stream_options"].(map[string]any)
			if options == nil {
				options = map[string]any{}
			}
			if rewrite.IncludeUsage {
				options["include_usage"] = true
			}
			if rewrite.ContinuousUsage {
				options["continuous_usage_stats"] = true
			}
			want["stream_options"] = options
		}
		if got := decode(t, out); !reflect.DeepEqual(got, want) {
			t.Fatalf("%s\nbecame %s", body, out)
		}
		checkPieces(t, body, r.Rewrite(body, rewrite))
		if rewrite.Model == `q"` { // Scan would not have it from a client.
			return
		}
		if again, err := Scan(out, Chat); err != nil || again.Stream && rewrite.IncludeUsage && !again.IncludeUsage {
			t.Fatalf("%s is not what it should be: %v", out, err)
		}
	})
}

// checkPieces makes sure that what was not spliced is the body's own memory, in order.
func checkPieces(t *rapid.T, body []byte, b Body) {
	at := 0
	for _, piece := range b.Pieces() {
		for i := at; i < len(body); i++ {
			if &body[i] == &piece[0] {
				at = i + len(piece)
				break
			}
		}
	}
	if at != len(body) {
		t.Fatalf("the end of the body is a copy")
	}
}

func decode(t *rapid.T, body []byte) map[string]any {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var v map[string]any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return v
}
