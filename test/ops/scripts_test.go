package ops

import (
	"os/exec"
	"testing"

	"github.com/ai-aas/api-router/test/rig"
)

func TestScriptsHaveNoMistakeThatShellcheckKnows(t *testing.T) {
	scripts := files(t, "scripts/*")
	if out, err := exec.CommandContext(t.Context(), rig.Tool(t, "shellcheck"), scripts...).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
