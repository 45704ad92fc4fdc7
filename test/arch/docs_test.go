package arch

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ai-aas/api-router/internal/fault"
)

// sections are the headings that each error page has, in this order.
var sections = []string{"## What happened", "## Typical causes", "## What to do", "## Example"}

// pageHead is the generated top of an error's page.
func pageHead(e fault.Entry) string {
	retry := "sending the same request again does not help"
	if e.Retry {
		retry = "sending the same request again can help"
	}
	return fmt.Sprintf("# %s\n\nCode `%s`, HTTP status %d, type `%s`; %s.\n", e.Title, e.Code, e.Status, e.Type, retry)
}

// errorIndex is the generated docs/errors/README.md.
func errorIndex(entries []fault.Entry) string {
	var b strings.Builder
	b.WriteString(indexHead)
	for _, e := range entries {
		retry := "no"
		if e.Retry {
			retry = "yes"
		}
		fmt.Fprintf(&b, "| %d | [`%s`](%s.md) | %s | %s |\n", e.Status, e.Code, e.Code, e.Title, retry)
	}
	return b.String()
}

const indexHead = `# Errors

<!-- Written by "make docs" from the catalogue in internal/fault. -->

Every error of the router is OpenAI's envelope with all four keys, and the id of its trace:

` + "```json" + `
{"error":{"message":"…","type":"…","param":null,"code":"…","trace_id":"…"}}
` + "```" + `

Branch on ` + "`code`" + `, show ` + "`message`" + `, quote ` + "`trace_id`" + ` or the ` + "`x-request-id`" + ` header to the operator. The header ` + "`x-should-retry`" + ` says
whether the same request can succeed later; where ` + "`retry-after`" + ` is present, wait that long first. Inside a stream an error comes as
one last event ` + "`data: {\"error\":…}`" + ` without ` + "`data: [DONE]`" + `, and the connection is aborted.

A backend's own 4xx about the request, such as a prompt longer than the model's context, passes through as the backend wrote it and is not in this list.

| status | code | what it means | retry |
|---|---|---|---|
`

// checkErrorPages compares the pages in dir with the catalogue: one page each, with the right head and sections, and no other.
func checkErrorPages(dir string, entries []fault.Entry) []string {
	var findings []string
	want := map[string]bool{"README.md": true}
	for _, e := range entries {
		name := string(e.Code) + ".md"
		want[name] = true
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			findings = append(findings, fmt.Sprintf("%s: the code %s has no page", name, e.Code))
			continue
		}
		findings = append(findings, checkErrorPage(name, string(content), e)...)
	}
	index, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil || string(index) != errorIndex(entries) {
		findings = append(findings, "README.md: is not what the catalogue says; run make docs")
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return append(findings, err.Error())
	}
	for _, f := range files {
		if !want[f.Name()] {
			findings = append(findings, f.Name()+": a page without a code")
		}
	}
	return findings
}

func checkErrorPage(name, content string, e fault.Entry) []string {
	var findings []string
	if !strings.HasPrefix(content, pageHead(e)) {
		findings = append(findings, name+": the head is not what the catalogue says; run make docs")
	}
	at := 0
	for _, heading := range sections {
		i := strings.Index(content[at:], "\n"+heading+"\n")
		if i < 0 {
			findings = append(findings, fmt.Sprintf("%s: no section %q, or not in its place", name, heading))
			continue
		}
		at += i
	}
	if e.Code != fault.ClientClosed && !strings.Contains(content[at:], fmt.Sprintf(`"code":%q`, e.Code)) {
		findings = append(findings, fmt.Sprintf("%s: the example does not show the code %s", name, e.Code))
	}
	return findings
}

// writeErrorPages rewrites the generated parts: the index whole, and the head of each page that there is.
func writeErrorPages(dir string, entries []fault.Entry) error {
	for _, e := range entries {
		name := filepath.Join(dir, string(e.Code)+".md")
		content, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		_, body, found := strings.Cut(string(content), "\n"+sections[0]+"\n")
		if !found {
			return fmt.Errorf("%s: no section %q", name, sections[0])
		}
		if err := os.WriteFile(name, []byte(pageHead(e)+"\n"+sections[0]+"\n"+body), 0o600); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "README.md"), []byte(errorIndex(entries)), 0o600)
}

// TestDocsErrors keeps docs/errors true. UPDATE_DOCS=1 writes the generated parts.
func TestDocsErrors(t *testing.T) {
	dir := filepath.Join(moduleRoot(t), "docs", "errors")
	if os.Getenv("UPDATE_DOCS") != "" {
		if err := writeErrorPages(dir, fault.Catalogue()); err != nil {
			t.Fatal(err)
		}
	}
	for _, finding := range checkErrorPages(dir, fault.Catalogue()) {
		t.Error("docs/errors/" + finding)
	}
}

func TestErrorPagesThatAreWrongAreFound(t *testing.T) {
	entry := fault.Catalogue()[0]
	good := pageHead(entry) + "\n" + strings.Join(sections, "\n\ntext\n\n") + "\n\n    {\"error\":{\"code\":\"" + string(entry.Code) + "\"}}\n"
	files := func() map[string]string {
		return map[string]string{string(entry.Code) + ".md": good, "README.md": errorIndex([]fault.Entry{entry})}
	}
	if got := checkErrorPages(build(t, files()), []fault.Entry{entry}); len(got) > 0 {
		t.Fatalf("good pages were blamed: %v", got)
	}
	page := string(entry.Code) + ".md"
	cases := []struct{ name, file, content, want string }{
		{"no page", page, "", "has no page"},
		{"another title", page, strings.Replace(good, entry.Title, "Something else", 1), "head"},
		{"no section", page, strings.Replace(good, sections[1], "## Nothing", 1), "no section"},
		{"sections out of order", page, pageHead(entry) + "\n" + strings.Join([]string{sections[1], sections[0], sections[2], sections[3]}, "\n\n") + "\n", "not in its place"},
		{"an example of another code", page, strings.Replace(good, `"code":"`+string(entry.Code), `"code":"other`, 1), "example"},
		{"a page too many", "left_over.md", "# Left over\n", "left_over.md: a page without a code"},
		{"an old index", "README.md", "# Errors\n", "README.md: is not what the catalogue says"},
	}
	for _, c := range cases {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			tree := files()
			tree[c.file] = c.content
			if c.content == "" {
				delete(tree, c.file)
			}
			got := checkErrorPages(build(t, tree), []fault.Entry{entry})
			if !slices.ContainsFunc(got, func(f string) bool { return strings.Contains(f, c.want) }) {
				t.Errorf("findings %q, want one with %q", got, c.want)
			}
		})
	}
}

func TestUpdateMendsTheGeneratedParts(t *testing.T) {
	entry := fault.Catalogue()[0]
	dir := build(t, map[string]string{
		string(entry.Code) + ".md": "# Old title\n\nold line\n\n" + strings.Join(sections, "\n\nkept\n\n") + "\n\n{\"code\":\"" + string(entry.Code) + "\"}\n",
	})
	if err := writeErrorPages(dir, []fault.Entry{entry}); err != nil {
		t.Fatal(err)
	}
	if got := checkErrorPages(dir, []fault.Entry{entry}); len(got) > 0 {
		t.Errorf("after the update: %v", got)
	}
	content, err := os.ReadFile(filepath.Join(dir, string(entry.Code)+".md"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(content), "kept") != len(sections)-1 {
		t.Errorf("the written part was changed:\n%s", content)
	}
}
