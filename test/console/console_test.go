package console

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// furnish gives a router something of everything that the page shows, hostile names among it.
func furnish(r *router) {
	r.put("/backends/dead", `{"url":"http://127.0.0.1:9","max_concurrency":8}`)
	r.put("/policies/acme-large", `{"model":"gpt-oss-120b","organization":"acme","aliases":["large","gpt-4o"],"fallback_models":["gpt-oss-20b"],`+
		`"backends":[{"id":"dead","weight":70},{"id":"sim-a","tier":1,"weight":30}]}`)
	r.ask(http.MethodPost, r.admin+"/admin/v1/marks", `{"backend":"sim-b","state":"draining","reason":"driver update","for":"2h"}`, http.StatusCreated)
	r.ask(http.MethodPost, r.admin+"/admin/v1/marks", `{"model":"qwen3-8b","organization":"acme","state":"degraded","reason":"<script>alert(1)</script>"}`, http.StatusCreated)
	for range 3 {
		r.chat("gpt-oss-20b", http.StatusOK)
	}
	r.chat("qwen3-8b", http.StatusOK)
	r.chat("<img-src=x-onerror=alert(1)>", http.StatusBadRequest)
	r.chat("no-such-model", http.StatusNotFound)
}

func TestThePageShowsTheRouterAndFollowsIt(t *testing.T) {
	b, r := open(t), dev(t)
	furnish(r)
	b.look(1280, 900, "light")
	b.do(chromedp.Navigate(r.admin + "/"))
	b.sees("#link", "Live")
	b.sees("header", "ready", "Version", "revision")
	b.sees("#attention", "backend dead", "start it, or correct its url")
	b.sees("#backends", "sim-a", "sim-b", "draining", "driver update", "(dev)", "dead", "unhealthy", "0 / 8")
	b.sees("#policies", "gpt-oss-120b", "also large, gpt-4o", "acme", "tier 0", "dead 70", "tier 1", "sim-a 30", "acme-large", "everybody")
	b.sees("#marks", "backend sim-b", "draining", "in 1 h 59 min", "model qwen3-8b for organization acme", "<script>alert(1)</script>", "when it is lifted")
	b.sees("#requests", "gpt-oss-20b", "PRIMARY", "200", "no-such-model", "model_not_found", "refused", "local")

	id := r.chat("gpt-oss-20b", http.StatusOK)
	b.sees("#requests", id) // Without a reload: nothing else would bring it.
	if n := b.number(`[...document.querySelectorAll("#requests .ids code:nth-child(2)")].filter(e => /^[0-9a-f]{32}$/.test(e.textContent)).length`); n < 7 {
		t.Errorf("%v requests show the id of their trace", n)
	}
	if n := b.number(`performance.getEntriesByType("navigation").length`); n != 1 {
		t.Errorf("the page was loaded %v times", n)
	}

	light := b.number(`parseInt(getComputedStyle(document.body).backgroundColor.match(/\d+/)[0])`)
	if over := b.number(`document.documentElement.scrollWidth - innerWidth`); over > 0 {
		t.Errorf("at 1280 px, the page is %v px too wide", over)
	}
	b.shoot("light")
	b.look(1280, 900, "dark")
	if dark := b.number(`parseInt(getComputedStyle(document.body).backgroundColor.match(/\d+/)[0])`); dark > 80 || light < 200 {
		t.Errorf("the paper is as bright as %v in light, and %v in dark", light, dark)
	}
	b.shoot("dark")
	for _, scheme := range []string{"light", "dark"} {
		b.look(390, 844, scheme)
		if over := b.number(`document.documentElement.scrollWidth - innerWidth`); over > 0 {
			t.Errorf("on a phone, the page is %v px too wide", over)
		}
		b.shoot("phone-" + scheme)
	}
	b.clean()
}

