package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/ai-aas/api-router/internal/adminapi"
)

func TestTheHistoryOfDocumentsIsListedInPages(t *testing.T) {
	c := openCounter(t)
	for i := range 3 {
		c.do(fmt.Sprint("backend drain sim-a --reason r", i))
		c.do("backend enable sim-a")
	}
	lists := func(args string) (revisions []int64, next string) {
		t.Helper()
		var page adminapi.History
		if err := json.Unmarshal([]byte(c.do(args+" -o json")), &page); err != nil {
			t.Fatal(err)
		}
		for _, change := range page.Items {
			revisions = append(revisions, change.Revision)
		}
		return revisions, page.Next
	}
	for _, command := range []string{"history", "history mark backend.sim-a"} {
		all, next := lists(command + " --limit 0")
		if len(all) < 6 || next != "" {
			t.Fatalf("%s: %v, next %q", command, all, next)
		}
		if newest, next := lists(command); !slices.Equal(newest, all) || next != "" {
			t.Errorf("%s: %v, next %q; all are %v", command, newest, next, all)
		}
		var turned []int64
		for before := ""; ; {
			some, next := lists(command + " --limit 4" + before)
			if turned = append(turned, some...); next == "" {
				break
			}
			c.do(command+" --limit 4"+before, "What is older: --before "+next)
			before = " --before " + next
		}
		if !slices.Equal(turned, all) {
			t.Errorf("%s: in pages %v, as a whole %v", command, turned, all)
		}
	}
	c.fails("history --before x", "before is the next of the page before")
	c.fails("history --limit -1", "--limit must be above 0")
	c.fails("history mark", "a KIND and an ID")
}
