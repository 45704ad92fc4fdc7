package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/ai-aas/api-router/internal/app"
)

// release is set by the linker in a release build: -X main.release=v1.2.3.
var release string

// build is what a binary knows of its own making.
type build struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Time     string `json:"commit_time,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func built() build {
	b := build{Version: release, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.time":
			b.Time = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	if b.Version == "" && info.Main.Version != "" && info.Main.Version != "(devel)" {
		b.Version = info.Main.Version
	}
	return b
}

// version is the short form for logs and headers.
func version() string {
	b := built()
	switch {
	case b.Version != "":
		return b.Version
	case len(b.Commit) >= 12:
		return "devel-" + b.Commit[:12]
	default:
		return "devel"
	}
}

func versionCommand(p app.Process) *cobra.Command {
	c := &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  api-router version\n  api-router version -o json",
		Args:    noArguments,
	}
	format := c.Flags().StringP("output", "o", "text", "`FORMAT`: text or json")
	c.RunE = func(*cobra.Command, []string) error {
		b := built()
		b.Version = version()
		switch *format {
		case "json":
			encoder := json.NewEncoder(p.Stdout)
			encoder.SetIndent("", "  ")
			return encoder.Encode(b)
		case "text":
			_, err := fmt.Fprintf(p.Stdout, "api-router %s (%s, %s)\n", b.Version, b.Go, b.Platform)
			return err
		default:
			return fmt.Errorf("--output: %q is none of text, json", *format)
		}
	}
	return c
}
