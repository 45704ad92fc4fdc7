package state

import (
	"errors"
	"testing"
)

func TestAServerOfBeforeAFailoverIsKnownBySeeingItsSuccessorOnce(t *testing.T) {
	first, promoted, upgraded := server{"1", 1}, server{"1", 2}, server{"2", 1}
	type step struct {
		meets server
		want  error
	}
	for name, openings := range map[string][][]step{
		"one server":                           {{{first, nil}, {first, nil}}, {{first, nil}}},
		"a standby is promoted":                {{{first, nil}, {promoted, errAnother}}, {{promoted, nil}, {first, errBefore}}},
		"the old primary is back first":        {{{first, nil}, {promoted, errAnother}}, {{first, errBefore}, {promoted, nil}}},
		"it was served before the old is back": {{{promoted, nil}}, {{first, errBefore}}},
		"a new cluster takes the place":        {{{promoted, nil}, {upgraded, errAnother}}, {{upgraded, nil}}},
		"another cluster was met by mistake":   {{{promoted, nil}, {upgraded, errAnother}}, {{promoted, nil}, {first, errBefore}}},
	} {
		n := &newest{}
		for i, opening := range openings {
			var pinned server
			for j, step := range opening {
				if err := n.admit(&pinned, step.meets); !errors.Is(err, step.want) {
					t.Errorf("%s: opening %d, connection %d to %+v: %v, want %v", name, i, j, step.meets, err, step.want)
				}
			}
		}
	}
}
