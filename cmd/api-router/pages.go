package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

// pageSize is how many things a command asks for at once.
const pageSize = 1000

// pageFlags say which part of a list is to be shown.
type pageFlags struct {
	after string
	limit int
}

func addPageFlags(c *cobra.Command, noun string) *pageFlags {
	p := &pageFlags{}
	c.Flags().StringVar(&p.after, "after", "", fmt.Sprintf("only %s after this `ID`: the next page", noun))
	c.Flags().IntVar(&p.limit, "limit", 0, fmt.Sprintf("at most so many %s; 0 shows all of them", noun))
	return p
}

// gather asks page by page from where a list goes on, until there is no more, or as many as limit says; 0 is all of them. next is where it goes on.
func gather[T any](from string, limit int, ask func(from string, limit int) (items []T, next string, err error)) (all []T, next string, err error) {
	if limit < 0 {
		return nil, "", errors.New("--limit must be above 0, or 0 for all of them")
	}
	all, next = []T{}, from
	for {
		size := pageSize
		if limit > 0 {
			size = min(size, limit-len(all))
		}
		var some []T
		if some, next, err = ask(next, size); err != nil {
			return nil, "", err
		}
		if all = append(all, some...); next == "" || limit > 0 && len(all) >= limit {
			return all, next, nil
		}
	}
}

// The words for where a list goes on, before its next.
const (
	older   = "What is older: --before"
	follows = "What follows: --after"
)

// part is a table that goes on at next, which is said in the words of goesOn.
func (o *operation) part(head []string, rows [][]string, goesOn, next string) error {
	if err := o.table(head, rows); err != nil || next == "" {
		return err
	}
	return o.printf("%s %s; --limit 0 lists all.\n", goesOn, next)
}

// offer completes the values of a flag in a shell.
func offer(c *cobra.Command, flag string, values ...string) {
	if err := c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(c.Name() + ": " + err.Error()) // The flag was added before.
	}
}
