package ops

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// chapters are the headings that each runbook has, in this order.
var chapters = []string{"## What you see", "## Why it happens", "## What to check", "## What to do", "## How to prevent it"}

func TestRunbooksHaveTheirChaptersAndStandInTheIndex(t *testing.T) {
	index := read(t, filepath.Join(runbooks, "README.md"))
	for _, path := range files(t, "docs/runbooks/*.md") {
		name := filepath.Base(path)
		if name == "README.md" {
			continue
		}
		text, at := read(t, path), 0
		for _, heading := range chapters {
			i := strings.Index(text[at:], "\n"+heading+"\n")
			if i < 0 {
				t.Errorf("%s: no chapter %q, or not in its place", name, heading)
				continue
			}
			at += i
		}
		row := ""
		for line := range strings.Lines(index) {
			if strings.HasPrefix(line, "| ["+strings.TrimSuffix(name, ".md")+"]("+name+") |") {
				row = line
			}
		}
		if row == "" {
			t.Errorf("%s: not in the index", name)
		}
		for _, r := range readRules(t) {
			if r.Alert != "" && strings.HasSuffix(r.Annotations["runbook_url"], "/"+name) != strings.Contains(row, "`"+r.Alert+"`") {
				t.Errorf("%s: the index and the rules do not agree about %s", name, r.Alert)
			}
		}
	}
}

func TestTextsNameOnlyAlertsThatThereAre(t *testing.T) {
	there := map[string]bool{}
	for _, r := range readRules(t) {
		there[r.Alert] = true
	}
	alert := regexp.MustCompile(`\bApiRouter[A-Z]\w+`)
	for _, path := range texts(t) {
		for _, found := range alert.FindAllString(read(t, path), -1) {
			if !there[found] {
				t.Errorf("%s: there is no alert %s", path, found)
			}
		}
	}
}

// texts are the pages for operators.
func texts(t *testing.T) []string {
	t.Helper()
	return slices.Concat(files(t, "docs/runbooks/*.md"), files(t, "deploy/*.md"), files(t, "deploy/*/*.md"),
		files(t, "docs/kubernetes.md"), files(t, "docs/migration.md"))
}

func TestLinksOfOperatorsPagesLeadSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#]+)(#[^)]*)?\)`)
	for _, path := range texts(t) {
		for _, found := range link.FindAllStringSubmatch(read(t, path), -1) {
			if strings.Contains(found[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), found[1])); err != nil {
				t.Errorf("%s: %s leads nowhere", path, found[1])
			}
		}
	}
}

func TestSettingsThatOperatorsPagesNameExist(t *testing.T) {
	config := read(t, filepath.Join(root, "docs/config.md"))
	named := regexp.MustCompile("`((?:listen|log|policy|state|identity|usage|server|telemetry)\\.[a-z_.]+|API_ROUTER_[A-Z_]+)")
	own := []string{"API_ROUTER_ADMIN_URL", "API_ROUTER_ADMIN_TOKEN"} // the command line's
	for _, path := range texts(t) {
		for _, found := range named.FindAllStringSubmatch(read(t, path), -1) {
			if setting := strings.TrimRight(found[1], "."); !slices.Contains(own, setting) && !strings.Contains(config, "`"+setting+"`") {
				t.Errorf("%s: docs/config.md knows no %s", path, setting)
			}
		}
	}
}

var (
	block  = regexp.MustCompile("(?ms)^```[a-z]*\n(.*?)^```$")
	inline = regexp.MustCompile("`(api-router [^`]+)`")
	quoted = regexp.MustCompile(`"(api-router [^"]+)"`) // in texts that are not Markdown; on a page, quotes are for lines of the log
	assign = regexp.MustCompile(`^([A-Z_]+=\S* +)+`)
	// word is one as a shell cuts them.
	word = regexp.MustCompile(`'[^']*'|"[^"]*"|\S+`)
)

// commands are the command lines of this program on a page: in blocks, and in running text between backticks.
func commands(text string) []string {
	var all []string
	for _, found := range block.FindAllStringSubmatch(text, -1) {
		for line := range strings.Lines(found[1]) {
			line = assign.ReplaceAllString(strings.TrimSpace(line), "")
			if strings.HasPrefix(line, "api-router ") {
				all = append(all, line)
			}
		}
	}
	for _, found := range inline.FindAllStringSubmatch(block.ReplaceAllString(text, ""), -1) {
		all = append(all, found[1])
	}
	return all
}

func TestCommandsOfOperatorsPagesExist(t *testing.T) {
	h := help{}
	count := 0
	check := func(where, line string) {
		count++
		if problem := h.check(t, line); problem != "" {
			t.Errorf("%s: %s: %s", where, line, problem)
		}
	}
	for _, path := range texts(t) {
		for _, line := range commands(read(t, path)) {
			check(path, line)
		}
	}
	for _, r := range readRules(t) {
		for _, found := range quoted.FindAllStringSubmatch(r.Annotations["description"], -1) {
			check(r.Alert, found[1])
		}
	}
	for _, d := range readDashboards(t) {
		for _, p := range d.Panels {
			for _, found := range quoted.FindAllStringSubmatch(p.Description, -1) {
				check(d.file+": "+p.Title, found[1])
			}
		}
	}
	if count < 50 {
		t.Errorf("only %d commands were found", count)
	}
}

// help is what the program says of its commands, by command.
type help map[string]string

func (h help) of(t *testing.T, path string) string {
	t.Helper()
	if text, ok := h[path]; ok {
		return text
	}
	out, err := exec.CommandContext(t.Context(), binary, append(strings.Fields(path), "--help")...).CombinedOutput()
	if err != nil {
		t.Fatalf("api-router %s --help: %v: %s", path, err, out)
	}
	h[path] = string(out)
	return h[path]
}

// check says what is wrong with a command line; "" is nothing.
func (h help) check(t *testing.T, line string) string {
	t.Helper()
	words := word.FindAllString(line, -1)[1:]
	for i, w := range words { // What follows is the shell's.
		if strings.HasPrefix(w, "#") || w == "|" || w == ">" || w == "&" || w == "&&" {
			words = words[:i]
			break
		}
	}
	path := ""
	for len(words) > 0 && strings.Contains(h.of(t, path), "\nAvailable Commands:\n") {
		if !strings.Contains(h.of(t, path), "\n  "+words[0]+" ") {
			return "there is no command " + words[0]
		}
		path, words = strings.TrimSpace(path+" "+words[0]), words[1:]
	}
	for _, w := range words {
		flag, _, _ := strings.Cut(w, "=")
		if !strings.HasPrefix(flag, "-") || flag == "-" {
			continue
		}
		if !regexp.MustCompile(`(?m)^ +(-\w, )?.*` + regexp.QuoteMeta(flag) + `[ ,]`).MatchString(h.of(t, path)) {
			return path + " has no flag " + flag
		}
	}
	return ""
}

func TestCommandsThatDoNotExistAreFound(t *testing.T) {
	cases := map[string]string{
		"api-router backend drain vllm-a --reason \"a --bad word\" --for 2h": "",
		"api-router get policies -o yaml > policies.yaml":                    "",
		"api-router backend dry vllm-a":                                      "no command dry",
		"api-router get policies --broken":                                   "no flag --broken",
		"api-router sttus":                                                   "no command sttus",
	}
	h := help{}
	for line, want := range cases {
		if got := h.check(t, line); (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("%s: got %q, want %q", line, got, want)
		}
	}
}
