// Keeps the page up to date: fetches the parts that change, every two seconds while somebody can see them.

const every = 2000;
const slowest = 15000;
const patience = 10000;

// Not a relative address: the page's own may hold a name and a password, which fetch refuses.
const source = new URL("/console/live", location.origin);
const link = document.getElementById("link");
const shown = new Map(); // by part: what the server sent last
let timer = 0;
let wait = every;
let asking = false;

function say(state, text) {
  if (link.dataset.state === state) return;
  link.dataset.state = state;
  link.textContent = text;
}

// Times in the reader's own zone. The server knows none and writes UTC.
function localize(root) {
  for (const t of root.querySelectorAll("time[title]")) {
    const at = new Date(t.dateTime);
    if (Number.isNaN(at.getTime())) continue;
    t.title = at.toLocaleString();
    if (t.hasAttribute("data-clock")) t.textContent = at.toLocaleTimeString([], { hour12: false });
  }
  for (const zone of root.querySelectorAll("[data-zone]")) zone.textContent = "local";
}

// What somebody is selecting, perhaps to copy it, stays as it is.
function selecting(part) {
  const selection = document.getSelection();
  return selection !== null && !selection.isCollapsed && selection.containsNode(part, true);
}

function replace(name, fresh) {
  const part = document.querySelector(`[data-live="${name}"]`);
  const text = fresh.innerHTML;
  if (part === null || shown.get(name) === text || selecting(part)) return;
  shown.set(name, text);
  localize(fresh);
  part.replaceChildren(...fresh.childNodes);
}

async function update() {
  const response = await fetch(source, { signal: AbortSignal.timeout(patience), cache: "no-store" });
  if (response.status === 401 || response.status === 403) {
    say("lost", "You are signed out. Reload the page to sign in again.");
    return false;
  }
  if (!response.ok) throw new Error(`status ${response.status}`);
  const answer = new DOMParser().parseFromString(await response.text(), "text/html");
  for (const fresh of answer.querySelectorAll("[data-live]")) replace(fresh.dataset.live, document.importNode(fresh, true));
  return true;
}

async function turn() {
  if (asking || document.hidden) return;
  asking = true;
  clearTimeout(timer);
  let again = true;
  try {
    again = await update();
    if (again) say("live", "Live");
    wait = every;
  } catch {
    say("lost", "The connection is lost; what you see is old. Trying again.");
    wait = Math.min(wait * 2, slowest);
  }
  asking = false;
  document.body.classList.toggle("stale", link.dataset.state === "lost");
  if (again && !document.hidden) timer = setTimeout(turn, wait);
}

document.addEventListener("visibilitychange", () => {
  clearTimeout(timer);
  if (document.hidden) {
    say("paused", "Paused");
    return;
  }
  wait = every;
  turn();
});
addEventListener("online", turn);

localize(document);
if (document.hidden) say("paused", "Paused");
turn();
