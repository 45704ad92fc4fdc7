package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// explainMistakes gives what is wrong with a command line this program's words. Without it a command of a group that does not exist would even
// succeed, with the group's help.
func explainMistakes(root *cobra.Command) {
	root.SetFlagErrorFunc(flagMistake)
	root.PersistentPreRunE = func(c *cobra.Command, _ []string) error { return missing(c) }
	for _, group := range root.Commands() {
		if group.HasSubCommands() && !group.Runnable() {
			group.Args, group.RunE = cobra.ArbitraryArgs, noCommand
			group.SuggestionsMinimumDistance, group.DisableFlagsInUseLine = root.SuggestionsMinimumDistance, true
		}
	}
}

// noCommand answers a call without a command, or with one that does not exist.
func noCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return c.Help()
	}
	return fmt.Errorf("there is no command %q%s (%s --help lists them)", short(c, spoken(args[0])), meant("", c.SuggestionsFor(args[0])), c.CommandPath())
}

// meant asks whether one of the names was meant, each of which is written behind dashes.
func meant(dashes string, names []string) string {
	if len(names) == 0 {
		return ""
	}
	return "; did you mean " + dashes + strings.Join(names, " or "+dashes) + "?"
}

// spoken is an argument as a message repeats it: never a secret that stands there by mistake.
func spoken(arg string) string {
	for _, secret := range []string{"ar_", "ara_", "ars_"} {
		if strings.HasPrefix(arg, secret) {
			return secret + "…"
		}
	}
	return arg
}

// noArguments is for commands that have flags alone.
func noArguments(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return fmt.Errorf("%s takes no argument, and got %q (%s --help)", short(c), spoken(args[0]), c.CommandPath())
}

// oneArgument is for commands that need none and take one.
func oneArgument(c *cobra.Command, args []string) error {
	if len(args) <= 1 {
		return nil
	}
	return fmt.Errorf("%s takes one argument, and got %q, too (%s --help)", short(c), spoken(args[1]), c.CommandPath())
}

// short is a command with what follows it, without the program's own name.
func short(c *cobra.Command, more ...string) string {
	return strings.Join(append(strings.Fields(c.CommandPath())[1:], more...), " ")
}

// full marks flags that may be left out, but must not be empty.
const full = "api-router: not empty"

// notEmpty marks flags whose absence allows more than their presence: an unset variable of a script must not make a key that lasts for ever.
func notEmpty(c *cobra.Command, flags ...string) {
	for _, flag := range flags {
		if err := c.Flags().SetAnnotation(flag, full, nil); err != nil {
			panic(c.Name() + ": " + err.Error()) // The flag was added before.
		}
	}
}

// missing says which flag a command needs and did not get.
func missing(c *cobra.Command) (err error) {
	c.Flags().VisitAll(func(f *pflag.Flag) {
		_, needed := f.Annotations[cobra.BashCompOneRequiredFlag]
		_, marked := f.Annotations[full]
		switch {
		case err != nil || f.Value.String() != "":
		case f.Changed && (needed || marked):
			err = flagError(c, f, "is empty")
		case needed:
			err = flagError(c, f, "is missing")
		}
	})
	return err
}

// flagError says what is wrong with a flag that there is, and what it is for.
func flagError(c *cobra.Command, f *pflag.Flag, wrong string) error {
	_, what := pflag.UnquoteUsage(f)
	return fmt.Errorf("--%s %s: %s (%s --help)", f.Name, wrong, what, c.CommandPath())
}

// flagMistake says what is wrong with a flag that could not be read.
func flagMistake(c *cobra.Command, err error) error {
	if args := c.Flags().Args(); c.HasSubCommands() && len(args) > 0 { // There is no such command, so nobody knows its flags.
		return noCommand(c, args)
	}
	if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok {
		return noFlag(c, unknown)
	}
	if empty, ok := errors.AsType[*pflag.ValueRequiredError](err); ok {
		return flagError(c, empty.GetFlag(), "needs a value")
	}
	if wrong, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		return fmt.Errorf("--%s %q%s (%s --help)", wrong.GetFlag().Name, spoken(wrong.GetValue()), unfit(wrong), c.CommandPath())
	}
	return fmt.Errorf("%w (%s --help)", err, c.CommandPath())
}

// unfit says what a value is not.
func unfit(wrong *pflag.InvalidValueError) string {
	if _, ok := errors.AsType[*strconv.NumError](wrong.Unwrap()); !ok { // It speaks for itself.
		return ": " + wrong.Unwrap().Error()
	}
	switch wrong.GetFlag().Value.Type() {
	case "bool":
		return " is neither true nor false"
	case "float64":
		return " is no number"
	}
	return " is no whole number"
}

func noFlag(c *cobra.Command, unknown *pflag.NotExistError) error {
	if c.HasSubCommands() && c.HasParent() {
		return fmt.Errorf("there is no flag --%[1]s of %[2]s itself: flags stand behind the whole command (%[2]s --help lists the commands)", unknown.GetSpecifiedName(), c.CommandPath())
	}
	if unknown.GetSpecifiedShortnames() != "" {
		return fmt.Errorf("there is no flag -%s (%s --help lists them)", unknown.GetSpecifiedName(), c.CommandPath())
	}
	names := &cobra.Command{SuggestionsMinimumDistance: c.Root().SuggestionsMinimumDistance} // Cobra knows what is near among commands alone.
	c.Flags().VisitAll(func(f *pflag.Flag) {
		names.AddCommand(&cobra.Command{Use: f.Name, Run: func(*cobra.Command, []string) {}})
	})
	name := unknown.GetSpecifiedName()
	return fmt.Errorf("there is no flag --%s%s (%s --help lists them)", name, meant("--", names.SuggestionsFor(name)), c.CommandPath())
}
