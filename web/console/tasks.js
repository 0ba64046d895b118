// SPDX-License-Identifier: Apache-2.0
// Tasks: the list, a page of one that follows its progress, and a form for a new one.
import { del, get, path, post, stream } from "./api.js";
import { ask, tell } from "./dialogs.js";
import {
  badge,
  cell,
  empty,
  every,
  field,
  h,
  heading,
  json,
  loading,
  reconcile,
  replace,
  run,
  select,
  setText,
  showError,
  table,
  terms,
} from "./dom.js";
import { NONE, count, percent, span, time } from "./format.js";

const STATUSES = ["queued", "running", "succeeded", "failed", "cancelled"];
const KINDS = { queued: "", running: "busy", succeeded: "good", failed: "bad", cancelled: "warn" };
const PAGE = 50;
const REFRESH_MS = 2000;

const ended = (task) => !["queued", "running"].includes(task.status);
const retriable = (task) => ["failed", "cancelled"].includes(task.status);

/** How long it has run, or ran. */
function duration(task) {
  if (!task.started_at) return NONE;
  const end = task.finished_at ? new Date(task.finished_at) : new Date();
  const seconds = (end - new Date(task.started_at)) / 1000;
  return seconds > 0 ? span(seconds) : "under 1 ms";
}

function steps(task) {
  if (task.total) return `${count(task.current)} of ${count(task.total)}`;
  return task.current ? count(task.current) : "";
}

/** A bar with its numbers. */
function progressBar(label) {
  const bar = h("progress", { max: "1", "aria-label": label });
  const text = h("span", { class: "steps" });
  return {
    element: h("div", { class: "progress" }, bar, text),
    update(task) {
      const part = task.status === "succeeded" ? 1 : task.progress;
      bar.value = part;
      bar.className = KINDS[task.status];
      setText(text, [percent(part), steps(task)].filter(Boolean).join(" · "));
    },
  };
}

/** Cancel while it has not ended, retry once it failed; done(task) gets the new state. */
function actionButton(done) {
  const button = h("button", { type: "button" });
  let task = null;
  button.addEventListener("click", () =>
    run(
      button,
      async () => {
        const retry = retriable(task);
        const answer = retry
          ? await post(path(["tasks", task.id, "retry"]))
          : await del(path(["tasks", task.id]));
        tell(retry ? "The task is queued again." : "The task is cancelled.");
        done(answer);
      },
      tell,
    ),
  );
  return {
    element: button,
    update(now) {
      task = now;
      button.hidden = now.status === "succeeded" || now.collection !== undefined;
      setText(button, retriable(now) ? "Retry" : "Cancel");
      button.setAttribute("aria-label", `${retriable(now) ? "Retry" : "Cancel"} ${now.type} ${now.id}`);
    },
  };
}

function taskRow(refresh) {
  return (first) => {
    const link = h("a", { href: `#/tasks/${encodeURIComponent(first.id)}` }, first.type);
    const bar = progressBar(`Progress of ${first.type} ${first.id}`);
    const button = actionButton(refresh);
    const state = cell("Status");
    const times = ["Created", "Took", "Attempts"].map((title) => cell(title, "number"));
    const element = h(
      "tr",
      null,
      h("th", { scope: "row" }, link, h("code", { class: "id" }, first.id)),
      state,
      cell("Progress", null, bar.element),
      times,
      cell("", "row-actions", button.element),
    );
    let shown = null;
    return {
      element,
      update(task) {
        if (task.status !== shown) replace(state, badge(KINDS[task.status], task.status));
        shown = task.status;
        bar.update(task);
        button.update(task);
        setText(times[0], time(task.created_at));
        setText(times[1], duration(task));
        setText(times[2], count(task.attempts));
      },
    };
  };
}

/** The address of the list with these filters. */
function listHash(filters) {
  const query = new URLSearchParams(Object.entries(filters).filter(([, value]) => value));
  return `#/tasks${query.size ? `?${query}` : ""}`;
}