func TestThePageCanBeReadWithoutItsColours(t *testing.T) {
	b, r := open(t), dev(t)
	b.do(chromedp.Navigate(r.admin + "/"))
	b.sees("#link", "Live")
	b.sees("#attention", "Everything works")
	b.sees("#marks", "Nothing is switched off", "api-router backend drain")
	b.sees("#requests", "No request has come yet")
	b.look(1280, 900, "light")
	b.shoot("empty")
	for what, expression := range map[string]string{
		"columns without a scope":    `document.querySelectorAll("th:not([scope])").length`,
		"tables without a name":      `[...document.querySelectorAll("table")].filter(t => !t.closest("[aria-labelledby]")).length`,
		"pictures without a text":    `document.querySelectorAll("img:not([alt])").length`,
		"headings that skip a level": `[...document.querySelectorAll("h1,h2,h3")].filter((h, i, all) => i > 0 && h.tagName[1] - all[i-1].tagName[1] > 1).length`,
		"ids that are there twice":   `(ids => ids.length - new Set(ids).size)([...document.querySelectorAll("[id]")].map(e => e.id))`,
		"links to nowhere":           `[...document.querySelectorAll("a[href^='#']")].filter(a => !document.querySelector(a.hash)).length`,
		"styles that are inline":     `document.querySelectorAll("[style], style, script:not([src])").length`,
	} {
		if n := b.number(expression); n != 0 {
			t.Errorf("%s: %v", what, n)
		}
	}
	for _, scheme := range []string{"light", "dark"} {
		b.look(1280, 900, scheme)
		if least := b.number(contrast); least < 4.5 {
			t.Errorf("in %s, a text has a contrast of %.2f to what is behind it", scheme, least)
		}
	}
	b.clean()
}

// contrast is the least of all texts of the page, as WCAG 2.2 computes it.
const contrast = `(() => {
  const parse = c => (c.match(/[\d.]+/g) ?? []).map(Number);
  const light = c => c.slice(0, 3).map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c.length === 3 || c[3] > 0) return c; } return [255, 255, 255]; };
  let least = 21;
  for (const e of document.querySelectorAll("body *")) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) || !e.checkVisibility()) continue;
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
    least = Math.min(least, (a + 0.05) / (b + 0.05));
  }
  return least;
})()`

func TestThePageRestsWhileNobodyLooksAndSaysWhenTheRouterIsGone(t *testing.T) {
	b, r := open(t), dev(t)
	b.do(chromedp.Navigate(r.admin + "/"))
	b.sees("#link", "Live")
	asked := func() float64 {
		return b.number(`performance.getEntriesByType("resource").filter(e => e.name.endsWith("/console/live")).length`)
	}
	eventually(t, "it asks again", func() bool { return asked() > 1 })
	b.do(chromedp.Evaluate(`Object.defineProperty(document, "hidden", {value: true, configurable: true}); document.dispatchEvent(new Event("visibilitychange"))`, nil))
	b.sees("#link", "Paused")
	time.Sleep(300 * time.Millisecond) // What was on its way has come.
	before := asked()
	time.Sleep(5 * time.Second)
	if after := asked(); after != before {
		t.Errorf("hidden, it asked %v times", after-before)
	}
	b.do(chromedp.Evaluate(`Object.defineProperty(document, "hidden", {value: false, configurable: true}); document.dispatchEvent(new Event("visibilitychange"))`, nil))
	b.sees("#link", "Live")
	b.clean()
	r.stop()
	b.sees("#link", "The connection is lost")
	b.look(1280, 900, "light")
	b.shoot("lost")
}

func TestThePageWorksWithoutJavaScript(t *testing.T) {
	b, r := open(t), dev(t)
	b.do(emulation.SetScriptExecutionDisabled(true), chromedp.Navigate(r.admin+"/"))
	var html string
	b.do(chromedp.OuterHTML("html", &html))
	for _, want := range []string{"sim-a", "gpt-oss-20b", `http-equiv="refresh"`, "reloads every 10 seconds"} {
		if !strings.Contains(html, want) {
			t.Errorf("it lacks %q", want)
		}
	}
	b.clean()
}

func TestThePageOfAServiceWantsAToken(t *testing.T) {
	r := serve(t)
	r.ask(http.MethodGet, r.admin+"/", "", http.StatusUnauthorized)
	b := open(t)
	b.do(chromedp.Navigate(strings.Replace(r.admin, "://", "://anybody:"+r.token+"@", 1) + "/"))
	b.sees("#link", "Live")
	b.sees("footer", "Signed in as vera (viewer)")
	b.sees("#policies", "There are no policies")
	b.sees("#backends", "There are no backends yet")
	eventually(t, "it goes on asking", func() bool {
		return b.number(`performance.getEntriesByType("resource").filter(e => e.name.endsWith("/console/live")).length`) > 2
	})
	b.look(1280, 900, "light")
	b.shoot("service")
	b.clean()
}
