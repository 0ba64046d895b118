// SPDX-License-Identifier: Apache-2.0
// Collections with their counts; one of them with a search box and its points; a point.
import { del, exactNumber, get, getExact, numberText, path, postExact, put } from "./api.js";
import { ask, confirmTyped, tell } from "./dialogs.js";
import {
  badge,
  cell,
  empty,
  field,
  h,
  heading,
  json,
  loading,
  replace,
  run,
  select,
  showError,
  table,
  terms,
} from "./dom.js";
import { NONE, count, shorten } from "./format.js";

const PAGE = 25;
const PREVIEW = 160; // characters of a payload in a table
const AT_ONCE = 6; // requests
const SIZE_MAX = 65536;
const DISTANCES = ["Cosine", "Dot", "Euclid", "Manhattan"];

const STATUS = { green: "good", yellow: "warn", red: "bad", grey: "" };

/** [[name, {size, distance}]]: one without a name for a collection that has no named ones. */
function vectorsOf(info) {
  const vectors = info.config?.params?.vectors ?? {};
  return vectors.size === undefined ? Object.entries(vectors) : [["", vectors]];
}

function vectorsText(info) {
  return (
    vectorsOf(info)
      .map(([name, { size, distance }]) => `${name ? `${name}: ` : ""}${count(size)} × ${distance}`)
      .join(", ") || NONE
  );
}

const hashOf = (...parts) => `#/collections/${parts.map(encodeURIComponent).join("/")}`;

async function erase(name) {
  const sure = await confirmTyped({
    title: "Delete the collection?",
    text: "All of its points go with it, for good.",
    word: name,
    submit: "Delete it",
  });
  if (!sure) return false;
  await del(path(["collections", name]));
  tell(`The collection ${name} is deleted.`);
  return true;
}

/** The form for a new one, with one vector a point; goes to its page. */
async function create() {
  const name = h("input", { type: "text", required: true, autocomplete: "off", spellcheck: "false" });
  const size = h("input", { type: "number", required: true, min: "1", max: SIZE_MAX });
  const distance = select(
    DISTANCES.map((each) => [each, each]),
    DISTANCES[0],
  );
  const made = await ask({
    title: "New collection",
    submit: "Create it",
    body: [
      field("Name", name),
      field("Size", size, "How many numbers a vector has."),
      field("Distance", distance),
    ],
    onSubmit: async () => {
      const vectors = { size: Number(size.value), distance: distance.value };
      await put(path(["collections", name.value]), { vectors });
      return name.value;
    },
  });
  if (made === null) return;
  tell(`The collection ${made} is created.`);
  location.hash = hashOf(made);
}

function collectionRow(name, info, refresh) {
  const remove = h("button", { type: "button", class: "danger", "aria-label": `Delete ${name}` }, "Delete");
  remove.addEventListener("click", () =>
    run(
      remove,
      async () => {
        if (await erase(name)) refresh();
      },
      tell,
    ),
  );
  return h(
    "tr",
    null,
    h("th", { scope: "row" }, h("a", { href: hashOf(name) }, name)),
    cell("Status", null, info ? badge(STATUS[info.status] ?? "", info.status) : NONE),
    cell("Points", "number", count(info?.points_count)),
    cell("Segments", "number", count(info?.segments_count)),
    cell("Vectors", null, info ? vectorsText(info) : NONE),
    cell("", "row-actions", remove),
  );
}

/** The information of each collection, a few at a time; null for one that went meanwhile. */
async function informationOf(names, signal) {
  const infos = new Map();
  const left = [...names];
  const take = async () => {
    for (let name = left.shift(); name !== undefined; name = left.shift())
      infos.set(
        name,
        await get(path(["collections", name]), signal)
          .then((answer) => answer.result)
          .catch(() => null),
      );
  };
  await Promise.all(Array.from({ length: AT_ONCE }, take));
  return infos;
}