function filterForm(filters, types) {
  const go = (change) => {
    location.hash = listHash({ ...filters, cursor: "", ...change });
  };
  const statuses = select([["", "any"], ...STATUSES.map((status) => [status, status])], filters.status);
  const list = h(
    "datalist",
    { id: "task-types" },
    types.map(({ type }) => h("option", { value: type })),
  );
  const type = h("input", { type: "search", list: "task-types", value: filters.type, placeholder: "any" });
  statuses.addEventListener("change", () => go({ status: statuses.value }));
  type.addEventListener("change", () => go({ type: type.value.trim() }));
  return h(
    "form",
    {
      class: "filters",
      "aria-label": "Filter the tasks",
      onsubmit: (event) => {
        event.preventDefault();
        go({ type: type.value.trim() });
      },
    },
    field("Status", statuses),
    field("Type", type),
    list,
  );
}

export function tasks({ main, signal, query }) {
  const filters = Object.fromEntries(
    ["status", "type", "cursor"].map((name) => [name, query.get(name) ?? ""]),
  );
  const create = h("button", { type: "button", class: "primary", onclick: () => newTask() }, "New task");
  const form = h("div");
  const { element, body } = table(
    "Tasks",
    [
      { title: "Task" },
      { title: "Status" },
      { title: "Progress" },
      { title: "Created", class: "number" },
      { title: "Took", class: "number" },
      { title: "Attempts", class: "number" },
      { title: "Actions", hidden: true },
    ],
    "cards tasks",
  );
  const place = h("div", null, loading("the tasks"));
  const pages = h("div", { class: "pages" });
  main.append(heading("Tasks", create), form, place, pages);
  replace(form, filterForm(filters, []));
  get("/tasks/types", signal)
    .then(({ types }) => {
      if (!form.contains(document.activeElement)) replace(form, filterForm(filters, types));
    })
    .catch(() => {});
  const makeRow = taskRow(() => refresh());

  function show(answer) {
    if (answer.tasks.length) {
      if (!element.isConnected) replace(place, element);
      reconcile(body, answer.tasks, (task) => task.id, makeRow);
    } else {
      const filtered = filters.status || filters.type || filters.cursor;
      replace(
        place,
        empty(
          filtered ? "No such tasks" : "No tasks yet",
          filtered
            ? "Nothing fits the filter."
            : "A task is work that outlives its request: an import, a program, a count. Create one here or by POST /tasks.",
        ),
      );
    }
    showPages(answer.next);
  }

  function showPages(next) {
    if (pages.contains(document.activeElement)) return;
    replace(
      pages,
      filters.cursor && h("a", { class: "button", href: listHash({ ...filters, cursor: "" }) }, "Newest"),
      next && h("a", { class: "button", href: listHash({ ...filters, cursor: next }) }, "Older"),
    );
  }

  async function refresh() {
    try {
      show(await get(path(["tasks"], { ...filters, limit: PAGE }), signal));
    } catch (error) {
      if (!element.isConnected) showError(place, error, refresh);
    }
  }
  every(REFRESH_MS, signal, refresh);
}

/* ---- One task ---- */

