package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestAKillSwitchStopsBothReplicas(t *testing.T) {
	e := startEtcd(t, anyEtcd(t))
	url := engine(t)
	e.route(t, url)
	source := []string{"policy.source=etcd", "policy.etcd.endpoints=" + e.endpoint()}
	left, right := serve(t, source...), serve(t, source...)
	both := func(check func(*router) error) func() error {
		return func() error {
			if err := check(left); err != nil {
				return fmt.Errorf("left: %w", err)
			}
			if err := check(right); err != nil {
				return fmt.Errorf("right: %w", err)
			}
			return nil
		}
	}
	serving := both(func(r *router) error { return r.served("north") })
	eventually(t, "both serve", serving)

	for _, target := range []struct {
		name string
		args []string
		stop func(*router) error
	}{
		{"model", []string{"model", "disable", model}, func(r *router) error {
			return r.refused(http.StatusServiceUnavailable, "model_disabled")
		}},
		{"backend", []string{"backend", "disable", "north"}, func(r *router) error {
			a, err := r.ask()
			if err == nil && a.status != http.StatusServiceUnavailable {
				err = fmt.Errorf("got %d", a.status)
			}
			return err
		}},
	} {
		const length = 3 * time.Second
		begun := time.Now()
		out, err := command(t, left.as(operatorToken), append(target.args, "--reason", "it talks nonsense", "--for", length.String())...)
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		within(t, target.name+" disabled on both", eventually(t, target.name+" disabled on both", both(target.stop)), prompt)
		if a, err := right.ask(); err != nil || strings.Contains(a.body, "north") || strings.Contains(a.body, "olga") || target.name == "model" && !strings.Contains(a.body, "it talks nonsense") {
			t.Errorf("got %v %+v", err, a)
		}
		eventually(t, "both serve again", serving)
		over := time.Since(begun)
		t.Logf("%s: both serve again after %s", target.name, over.Round(time.Millisecond))
		if over < length-time.Second {
			t.Errorf("it was restored too early, after %s", over)
		}
	}
	var out string
	eventually(t, "the audit has both ends", func() error {
		var err error
		out, err = command(t, right.as(operatorToken), "history", "-o", "json")
		if err == nil && strings.Count(out, `"expired"`) < 2 {
			err = fmt.Errorf("no two expiries in %s", out)
		}
		return err
	})
	for what, n := range map[string]int{`"expired"`: 2, `"it talks nonsense"`: 2, `"olga"`: 2} {
		if strings.Count(out, what) < n {
			t.Errorf("the audit has %s less than %d times:\n%s", what, n, out)
		}
	}
}
