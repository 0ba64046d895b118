// SPDX-License-Identifier: Apache-2.0
// The frame: which view the part of the address behind # asks for, the bar above it, the theme.
import { key, needKey } from "./api.js";
import { collection, collections, point } from "./collections.js";
import { deadLetter, deadLetters } from "./deadletters.js";
import { h, replace, setText } from "./dom.js";
import { events } from "./events.js";
import { overview, serverState } from "./overview.js";
import { settings } from "./settings.js";
import { onStatus, status, watchStatus } from "./status.js";
import { task, tasks } from "./tasks.js";

const ROUTES = [
  // the first segment names the entry of the bar
  { pattern: [""], view: overview, title: "Overview" },
  { pattern: ["tasks"], view: tasks, title: "Tasks" },
  { pattern: ["tasks", ":id"], view: task, title: "Task" },
  { pattern: ["collections"], view: collections, title: "Collections" },
  { pattern: ["collections", ":name"], view: collection, title: "Collection" },
  { pattern: ["collections", ":name", ":id"], view: point, title: "Point" },
  { pattern: ["events"], view: events, title: "Events" },
  { pattern: ["dead-letters"], view: deadLetters, title: "Dead letters" },
  { pattern: ["dead-letters", ":kind", ":number"], view: deadLetter, title: "Dead letter" },
  { pattern: ["settings"], view: settings, title: "Settings" },
];
const VIEWS = ROUTES.filter(({ pattern }) => pattern.length === 1);

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** {route, params, query}, or null for no view of ours. */
function parse(hash) {
  const [path, query = ""] = hash.replace(/^#?\/?/, "").split("?");
  const parts = path.split("/").map(decode);
  for (const route of ROUTES) {
    if (route.pattern.length !== parts.length) continue;
    if (!route.pattern.every((part, i) => (part.startsWith(":") ? parts[i] !== "" : part === parts[i])))
      continue;
    const params = Object.fromEntries(route.pattern.map((part, i) => [part.slice(1), parts[i]]));
    return { route, params, query: new URLSearchParams(query) };
  }
  return null;
}

const main = document.getElementById("main");
let leaving = new AbortController();

function markCurrent(first) {
  for (const link of document.querySelectorAll("#views a")) {
    link.removeAttribute("aria-current");
    if (link.dataset.view !== first) continue;
    link.setAttribute("aria-current", "page");
    link.scrollIntoView({ block: "nearest", inline: "nearest" }); // the bar of a narrow screen scrolls
  }
}

/** Enters the view of the address. The focus goes to its heading, but not when the page comes. */
function enter(first = false) {
  if (location.hash === "#main") return; // the skip link
  leaving.abort();
  leaving = new AbortController();
  replace(main);
  const found = parse(location.hash);
  const title = found?.route.title ?? "Not found";
  document.title = `${title} · Millrace`;
  markCurrent(found?.route.pattern[0]);
  if (found) found.route.view({ main, signal: leaving.signal, params: found.params, query: found.query });
  else
    main.append(
      h("h1", { tabindex: "-1" }, "Not found"),
      h("p", null, "There is no such view. ", h("a", { href: "#/" }, "To the overview")),
    );
  window.scrollTo(0, 0);
  if (!first) main.querySelector("h1")?.focus({ preventScroll: true });
}

function bar() {
  replace(
    document.getElementById("views"),
    VIEWS.map(({ pattern, title }) =>
      h(
        "li",
        null,
        h(
          "a",
          { href: `#/${pattern[0]}`, "data-view": pattern[0] },
          title,
          h("span", { class: "count", id: `count-${pattern[0]}`, hidden: true }),
        ),
      ),
    ),
  );
}

function showCount(view, number, text) {
  const label = document.getElementById(`count-${view}`);
  label.hidden = number === 0;
  setText(label, text);
}

function showCounts() {
  if (!status.now) return;
  const running = status.now.tasks.running;
  const letters = status.now.consumers.reduce((sum, consumer) => sum + consumer.dead_letters, 0);
  showCount("tasks", running, `${running} running`);
  showCount("dead-letters", letters, String(letters));
}

function showState() {
  const [kind, text] = serverState();
  const state = document.getElementById("state");
  const banner = document.getElementById("banner");
  state.className = `state ${kind}`;
  setText(state, text);
  const lost = status.error?.status === 0;
  banner.hidden = !lost;
  setText(banner, lost ? "The connection to the server is lost. What is shown is old; trying again …" : "");
  document.body.classList.toggle("stale", lost);
  showCounts();
}

function showTools() {
  const forget = document.getElementById("forget-key");
  const button = document.getElementById("theme");
  const label = () => setText(button, `Theme: ${window.millraceTheme.chosen}`);
  const keyLabel = () => {
    forget.hidden = !key.get() && status.error?.status !== 401 && status.error?.status !== 403;
    setText(forget, key.get() ? "Forget key" : "Enter key");
  };
  button.addEventListener("click", () => {
    window.millraceTheme.next();
    label();
  });
  forget.addEventListener("click", () => {
    if (!key.get()) return needKey(false);
    key.set("");
    return location.reload();
  });
  document.addEventListener("key", () => {
    keyLabel();
    enter(true);
  });
  onStatus(new AbortController().signal, keyLabel);
  label();
  keyLabel();
}

bar();
showTools();
watchStatus();
onStatus(new AbortController().signal, showState);
window.addEventListener("hashchange", () => enter());
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
enter(true);
