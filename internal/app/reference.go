package app

import (
	"fmt"
	"strings"
)

// Setting describes one line of the table, for the command line.
type Setting struct {
	Path, Flag, Env, Doc, Default string
}

// Settings lists the table in its order.
func Settings() []Setting {
	c := Default()
	list := make([]Setting, 0, len(settings))
	for _, s := range settings {
		v := s.value(&c)
		doc := s.doc
		if w, ok := v.(word); ok && len(w.options) > 1 {
			doc += " One of " + strings.Join(w.options, ", ") + "."
		}
		list = append(list, Setting{Path: s.path, Flag: s.flag, Env: s.env(), Doc: doc, Default: v.String()})
	}
	return list
}

const referenceHead = `# Configuration

This page is made from the table in internal/app/config.go: ` + "`api-router check --settings`" + ` prints it, and a test keeps the copy in docs true.

A flag wins over the environment, the environment over the file (` + "`serve --config FILE`" + `, YAML), the file over the default.
An empty environment variable counts as not set, except where the table says what empty means. Unknown keys in the file are
errors; every problem is reported at once, with its position. ` + "`api-router check --config FILE`" + ` does that offline.

`

const referenceAliases = `
## Variables of the earlier service

A deployment of the service that this one replaces may keep its environment. Ours wins: a flag, an API_ROUTER_ variable or a
line in the file stands above these (LOG_LEVEL alone stands above the file). The log says at start which were used.

| variable | sets |
|---|---|
`

const referenceTelemetry = `
Its OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_EXPORTER_OTLP_INSECURE mean what they meant, with all of OpenTelemetry's other variables:
see [telemetry.md](telemetry.md).
`

// Reference is the page that documents every setting, in Markdown.
func Reference() string {
	var page strings.Builder
	page.WriteString(referenceHead)
	page.WriteString("| setting | environment | flag of serve | default | meaning |\n|---|---|---|---|---|\n")
	for _, s := range Settings() {
		fmt.Fprintf(&page, "| `%s` | `%s` | %s | %s | %s |\n", s.Path, s.Env, code("--", s.Flag), code("", s.Default), s.Doc)
	}
	page.WriteString(referenceAliases)
	for _, a := range aliases {
		meaning := "nothing yet: it has no effect in this version, and one line of the log says so"
		switch {
		case a.set != nil && a.paths[0] == "":
			meaning = "backends, as `id:url,id:url`; a path that begins with /v1/ is cut off the URL. Policies may name them as if a document had declared them"
		case a.set != nil:
			meaning = "`" + strings.Join(a.paths, "`, `") + "`"
		}
		fmt.Fprintf(&page, "| `%s` | %s |\n", a.env, meaning)
	}
	page.WriteString(referenceTelemetry)
	return page.String()
}

func code(prefix, text string) string {
	if text == "" {
		return ""
	}
	return "`" + prefix + text + "`"
}
