// SPDX-License-Identifier: Apache-2.0
// Elements without markup in strings: whatever comes from data ends up in text nodes and attributes.

/** h("a", {class: "x", href: "#", onclick: f}, "text", child, null): null and false are left out. */
export function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked") element[name] = value;
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  append(element, children);
  return element;
}

function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
}

export function replace(element, ...children) {
  element.replaceChildren();
  append(element, children);
  return element;
}

/** Sets the text only when it changed, so that neither selection nor a screen reader is disturbed. */
export function setText(element, text) {
  if (element.textContent !== String(text)) element.textContent = text;
}

/** Brings the children of a parent to one a row, keyed: those that stay keep their element and focus.
 *  make(row) gives {element, update(row)}. */
export function reconcile(parent, rows, keyOf, make) {
  const former = parent.millraceRows ?? new Map();
  const now = new Map();
  let at = parent.firstElementChild;
  for (const row of rows) {
    const key = keyOf(row);
    const entry = former.get(key) ?? make(row);
    entry.update?.(row);
    now.set(key, entry);
    if (entry.element === at) at = at.nextElementSibling;
    else parent.insertBefore(entry.element, at);
  }
  for (const [key, entry] of former) if (!now.has(key)) entry.element.remove();
  parent.millraceRows = now;
}

/** A table with a caption that only screen readers need; wide ones scroll inside their own region.
 *  columns: [{title, class}]. */
export function table(caption, columns, className = "") {
  const body = h("tbody");
  const head = columns.map((column) =>
    h(
      "th",
      { scope: "col", class: column.class ?? null },
      column.hidden ? h("span", { class: "visually-hidden" }, column.title) : column.title,
    ),
  );
  const element = h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h(
      "table",
      { class: className },
      h("caption", { class: "visually-hidden" }, caption),
      h("thead", null, h("tr", null, head)),
      body,
    ),
  );
  return { element, body };
}

/** Cells carry their column's title for the narrow layout, in which rows are cards. */
export function cell(title, className, ...children) {
  return h("td", { "data-title": title, class: className || null }, children);
}

export function badge(kind, text) {
  return h("span", { class: `badge ${kind}` }, text);
}

export function empty(title, ...text) {
  return h("div", { class: "empty" }, h("p", { class: "empty-title" }, title), h("p", null, text));
}

export function loading(what) {
  return h("p", { class: "loading" }, `Loading ${what} …`);
}

export function failure(error, retry) {
  return h(
    "div",
    { class: "failure", role: "alert" },
    h("p", null, error.message),
    retry && h("button", { type: "button", onclick: retry }, "Try again"),
  );
}

/** Why something cannot be shown: absent ([title, text]) when the server has no such thing. Nothing for
 *  who has left the view. */
export function showError(place, error, retry, absent) {
  if (error.name === "AbortError") return;
  replace(place, error.status === 404 && absent ? empty(...absent) : failure(error, retry));
}

/** A view's heading, which takes the focus when the view is entered. */
export function heading(text, ...beside) {
  return h("div", { class: "heading" }, h("h1", { tabindex: "-1" }, text), beside);
}

/** A list of terms: [[term, value or node], …]. */
export function terms(pairs) {
  return h(
    "dl",
    { class: "terms" },
    pairs.filter(Boolean).map(([term, value]) => h("div", null, h("dt", null, term), h("dd", null, value))),
  );
}

/** JSON for people: arrays of numbers, as vectors are, take a line and not one a number. (A line break
 *  is never inside a string of JSON, so nothing in one looks like such an array.) */
export function jsonText(value) {
  return JSON.stringify(value, null, 2).replace(/\[\n[-+.,\deE\s]+\]/g, (numbers) =>
    numbers.replace(/\s+/g, "").replaceAll(",", ", "),
  );
}

export function json(value) {
  return h("pre", { class: "json", tabindex: "0" }, jsonText(value));
}

let fields = 0;
/** A labelled control. */
export function field(label, control, hint) {
  control.id ||= `field-${++fields}`;
  const help = hint && h("p", { class: "hint", id: `${control.id}-hint` }, hint);
  if (help) control.setAttribute("aria-describedby", help.id);
  return h("div", { class: "field" }, h("label", { for: control.id }, label), control, help);
}

export function select(options, value) {
  const element = h(
    "select",
    null,
    options.map(([key, text]) => h("option", { value: key }, text)),
  );
  element.value = value;
  return element;
}

/** Calls f at once and then every ms while the page is visible, until the signal. */
export function every(ms, signal, f) {
  let timer = 0;
  const round = async () => {
    if (signal.aborted) return;
    if (!document.hidden) await f();
    if (!signal.aborted) timer = setTimeout(round, ms);
  };
  const wake = () => {
    if (document.hidden || signal.aborted) return;
    clearTimeout(timer);
    round();
  };
  document.addEventListener("visibilitychange", wake, { signal });
  signal.addEventListener("abort", () => clearTimeout(timer));
  round();
}

/** Runs an action of a button, once at a time, and tells its failure. The button only says that it is
 *  disabled meanwhile: one that is would lose the focus. */
export async function run(button, action, tell) {
  if (button.getAttribute("aria-disabled")) return;
  button.setAttribute("aria-disabled", "true");
  try {
    await action();
  } catch (error) {
    if (error.name !== "AbortError") tell(error.message, true);
  } finally {
    button.removeAttribute("aria-disabled");
  }
}
