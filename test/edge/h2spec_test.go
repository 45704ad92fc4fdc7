package edge

import (
	"context"
	"encoding/xml"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ai-aas/api-router/test/rig"
)

// h2spec is the tool and what it judges.
type h2spec struct {
	tool, port string
}

// verdict is what became of one of its tests.
type verdict uint8

const (
	passed verdict = iota
	failed
	skipped
)

// again is how often a test that is listed as a race is looked at once more when it fails. No other test gets a second chance.
const again = 5

// race begins the reason of a test that may fail now and then, but not each time.
const race = "race: "

// TestH2spec lets h2spec judge the public listener. testdata/h2spec.txt lists what it may find, each with its reason.
func TestH2spec(t *testing.T) {
	// It is built from the module in h2spec/, which pins it and all that it needs.
	tool, err := filepath.Abs(filepath.Join("..", "..", ".tools", "bin", "h2spec"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(tool); err != nil {
		rig.Lacking(t, "HTTP/2 by h2spec: it is not there; scripts/prepare h2spec builds it")
	}
	allowed := allowance(t)
	r := start(t, nil)
	_, port, err := net.SplitHostPort(r.addr)
	if err != nil {
		t.Fatal(err)
	}
	judge := h2spec{tool, port}
	verdicts, output := judge.run(t)
	if len(verdicts) < 140 {
		t.Errorf("h2spec ran %d tests only", len(verdicts))
	}
	for name, v := range verdicts {
		reason, known := allowed[name]
		races := strings.HasPrefix(reason, race)
		delete(allowed, name)
		switch {
		case v == skipped:
			t.Errorf("skipped: %s", name)
		case v == failed && (!known || races && judge.insists(t, name)):
			t.Errorf("failed: %s", name)
		case v == passed && known && !races:
			t.Errorf("passes, and needs its line in testdata/h2spec.txt no longer: %s", name)
		}
	}
	for name := range allowed {
		t.Errorf("testdata/h2spec.txt names a test that does not exist: %s", name)
	}
	if t.Failed() {
		t.Logf("%s", output)
	}
	r.works(t)
}

// insists reports whether a test that lost its race goes on to fail.
func (h h2spec) insists(t *testing.T, name string) bool {
	t.Helper()
	section, _, _ := strings.Cut(name, " | ")
	for range again {
		if verdicts, _ := h.run(t, section); verdicts[name] == passed {
			t.Logf("failed once, and then passed: %s", name)
			return false
		}
	}
	return true
}

// run runs the given sections, all of them if none is given, and returns the verdict on each test, by "package | test".
func (h h2spec) run(t *testing.T, sections ...string) (verdicts map[string]verdict, output []byte) {
	t.Helper()
	report := filepath.Join(t.TempDir(), "report.xml")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	// Its exit code only says whether anything failed. The path is one whose answer has a body and needs no key.
	args := append(sections, "--port", h.port, "--path", "/v1/status/healthz", "--timeout", "5", "--strict", "--junit-report", report)
	output, _ = exec.CommandContext(ctx, h.tool, args...).CombinedOutput()
	content, err := os.ReadFile(report)
	if err != nil {
		t.Fatalf("no report: %v\n%s", err, output)
	}
	var found struct {
		Suites []struct {
			Cases []struct {
				Package string    `xml:"package,attr"`
				Name    string    `xml:"classname,attr"`
				Failure *struct{} `xml:"failure"`
				Error   *struct{} `xml:"error"`
				Skipped *struct{} `xml:"skipped"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(content, &found); err != nil {
		t.Fatal(err)
	}
	verdicts = map[string]verdict{}
	for _, suite := range found.Suites {
		for _, c := range suite.Cases {
			v := passed
			switch {
			case c.Skipped != nil:
				v = skipped
			case c.Failure != nil || c.Error != nil:
				v = failed
			}
			name := c.Package + " | " + c.Name
			verdicts[name] = max(v, verdicts[name]) // Two tests may have one name.
		}
	}
	return verdicts, output
}

// allowance reads the list of what may fail: the test to the reason.
func allowance(t *testing.T) map[string]string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("testdata", "h2spec.txt"))
	if err != nil {
		t.Fatal(err)
	}
	allowed := map[string]string{}
	for line := range strings.Lines(string(content)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		parts := strings.SplitN(line, " | ", 3)
		if len(parts) != 3 {
			t.Fatalf("testdata/h2spec.txt: %q is not: package | test | reason", line)
		}
		allowed[parts[0]+" | "+parts[1]] = parts[2]
	}
	return allowed
}
