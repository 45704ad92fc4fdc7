package conformance

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ai-aas/api-router/test/rig"
)

// client is an SDK and the script that drives it.
type client struct {
	name     string
	language string
	packages []string // as the registry has them; the first one is the SDK
	script   string
	// runs are the topics of which at least one test has to pass. A test's name begins with its topic.
	runs []string
	// asked is how often the router is asked for what is refused, by the label of the request, with two retries allowed.
	asked map[string]int
}

// speaking are the topics of an SDK that speaks chat.
var speaking = []string{"chat", "stream", "tools", "usage", "embeddings", "recordings", "errors", "retries", "breaks", "direct"}

// obedient is how often an SDK asks that heeds x-should-retry, heedless one that goes by the status alone.
var (
	obedient = map[string]int{
		"wrong-key": 1, "unknown-model": 1, "backend-400": 1, "backend-402": 1, "backend-422": 1, "backend-401": 1, "backend-500": 3, "backend-503": 3,
	}
	heedless = with(obedient, map[string]int{"backend-401": 3})
	notHere  = map[string]int{"unknown-path": 1}
)

func with(counts, others map[string]int) map[string]int {
	all := maps.Clone(counts)
	maps.Copy(all, others)
	return all
}

var clients = []client{
	{"openai", "JavaScript", []string{"openai"}, "openai.test.mjs", append([]string{"models", "completions"}, speaking...), obedient},
	{"AI SDK", "JavaScript", []string{"ai", "@ai-sdk/openai-compatible"}, "aisdk.test.mjs", append([]string{"completions"}, speaking...), heedless},
	{
		"LangChain", "JavaScript",
		[]string{"@langchain/openai", "@langchain/core"},
		"langchain.test.mjs", speaking, with(heedless, map[string]int{"backend-422": 3}),
	},
	{"anthropic", "JavaScript", []string{"@anthropic-ai/sdk"}, "anthropic.test.mjs", []string{"errors", "retries"}, notHere},
	{"openai", "Python", []string{"openai"}, "openai_client.py", append([]string{"models", "completions"}, speaking...), obedient},
	{"LangChain", "Python", []string{"langchain-openai", "langchain-core"}, "langchain_client.py", speaking, obedient},
	{"anthropic", "Python", []string{"anthropic"}, "anthropic_client.py", []string{"errors", "retries"}, notHere},
}

func TestClients(t *testing.T) {
	for _, c := range clients {
		t.Run(c.language+"/"+strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			t.Parallel() // Most of the time goes by while an SDK waits before it tries again.
			c.run(t)
		})
	}
}

// The lines in which the runners tell of a test: TAP, and Python's unittest.
var (
	tapPassed = regexp.MustCompile(`(?m)^ok \d+ - (.+)$`)
	tapFailed = regexp.MustCompile(`(?m)^not ok \d+ - (.+)$`)
	pyPassed  = regexp.MustCompile(`(?m)^(test_\w+) .*\.\.\. ok$`)
	pyFailed  = regexp.MustCompile(`(?m)^(?:FAIL|ERROR): (test_\w+)`)
)

// run drives the SDK against an arena of its own.
func (c client) run(t *testing.T) {
	t.Helper()
	script := filepath.Join("clients", c.script)
	var name string
	var args []string
	passed, failed := tapPassed, tapFailed
	if c.language == "JavaScript" {
		touch(t, script, "clients/stage.mjs", "package-lock.json")
		name, args = node(t, "node_modules/"+c.packages[0]), []string{"--test", "--test-reporter=tap", script}
	} else {
		touch(t, script, "clients/stage.py", "requirements.txt")
		name, args = python(t), []string{script}
		passed, failed = pyPassed, pyFailed
	}
	a := enter(t)
	output, err := a.command(t, name, args...).CombinedOutput()
	topics := report(t, output, err, passed, failed)
	for _, topic := range c.runs {
		if !topics[topic] {
			t.Errorf("no test about %s passed", topic)
		}
	}
	// A request's line comes after its answer.
	rig.Eventually(t, "the router's log tells of what was sent", clientDeadline, func() error { return c.checkRequests(requests(t, a.log, "retries-")) })
}

// checkRequests compares what the router's log tells with what the SDK should have sent.
func (c client) checkRequests(seen map[string]int) error {
	const once = "backend-503-once"
	if n := seen[once]; slices.Contains(c.runs, "chat") && (n < 2 || n > 3) { // The second try may come while the backend still rests.
		return fmt.Errorf("%s: %d requests, want 2", once, n)
	}
	delete(seen, once)
	if !maps.Equal(seen, c.asked) {
		return fmt.Errorf("the router was asked this often:\n%v\nwant\n%v", seen, c.asked)
	}
	return nil
}

// missing skips the test, or fails it where the SDKs must be there.
func missing(t *testing.T, what string) {
	t.Helper()
	rig.Lacking(t, what+" (make test fetches what it can)")
}

// node is the program that runs JavaScript, if it and the package in a folder are there.
func node(t *testing.T, folder string) string {
	t.Helper()
	path, err := exec.LookPath("node")
	if err != nil {
		missing(t, "there is no node")
	}
	if _, err := os.Stat(filepath.Join(filepath.FromSlash(folder), "package.json")); err != nil {
		missing(t, "test/conformance/"+folder+" is not there")
	}
	return path
}

// python is the program that runs Python with the SDKs, if it is there.
func python(t *testing.T) string {
	t.Helper()
	if _, err := os.Stat(filepath.Join("..", "..", ".cache", "venv", "requirements.txt")); err != nil {
		missing(t, "there is no virtual environment in .cache/venv")
	}
	return filepath.Join("..", "..", ".cache", "venv", "bin", "python")
}

// touch makes a file part of what Go's test cache looks at: the clients' scripts are read by other programs, unseen by Go.
func touch(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := os.ReadFile(name); err != nil {
			t.Fatal(err)
		}
	}
}

// report turns the lines of a client's test runner into subtests, and returns the topics of those that passed.
func report(t *testing.T, output []byte, err error, passed, failed *regexp.Regexp) map[string]bool {
	t.Helper()
	topics := map[string]bool{}
	for _, match := range passed.FindAllSubmatch(output, -1) {
		name := string(match[1])
		topics[topic(name)] = true
		t.Run(name, func(*testing.T) {})
	}
	for _, match := range failed.FindAllSubmatch(output, -1) {
		t.Run(string(match[1]), func(t *testing.T) { t.Error("the client's test failed") })
	}
	if err != nil {
		t.Errorf("the client's test runner ended with %v\n%s", err, output)
	}
	return topics
}

// topic is what the name of a client's test begins with: "chat" of "chat: an answer" and of test_chat_answers.
func topic(name string) string {
	name = strings.TrimPrefix(name, "test_")
	if end := strings.IndexAny(name, ":_"); end >= 0 {
		return name[:end]
	}
	return name
}
