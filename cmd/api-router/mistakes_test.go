package main

import (
	"strings"
	"testing"
)

func TestAMistakeAtTheCommandLineSaysWhatToDo(t *testing.T) {
	for args, want := range map[string]string{
		"key list":                         `--org is missing: ORGANIZATION that the key belongs to (api-router key list --help)`,
		"key list --org=":                  `--org is empty: ORGANIZATION that the key belongs to (api-router key list --help)`,
		"key list --org":                   `--org needs a value: ORGANIZATION that the key belongs to (api-router key list --help)`,
		"key list --ogr acme":              `there is no flag --ogr; did you mean --org? (api-router key list --help lists them)`,
		"key list --orga acme":             `there is no flag --orga; did you mean --org? (api-router key list --help lists them)`,
		"key list --zebra":                 `there is no flag --zebra (api-router key list --help lists them)`,
		"key list -z":                      `there is no flag -z (api-router key list --help lists them)`,
		"serve --lisen :1":                 `there is no flag --lisen; did you mean --listen? (api-router serve --help lists them)`,
		"key list --=x":                    `bad flag syntax: --=x (api-router key list --help)`,
		"version -o":                       `--output needs a value: FORMAT: text or json (api-router version --help)`,
		"key list --org acme --limit many": `--limit "many" is no whole number (api-router key list --help)`,
		"key list --org acme --limit 99999999999999999999": `--limit "99999999999999999999" is no whole number`,
		"simulate --speed fast":                            `--speed "fast" is no number (api-router simulate --help)`,
		"key update --org acme 1a2B3c4D --priority=yes":    `--priority "yes" is neither true nor false (api-router key update --help)`,
		"log-level debug --for soon":                       `--for "soon": a length of time is above 0, and written as in 90d, 12h or 30m (api-router log-level --help)`,
		"log-level debug info":                             `log-level takes one argument, and got "info", too (api-router log-level --help)`,
		"model disable a b --reason x":                     `model disable takes one argument, and got "b", too`,
		"key create --org acme --expires=":                 `--expires is empty: when it ends: in a TIME such as 90d`,
		"key create --org acme --signed=":                  `--signed is empty: `,
		"key import --org acme --project=":                 `--project is empty: `,
		"admin create olga --role viewer --expires=":       `--expires is empty: `,
		"admin set olga --role viewer --expires=":          `--expires is empty: `,
		"dev now":                  `dev takes no argument, and got "now" (api-router dev --help)`,
		"key list --org acme shop": `key list takes no argument, and got "shop" (api-router key list --help)`,
		"sevre --listen :1":        `there is no command "sevre"; did you mean serve? (api-router --help lists them)`,
		"key revok --org acme 1a2B3c4D --reason stolen": `there is no command "key revok"; did you mean revoke? (api-router key --help lists them)`,
		"key ar_1a2B3c4D_hush":                          `there is no command "key ar_…" (api-router key --help lists them)`,
		"key list --org acme ar_1a2B3c4D_hush":          `takes no argument, and got "ar_…"`,
		"admin ara_1a2B3c4D_hush":                       `there is no command "admin ara_…"`,
		"org lis":                                       `there is no command "org lis"; did you mean list? (api-router org --help lists them)`,
		"backend drian a":                               `did you mean drain?`,
		"audit --kind key":                              `there is no flag --kind of api-router audit itself: flags stand behind the whole command (api-router audit --help lists the commands)`,
	} {
		code, out, message := command(t, strings.Fields(args)...)
		if code != 1 || out != "" || !strings.HasPrefix(message, "api-router: ") || strings.Count(message, "\n") != 1 || !strings.Contains(message, want) || strings.Contains(message, "hush") {
			t.Errorf("%s: %d, %q, %q; want %q", args, code, out, message, want)
		}
	}
	for _, group := range []string{"key", "org", "project", "admin", "audit", "backend", "model"} {
		code, out, message := command(t, group)
		if code != 0 || message != "" || !strings.Contains(out, "Available Commands:") || !strings.Contains(out, "\n  api-router "+group+" [command]\n") || strings.Contains(out, "[flags]\n") {
			t.Errorf("%s: %d, %q, %s", group, code, message, out)
		}
	}
}