export function collections({ main, signal }) {
  const place = h("div", null, loading("the collections"));
  const add = h("button", { type: "button", class: "primary", onclick: create }, "New collection");
  main.append(heading("Collections", add), place);
  async function refresh() {
    try {
      const names = (await get("/collections", signal)).result.collections.map(({ name }) => name).sort();
      if (!names.length) {
        replace(
          place,
          empty(
            "No collections yet",
            "Create one here or by PUT /collections/{name}, or try ",
            h("code", null, "millrace load movies"),
            ".",
          ),
        );
        return;
      }
      const infos = await informationOf(names, signal);
      const { element, body } = table(
        "Collections",
        [
          { title: "Collection" },
          { title: "Status" },
          { title: "Points", class: "number" },
          { title: "Segments", class: "number" },
          { title: "Vectors" },
          { title: "Actions", hidden: true },
        ],
        "cards",
      );
      replace(
        body,
        names.map((name) => collectionRow(name, infos.get(name), refresh)),
      );
      replace(place, element);
    } catch (error) {
      showError(place, error, refresh);
    }
  }
  refresh();
}

/* ---- Points in a table ---- */

function payloadText(payload) {
  const given = Object.entries(payload ?? {}).filter(([, value]) => value !== null);
  return shorten(
    given
      .map(([name, value]) => `${name}: ${typeof value === "string" ? value : JSON.stringify(value)}`)
      .join(" · "),
    PREVIEW,
  );
}

function pointTable(caption, name, points, scored) {
  const { element, body } = table(
    caption,
    [{ title: "Point" }, scored && { title: "Score", class: "number" }, { title: "Payload" }].filter(Boolean),
    "cards points",
  );
  replace(
    body,
    points.map((found) =>
      h(
        "tr",
        null,
        h("th", { scope: "row" }, h("a", { href: hashOf(name, numberText(found.id)) }, numberText(found.id))),
        scored && cell("Score", "number", found.score === undefined ? NONE : found.score.toFixed(4)),
        cell("Payload", "payload", payloadText(found.payload) || NONE),
      ),
    ),
  );
  return element;
}

/* ---- One collection ---- */

const UUID = /^[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}$/i;

/** What was put into the search box: a vector, or a point's id. */
function parseSearch(text) {
  const trimmed = text.trim();
  if (/^\d+$/.test(trimmed)) return { id: exactNumber(trimmed) };
  if (UUID.test(trimmed)) return { id: trimmed };
  const numbers = trimmed
    .replace(/^\[|\]$/g, "")
    .split(/[\s,]+/)
    .filter(Boolean)
    .map(Number);
  if (numbers.length < 1 || numbers.some((number) => !Number.isFinite(number)))
    throw new Error("Give the id of a point, a number or a UUID, or a vector as [0.1, 0.2, …].");
  return { vector: numbers };
}

/** The box above the points. Shows the nearest points of what is given in results. */
function searchForm(name, info, results, signal) {
  const input = h("input", {
    type: "search",
    autocomplete: "off",
    spellcheck: "false",
    placeholder: "17 or [0.1, 0.2, …]",
  });
  const using =
    vectorsOf(info).length > 1 || vectorsOf(info)[0]?.[0]
      ? h(
          "select",
          null,
          vectorsOf(info).map(([vector]) => h("option", { value: vector }, vector)),
        )
      : null;
  const button = h("button", { type: "submit", class: "primary" }, "Search");

  async function search() {
    const wanted = parseSearch(input.value);
    const body = { query: wanted.id ?? wanted.vector, limit: PAGE, with_payload: true, using: using?.value };
    const points = (await postExact(path(["collections", name, "points", "query"]), body, signal)).result
      .points;
    const what = wanted.id === undefined ? "this vector" : `point ${numberText(wanted.id)}`;
    replace(
      results,
      h(
        "div",
        { class: "heading" },
        h("h2", null, `Nearest to ${what}`),
        h("p", { class: "since", role: "status" }, `${count(points.length)} found`),
        wanted.id !== undefined &&
          h("a", { href: hashOf(name, numberText(wanted.id)) }, `Open point ${numberText(wanted.id)}`),
        h(
          "button",
          {
            type: "button",
            onclick: () => {
              replace(results);
              input.value = "";
              input.focus();
            },
          },
          "Clear",
        ),
      ),
      points.length
        ? pointTable(`Nearest to ${what}`, name, points, true)
        : empty("Nothing near it", "The collection has no points with such a vector."),
    );
  }

  const submit = (event) => {
    event.preventDefault();
    run(
      button,
      () =>
        search().catch((error) => {
          showError(results, error);
        }),
      tell,
    );
  };
  return h(
    "form",
    { class: "search", role: "search", "aria-label": "Search points", onsubmit: submit },
    field("Search by the id of a point, or by a vector", input),
    using && field("Vector", using),
    button,
  );
}