/** Follows the task's events until it ends; asks again when the stream breaks off. */
async function follow(id, signal, show) {
  while (!signal.aborted) {
    let last = null;
    try {
      await stream(path(["tasks", id, "events"]), signal, (type, task) => {
        last = task;
        show(task);
      });
    } catch (error) {
      if (error.name === "AbortError" || error.status > 0) return;
    }
    if (last && ended(last)) return;
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

function details(task) {
  return terms([
    ["Created", time(task.created_at)],
    task.run_at && ["Not before", time(task.run_at)],
    ["Started", time(task.started_at)],
    ["Finished", time(task.finished_at)],
    ["Took", duration(task)],
    [
      "Attempts",
      task.max_retries === undefined
        ? count(task.attempts)
        : `${count(task.attempts)}, at most ${count(task.max_retries + 1)}`,
    ],
    task.priority !== undefined && ["Priority", String(task.priority)],
    ["Worker", task.worker ?? NONE],
    task.collection !== undefined && [
      "Collection",
      h("a", { href: `#/collections/${encodeURIComponent(task.collection)}` }, task.collection),
    ],
  ]);
}

export function task({ main, signal, params }) {
  const place = h("div", null, loading("the task"));
  const title = heading("Task", h("a", { href: "#/tasks" }, "All tasks"));
  const state = h("span", { role: "status" });
  const bar = progressBar("Progress");
  const facts = h("div");
  const outcome = h("div");
  let shown = "";
  const button = actionButton(() => start());
  main.append(title, place);

  function show(now) {
    if (!outcome.isConnected)
      replace(
        place,
        h("p", { class: "id" }, h("code", null, now.id)),
        h("div", { class: "line" }, state, button.element),
        bar.element,
        facts,
        outcome,
      );
    setText(title.querySelector("h1"), now.type);
    if (state.textContent !== now.status) replace(state, badge(KINDS[now.status], now.status));
    bar.update(now);
    button.update(now);
    replace(facts, details(now));
    const text = JSON.stringify([now.error, now.result]);
    if (text !== shown)
      replace(
        outcome,
        now.error && [h("h2", null, "Error"), h("pre", { class: "error", tabindex: "0" }, now.error)],
        now.result !== null && now.result !== undefined && [h("h2", null, "Result"), json(now.result)],
      );
    shown = text;
  }

  async function start() {
    try {
      const now = await get(path(["tasks", params.id]), signal);
      show(now);
      if (!ended(now)) follow(params.id, signal, show);
    } catch (error) {
      showError(place, error, start, [
        "No such task",
        "Tasks that ended are kept for --tasks-keep, then they go.",
      ]);
    }
  }
  start();
}

/* ---- A new one ---- */

function parseArgs(text) {
  if (!text.trim()) return undefined;
  let args;
  try {
    args = JSON.parse(text);
  } catch {
    throw new Error("The arguments are not valid JSON.");
  }
  if (args === null || typeof args !== "object" || Array.isArray(args))
    throw new Error("The arguments must be a JSON object.");
  return args;
}

/** What a type takes, from the JSON Schema of its arguments. */
function hintOf(chosen) {
  const names = Object.keys(chosen?.args?.properties ?? {});
  return [chosen?.summary, names.length && `Takes ${names.join(", ")}.`].filter(Boolean).join(" ");
}

/** An object with an example of each argument. */
function skeleton(chosen) {
  const properties = Object.entries(chosen?.args?.properties ?? {});
  return JSON.stringify(
    Object.fromEntries(properties.map(([name, schema]) => [name, schema.examples?.[0] ?? ""])),
    null,
    2,
  );
}

async function knownTypes() {
  try {
    return (await get("/tasks/types")).types;
  } catch {
    return [];
  }
}

async function newTask() {
  const types = await knownTypes();
  const type = types.length
    ? select(
        types.map((known) => [known.type, known.type]),
        types[0].type,
      )
    : h("input", { type: "text", value: "long_task", required: true });
  const args = h("textarea", { rows: "5", spellcheck: "false", class: "code" });
  const hint = h("p", { class: "hint" });
  const number = (value, min, max) => h("input", { type: "number", value, min, max, inputmode: "numeric" });
  const priority = number("5", 0, 9);
  const retries = number("0", 0, 1000);
  const timeout = number("", 1, null);
  const at = h("input", { type: "datetime-local", step: "1" });
  const choose = () => {
    const chosen = types.find((known) => known.type === type.value);
    setText(hint, hintOf(chosen));
    args.value = skeleton(chosen);
  };
  type.addEventListener("change", choose);
  choose();
  const made = await ask({
    title: "New task",
    submit: "Queue it",
    body: [
      field("Type", type),
      hint,
      field("Arguments", args, "A JSON object; may be left empty."),
      h(
        "div",
        { class: "columns" },
        field("Priority", priority, "0 to 9, higher first"),
        field("Retries", retries, "after a failure"),
        field("Timeout", timeout, "seconds; none when empty"),
        field("Not before", at, "your local time"),
      ),
    ],
    onSubmit: () =>
      post("/tasks", {
        type: type.value,
        args: parseArgs(args.value),
        priority: Number(priority.value || 5),
        max_retries: Number(retries.value || 0),
        timeout: timeout.value ? Number(timeout.value) : undefined,
        run_at: at.value ? new Date(at.value).toISOString() : undefined,
      }),
  });
  if (!made) return;
  tell(`The task ${made.type} is queued.`);
  location.hash = `#/tasks/${encodeURIComponent(made.id)}`;
}
