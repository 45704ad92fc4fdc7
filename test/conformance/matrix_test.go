package conformance

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// topics are what the clients' tests are about, in the order of the table.
var topics = []string{"models", "chat", "stream", "usage", "tools", "recordings", "completions", "embeddings", "errors", "retries", "breaks", "direct"}

// labels are the requests whose repetitions are counted, in the order of the table, and what they are.
var labels = [][2]string{
	{"wrong-key", "401: the key is not known"},
	{"unknown-model", "404: the model is not known"},
	{"unknown-path", "404: the path is not served"},
	{"backend-400", "400 of the backend, passed on"},
	{"backend-402", "402 of the backend, passed on"},
	{"backend-422", "422 of the backend, passed on"},
	{"backend-401", "502: the backend refuses the router's own key (`x-should-retry: false`)"},
	{"backend-500", "502: the backend failed"},
	{"backend-503", "503: the backend is full (`retry-after: 1`)"},
}

// TestDocsMatrix keeps the tables of README.md to what TestClients demands. UPDATE_DOCS=1 writes them.
func TestDocsMatrix(t *testing.T) {
	const begin, end = "<!-- Written by \"make docs\" from clients_test.go and the lockfiles. -->\n", "<!-- End of the written part. -->\n"
	content, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	head, rest, found := strings.Cut(string(content), begin)
	_, tail, closed := strings.Cut(rest, end)
	if !found || !closed {
		t.Fatal("README.md has no place for the tables")
	}
	want := head + begin + "\n" + matrix(pinned(t)) + "\n" + counts() + "\n" + end + tail
	if os.Getenv("UPDATE_DOCS") != "" {
		if err := os.WriteFile("README.md", []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(content) != want {
		t.Error("README.md is not what the tests do; run make docs")
	}
}

// matrix tells which SDK is tested about what. A topic without a mark is one that the SDK has no call for, or that says nothing new.
func matrix(version func(client, string) string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "| SDK | versions | %s |\n|---|---|%s\n", strings.Join(topics, " | "), strings.Repeat("---|", len(topics)))
	for _, c := range clients {
		var versions []string
		for _, name := range c.packages {
			versions = append(versions, "`"+name+"` "+version(c, name))
		}
		fmt.Fprintf(&b, "| %s, %s | %s |", c.name, c.language, strings.Join(versions, ", "))
		for _, topic := range topics {
			mark := ""
			if slices.Contains(c.runs, topic) {
				mark = "yes"
			}
			fmt.Fprintf(&b, " %s |", mark)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// counts tells how many requests reach the router for one call.
func counts() string {
	var b strings.Builder
	b.WriteString("| what comes back |")
	for _, c := range clients {
		fmt.Fprintf(&b, " %s, %s |", c.name, c.language)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(clients)) + "\n")
	for _, label := range labels {
		fmt.Fprintf(&b, "| %s |", label[1])
		for _, c := range clients {
			if n, ok := c.asked[label[0]]; ok {
				fmt.Fprintf(&b, " %d |", n)
			} else {
				b.WriteString("  |")
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// pinned reads the versions from the lockfiles.
func pinned(t *testing.T) func(client, string) string {
	t.Helper()
	var lock struct {
		Packages map[string]struct {
			Version string `json:"version"`
		} `json:"packages"`
	}
	content, err := os.ReadFile("package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(content, &lock); err != nil {
		t.Fatal(err)
	}
	list, err := os.ReadFile("requirements.txt")
	if err != nil {
		t.Fatal(err)
	}
	return func(c client, name string) string {
		version := lock.Packages["node_modules/"+name].Version
		if c.language == "Python" {
			match := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + `==(\S+)`).FindSubmatch(list)
			if match == nil {
				t.Fatalf("requirements.txt does not pin %s", name)
			}
			version = string(match[1])
		}
		if version == "" {
			t.Fatalf("package-lock.json does not pin %s", name)
		}
		return version
	}
}

// TestEveryExpectationIsInTheTables keeps a new topic or label from going untold.
func TestEveryExpectationIsInTheTables(t *testing.T) {
	for _, c := range clients {
		for _, topic := range c.runs {
			if !slices.Contains(topics, topic) {
				t.Errorf("%s, %s: no column for %s", c.name, c.language, topic)
			}
		}
		for label := range c.asked {
			if !slices.ContainsFunc(labels, func(l [2]string) bool { return l[0] == label }) {
				t.Errorf("%s, %s: no row for %s", c.name, c.language, label)
			}
		}
	}
}

// registry finds the marks of one place's registry in a lockfile.
var registry = regexp.MustCompile(`"resolved":|(?m)^(--|-i |.*@ ?https?://)`)

// TestLockfilesNameNoRegistry keeps the hosts of one place out of the lockfiles: every machine has its own.
func TestLockfilesNameNoRegistry(t *testing.T) {
	for _, name := range []string{"package-lock.json", "prism/package-lock.json", "requirements.txt", "requirements.in"} {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if mark := registry.Find(content); mark != nil {
			t.Errorf("%s has %q", name, mark)
		}
	}
}
