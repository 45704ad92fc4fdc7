package ops

import (
	"os/exec"
	"testing"
)

func TestScriptsHaveNoMistakeThatShellcheckKnows(t *testing.T) {
	path, err := exec.LookPath("shellcheck")
	if err != nil {
		lacking(t, `there is no shellcheck on PATH: "scripts/prepare shellcheck" installs it`)
	}
	scripts := files(t, "scripts/*")
	if out, err := exec.CommandContext(t.Context(), path, scripts...).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
