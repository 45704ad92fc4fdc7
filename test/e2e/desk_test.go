package e2e

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestProblemsOfManyFilesStandWhereTheyAre(t *testing.T) {
	d := sit(t)
	for name, text := range map[string]string{
		"docs/a.yaml": "kind: Backend\nid: a\nurl: http://127.0.0.1:9\n",
		"docs/b.yaml": "\uFEFFkind: Backend\r\nid: b\r\nurl: http://127.0.0.1:9\r\nwieght: 1\r\n",
		"docs/c.yml":  "# Without a line feed at its end.\nkind: RoutingPolicy\nid: c\nmodel: c\nbackends: [{id: nobody}]",
		"docs/d.json": "{\"kind\": \"Backend\",\n\"id\": \"d\",\n\"url\": \"nonsense\"}",
		"docs/e.yaml": "",
		"docs/f.yaml": "kind: Backend\nid: f\nurl: http://127.0.0.1:9\n---\nkind: Backend\nid: a\nurl: http://127.0.0.1:10\n",
		"docs/g.yaml": "kind: RoutingPolicy\nid: g\nmodel: one\nbackends: [{id: f}]\n",
		"docs/h.yaml": "kind: RoutingPolicy\nid: h\nmodel: one\nbackends: [{id: f}]\n",
		"docs/i.yaml": "kind: Mark\nbackend: nobody\nstate: draining\n",
		"docs/j.txt":  "not read",
	} {
		if err := os.MkdirAll(filepath.Join(d.dir, "docs"), 0o700); err != nil {
			t.Fatal(err)
		}
		d.file(name, text)
	}
	docs := filepath.Join(d.dir, "docs")
	at := func(place string) string { return filepath.Join(docs, place) + ":" }
	d.fails("apply -f "+docs, at("b.yaml:4:1"), "wieght", at("c.yml:2"), "nobody", at("d.json:3"), at("a.yaml:1"), at("f.yaml:5"), "2 documents have this id",
		at("h.yaml:1"), filepath.Join(docs, "g.yaml:1"), at("i.yaml:1"), "nothing was written: there are 7 problems")
	d.do("get backends", "There are no backends")
	d.fails("apply -f "+filepath.Join(docs, "e.yaml"), "there is no document in")
	d.fails("apply -f "+filepath.Join(d.dir, "nowhere"), "no such file")
	d.fails("apply "+docs, "name files and directories with -f")
	d.fails("apply", "-f FILE")
	d.do("apply -f " + filepath.Join(docs, "e.yaml") + " -f " + filepath.Join(docs, "a.yaml"))
	d.do("apply -f "+d.file("crlf.yaml", "\uFEFFkind: Backend\r\nid: b\r\nurl: http://127.0.0.1:9\r\n---\r\nkind: Backend\r\nid: c\r\nurl: http://127.0.0.1:9\r\n"),
		"created   Backend b", "created   Backend c")
}

// What is shown can be written, whatever stands in it, and no terminal obeys it.
func TestWhatGetPrintsApplyTakes(t *testing.T) {
	d := sit(t)
	d.do("apply -f " + d.file("a.json", `{"kind":"Backend","id":"a","url":"http://127.0.0.1:9","models":{"null":"1e3"},"labels":{"on":"yes","l":"# \u202e"}}`))
	out := d.do("get backends -o yaml", "revision 1")
	if strings.Contains(out, "\u202e") || strings.Contains(d.do("get backends -o json"), "\u202e") {
		t.Errorf("a terminal would obey %q", out)
	}
	d.do("apply -f "+d.file("again.yaml", out), "unchanged Backend a")
}

func TestAWrongServerIsToldSo(t *testing.T) {
	d := sit(t)
	d.fails("get policies --server http://"+d.public, "public listener", "API_ROUTER_ADMIN_URL")
	d.fails("get policies --server http://127.0.0.1:1", "is the router running", "--server")
	d.role = ""
	d.fails("get policies", "API_ROUTER_ADMIN_TOKEN", "--token env:NAME")
	d.role = adminToken
	d.fails("backend disable a --reason x --for 0s", "a length of time is above 0")
	d.fails("get policies extra words", "api-router get KIND [ID]")
}

func TestAnInterruptedCommandEnds(t *testing.T) {
	d := sit(t)
	for name, args := range map[string][]string{
		"apply": {"apply", "-f", "-"}, "diff": {"diff", "-f", "/dev/stdin"}, "explain": {"explain", "-f", "-"},
	} {
		t.Run(name, func(t *testing.T) {
			read, typed, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _, _ = read.Close(), typed.Close() }()
			ctx, cancel := context.WithTimeout(t.Context(), hang)
			defer cancel()
			var said bytes.Buffer
			c := exec.CommandContext(ctx, binary, args...)
			c.Env, c.Stdin, c.Stderr = append([]string{"HOME=" + t.TempDir()}, d.as(adminToken)...), read, &said
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			if err := typed.SetWriteDeadline(time.Now().Add(hang)); err != nil {
				t.Fatal(err)
			}
			if _, err := typed.Write(bytes.Repeat([]byte("#\n"), 1<<17)); err != nil { // More than the pipe holds: it is being read.
				t.Fatal(err)
			}
			if err := c.Process.Signal(syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
			if err := c.Wait(); err == nil || ctx.Err() != nil || !strings.Contains(said.String(), "interrupted while reading") {
				t.Errorf("%v: %s", err, &said)
			}
		})
	}
}
