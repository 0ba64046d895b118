// SPDX-License-Identifier: Apache-2.0
// Dead letters: records that a store refused, to be looked at, mended, written again or dropped.
import { del, getExact, numberText, parseExact, path, post } from "./api.js";
import { confirmTyped, tell } from "./dialogs.js";
import {
  badge,
  cell,
  empty,
  field,
  h,
  heading,
  jsonText,
  loading,
  replace,
  run,
  select,
  showError,
  table,
  terms,
} from "./dom.js";
import { NONE, bytes, shorten, time } from "./format.js";

const KINDS = ["points", "events", "tasks"];
const PAGE = 50;

const nameOf = (letter) => `${letter.kind} ${numberText(letter.number)}`;
const hashOf = (letter) => `#/dead-letters/${letter.kind}/${numberText(letter.number)}`;
const pathOf = (letter, ...rest) => path(["dead-letters", letter.kind, numberText(letter.number), ...rest]);

/** null: processes share the journal, and nobody knows. */
const keySince = ({ changed }) =>
  changed === null ? "unknown" : changed ? badge("warn", "changed") : "unchanged";

function letterRow(letter) {
  return h(
    "tr",
    null,
    h("th", { scope: "row" }, h("a", { href: hashOf(letter) }, nameOf(letter))),
    cell("When", "number", time(letter.at)),
    cell("Key", "key", letter.key || NONE),
    cell("Reason", null, shorten(letter.reason, 200)),
    cell("Size", "number", bytes(letter.bytes)),
    cell("Key since", null, keySince(letter)),
  );
}

function listHash(kind, cursor) {
  const query = new URLSearchParams(Object.entries({ kind, cursor }).filter(([, value]) => value));
  return `#/dead-letters${query.size ? `?${query}` : ""}`;
}

export function deadLetters({ main, signal, query }) {
  const kind = query.get("kind") ?? "";
  const cursor = query.get("cursor") ?? "";
  const chosen = select([["", "all"], ...KINDS.map((name) => [name, name])], kind);
  const place = h("div", null, loading("the dead letters"));
  const form = h(
    "form",
    { class: "filters", "aria-label": "Filter the dead letters" },
    field("Kind", chosen),
  );
  chosen.addEventListener("change", () => {
    location.hash = listHash(chosen.value);
  });
  main.append(
    heading("Dead letters"),
    h(
      "p",
      { class: "lead" },
      "Records that a store refused. Nothing waits for them; they stay until they are written again or dropped.",
    ),
    form,
    place,
  );

  function show({ dead_letters: letters, next_cursor: next }) {
    if (!letters.length) {
      replace(
        place,
        empty(
          "No dead letters",
          kind ? "No store of this kind has refused a record." : "No store has refused a record.",
        ),
      );
      return;
    }
    const { element, body } = table(
      "Dead letters",
      [
        { title: "Record" },
        { title: "When", class: "number" },
        { title: "Key" },
        { title: "Reason" },
        { title: "Size", class: "number" },
        { title: "Key since" },
      ],
      "cards",
    );
    replace(body, letters.map(letterRow));
    replace(
      place,
      element,
      h(
        "div",
        { class: "pages" },
        cursor && h("a", { class: "button", href: listHash(kind) }, "Newest"),
        next && h("a", { class: "button", href: listHash(kind, next) }, "Older"),
      ),
    );
  }
  async function refresh() {
    try {
      show(await getExact(path(["dead-letters"], { kind, cursor, limit: PAGE }), signal));
    } catch (error) {
      showError(place, error, refresh, [
        "This server keeps no dead letters",
        "Its version has no routes for them.",
      ]);
    }
  }
  refresh();
}

/* ---- One letter ---- */

const back = () => {
  location.hash = "#/dead-letters";
};

async function drop(letter) {
  const word = nameOf(letter);
  const sure = await confirmTyped({
    title: "Drop this dead letter?",
    text: "The record is gone then, for good.",
    word,
    submit: "Drop it",
  });
  if (!sure) return;
  await del(pathOf(letter));
  tell("The dead letter is dropped.");
  back();
}

/** What to send: nothing for a record as it was. */
function replayBody(text, original, force) {
  const body = {};
  if (text !== original) {
    try {
      body.record = parseExact(text);
    } catch (error) {
      throw new Error(`The record is not valid JSON: ${error.message}`);
    }
  }
  if (force) body.force = true;
  return body;
}

/** The record in a box, to be written again as it is or as it is made. */
function editor(letter, dropButton) {
  const original = jsonText(letter.record);
  const text = h("textarea", {
    class: "code",
    rows: String(Math.min(24, original.split("\n").length + 1)),
    spellcheck: "false",
    value: original,
  });
  const force = h("input", { type: "checkbox" });
  const problem = h("p", { class: "problem", role: "alert" });
  const send = h("button", { type: "button", class: "primary" }, "Write it again");
  const forcing = h(
    "label",
    { class: "check", hidden: !letter.changed },
    force,
    letter.changed === null
      ? " Whether its key has changed since is not known: write this over what is there now"
      : " Its key has changed since: write this over what is there now",
  );
  send.addEventListener("click", () =>
    run(
      send,
      async () => {
        problem.textContent = "";
        try {
          const { lsn } = await post(
            pathOf(letter, "replay"),
            replayBody(text.value, original, force.checked),
          );
          tell(`Written again as record ${lsn}.`);
          back();
        } catch (error) {
          problem.textContent = error.message;
          if (error.status === 409) forcing.hidden = false;
        }
      },
      tell,
    ),
  );
  return [
    field("Record", text, "Edit it if that is what it needs; it is checked like any new one."),
    forcing,
    problem,
    h("div", { class: "line" }, send, dropButton),
  ];
}

export function deadLetter({ main, signal, params }) {
  const place = h("div", null, loading("the dead letter"));
  main.append(
    heading(
      `Dead letter ${params.kind} ${params.number}`,
      h("a", { href: "#/dead-letters" }, "All dead letters"),
    ),
    place,
  );
  async function show() {
    try {
      const letter = await getExact(pathOf(params), signal);
      const button = h(
        "button",
        { type: "button", class: "danger", onclick: () => run(button, () => drop(letter), tell) },
        "Drop it",
      );
      replace(
        place,
        h("pre", { class: "error", tabindex: "0" }, letter.reason),
        terms([
          ["Key", letter.key || NONE],
          ["Refused", time(letter.at)],
          ["Size", bytes(letter.bytes)],
          ["Key since", keySince(letter)],
        ]),
        letter.record === null
          ? [h("p", { class: "problem" }, letter.record_error ?? "The record cannot be read."), button]
          : editor(letter, button),
      );
    } catch (error) {
      showError(place, error, show, ["No such dead letter", "It was written again, or dropped."]);
    }
  }
  show();
}
