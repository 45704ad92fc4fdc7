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
)

// suites is the report of h2spec, in JUnit's form.
type suites struct {
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

// TestH2spec lets h2spec judge the public listener. testdata/h2spec.txt lists what it may find, each with its reason.
func TestH2spec(t *testing.T) {
	// It is built from the module in h2spec/, which pins it and all that it needs.
	tool, err := filepath.Abs(filepath.Join("..", "..", ".tools", "bin", "h2spec"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(tool); err != nil {
		required(t, "HTTP/2 by h2spec: it is not there; scripts/prepare h2spec builds it")
	}
	allowed := allowance(t)
	r := start(t, nil)
	_, port, err := net.SplitHostPort(r.addr)
	if err != nil {
		t.Fatal(err)
	}
	report := filepath.Join(t.TempDir(), "report.xml")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	// Its exit code only says whether anything failed. The path is one whose answer has a body and needs no key.
	output, _ := exec.CommandContext(ctx, tool, "--port", port, "--path", "/v1/status/healthz", "--timeout", "5", "--strict", "--junit-report", report).CombinedOutput()
	content, err := os.ReadFile(report)
	if err != nil {
		t.Fatalf("no report: %v\n%s", err, output)
	}
	var found suites
	if err := xml.Unmarshal(content, &found); err != nil {
		t.Fatal(err)
	}
	judged := 0
	for _, suite := range found.Suites {
		for _, c := range suite.Cases {
			name := c.Package + " | " + c.Name
			_, known := allowed[name]
			failed := c.Failure != nil || c.Error != nil
			delete(allowed, name)
			switch {
			case c.Skipped != nil:
				t.Errorf("skipped: %s", name)
			case failed && !known:
				t.Errorf("failed: %s", name)
			case !failed && known:
				t.Errorf("passes, and needs its line in testdata/h2spec.txt no longer: %s", name)
			}
			judged++
		}
	}
	for name := range allowed {
		t.Errorf("testdata/h2spec.txt names a test that does not exist: %s", name)
	}
	if judged < 140 {
		t.Errorf("h2spec ran %d tests only", judged)
	}
	if t.Failed() {
		t.Logf("%s", output)
	}
	r.works(t)
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