/** All points, a page at a time. */
function browser(name, signal) {
  const place = h("div", null, loading("the points"));
  async function show(offset, former) {
    try {
      const body = { limit: PAGE, with_payload: true, with_vector: false, offset };
      const { points, next_page_offset: next } = (
        await postExact(path(["collections", name, "points", "scroll"]), body, signal)
      ).result;
      const pages = h(
        "div",
        { class: "pages" },
        former.length > 0 &&
          h(
            "button",
            { type: "button", onclick: () => show(former.at(-1), former.slice(0, -1)) },
            "Previous",
          ),
        next !== null &&
          next !== undefined &&
          h("button", { type: "button", onclick: () => show(next, [...former, offset]) }, "Next"),
      );
      const held = place.contains(document.activeElement);
      replace(
        place,
        points.length
          ? [pointTable("Points", name, points, false), pages]
          : empty("No points yet", "Upsert some by PUT /collections/{name}/points."),
      );
      if (held) pages.querySelector("button:last-child")?.focus();
    } catch (error) {
      showError(place, error, () => show(offset, former));
    }
  }
  show(undefined, []);
  return place;
}

export function collection({ main, signal, params: { name } }) {
  const remove = h("button", { type: "button", class: "danger" }, "Delete");
  const place = h("div", null, loading("the collection"));
  remove.addEventListener("click", () =>
    run(
      remove,
      async () => {
        if (await erase(name)) location.hash = "#/collections";
      },
      tell,
    ),
  );
  main.append(heading(name, h("a", { href: "#/collections" }, "All collections"), remove), place);
  async function show() {
    try {
      const info = (await get(path(["collections", name]), signal)).result;
      const results = h("div");
      replace(
        place,
        terms([
          ["Points", count(info.points_count)],
          ["Segments", count(info.segments_count)],
          ["Vectors", vectorsText(info)],
          ["Status", badge(STATUS[info.status] ?? "", info.status)],
          [
            "Payload indexes",
            Object.entries(info.payload_schema ?? {})
              .map(([key, { data_type: type }]) => `${key}: ${type}`)
              .join(", ") || "none",
          ],
        ]),
        searchForm(name, info, results, signal),
        results,
        h("h2", null, "Points"),
        browser(name, signal),
      );
    } catch (error) {
      remove.hidden = true;
      showError(place, error, show, ["No such collection", error.message]);
    }
  }
  show();
}

/* ---- One point ---- */

function vectorList(vector) {
  if (vector === null || vector === undefined) return h("p", null, "none");
  if (Array.isArray(vector))
    return h(
      "details",
      null,
      h("summary", null, `${count(vector.length)} numbers`),
      h("pre", { class: "json", tabindex: "0" }, `[${vector.join(", ")}]`),
    );
  return Object.entries(vector).map(([name, numbers]) => [h("h3", null, name), vectorList(numbers)]);
}

export function point({ main, signal, params: { name, id } }) {
  const place = h("div", null, loading("the point"));
  main.append(heading(`Point ${id}`, h("a", { href: hashOf(name) }, `Back to ${name}`)), place);
  async function near() {
    const body = { query: /^\d+$/.test(id) ? exactNumber(id) : id, limit: 10, with_payload: true };
    const points = (await postExact(path(["collections", name, "points", "query"]), body, signal)).result
      .points;
    return points.length ? pointTable("Nearest points", name, points, true) : h("p", null, "none");
  }
  async function show() {
    try {
      const found = (await getExact(path(["collections", name, "points", id]), signal)).result;
      const around = h("div", null, loading("what is near"));
      replace(
        place,
        h("h2", null, "Payload"),
        json(found.payload ?? {}),
        h("h2", null, "Vector"),
        vectorList(found.vector),
        h("h2", null, "Nearest points"),
        around,
      );
      near().then(
        (element) => replace(around, element),
        (error) => showError(around, error),
      );
    } catch (error) {
      showError(place, error, show, ["No such point", error.message]);
    }
  }
  show();
}
