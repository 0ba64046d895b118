// SPDX-License-Identifier: Apache-2.0
// Events: what is known of one cookie, and what happened, minute by minute.
import { del, get, path } from "./api.js";
import { chart } from "./charts.js";
import { confirmTyped, tell } from "./dialogs.js";
import { cell, empty, field, h, heading, loading, replace, run, select, showError, table } from "./dom.js";
import { count, short, utc } from "./format.js";
import { status } from "./status.js";

const EVER = "1970-01-01T00:00:00_9999-12-31T23:59:59";
const MINUTE_MS = 60000;
const QUERY_MINUTES = 10; // the most that one request for aggregates takes
const SPANS = [
  [10, "10 minutes"],
  [30, "30 minutes"],
  [60, "an hour"],
  [180, "3 hours"],
];

/* ---- A profile ---- */

function tagTable(caption, tags) {
  if (!tags.length) return [h("h3", null, `${caption} (none)`)];
  const { element, body } = table(
    caption,
    [
      { title: "Time (UTC)" },
      { title: "Product" },
      { title: "Price", class: "number" },
      { title: "Brand" },
      { title: "Category" },
      { title: "Origin" },
      { title: "Device" },
      { title: "Country" },
    ],
    "cards",
  );
  replace(
    body,
    tags.map((tag) =>
      h(
        "tr",
        null,
        h("th", { scope: "row" }, tag.time.replace("T", " ").replace("Z", "")),
        cell("Product", null, String(tag.product_info.product_id)),
        cell("Price", "number", count(tag.product_info.price)),
        cell("Brand", null, tag.product_info.brand_id),
        cell("Category", null, tag.product_info.category_id),
        cell("Origin", null, tag.origin),
        cell("Device", null, tag.device),
        cell("Country", null, tag.country),
      ),
    ),
  );
  return [h("h3", null, `${caption} (${count(tags.length)})`), element];
}

async function erase(cookie) {
  const sure = await confirmTyped({
    title: "Erase this profile?",
    text: "All of this cookie's views and buys go, for good: from profiles at once, from disk by the next compaction. Counts in aggregates stay.",
    word: cookie,
    submit: "Erase it",
  });
  if (!sure) return false;
  await del(path(["user_profiles", cookie]));
  tell("The profile is erased.");
  return true;
}

function profile(place, cookie, signal) {
  async function show() {
    replace(place, loading("the profile"));
    try {
      const { views, buys } = await get(path(["user_profiles", cookie], { time_range: EVER }), signal);
      if (!views.length && !buys.length) {
        replace(place, empty("Nothing is known of this cookie", "No view and no buy of it is kept."));
        return;
      }
      const button = h(
        "button",
        {
          type: "button",
          class: "danger",
          onclick: () =>
            run(
              button,
              async () => {
                if (await erase(cookie)) show();
              },
              tell,
            ),
        },
        "Erase this profile",
      );
      replace(
        place,
        h(
          "p",
          { class: "visually-hidden", role: "status" },
          `${count(views.length)} views, ${count(buys.length)} buys`,
        ),
        tagTable("Views", views),
        tagTable("Buys", buys),
        h("div", { class: "line" }, button),
      );
    } catch (error) {
      showError(place, error, show);
    }
  }
  show();
}

function profileSection(cookie, signal) {
  const input = h("input", {
    type: "search",
    autocomplete: "off",
    spellcheck: "false",
    required: true,
    value: cookie,
  });
  const place = h("div");
  const submit = (event) => {
    event.preventDefault();
    const hash = `#/events?cookie=${encodeURIComponent(input.value)}`;
    if (location.hash === hash) profile(place, input.value, signal);
    else location.hash = hash;
  };
  if (cookie) profile(place, cookie, signal);
  return h(
    "section",
    null,
    h("h2", null, "A user's profile"),
    h(
      "form",
      { class: "search", role: "search", "aria-label": "Find a profile", onsubmit: submit },
      field("Cookie", input),
      h("button", { type: "submit", class: "primary" }, "Show"),
    ),
    place,
  );
}

/* ---- Aggregates ---- */

/** [[from, to], …] of whole minutes, each no longer than a request may ask for. */
function pieces(end, minutes) {
  const ranges = [];
  for (let at = end - minutes * MINUTE_MS; at < end; at += QUERY_MINUTES * MINUTE_MS)
    ranges.push([at, Math.min(end, at + QUERY_MINUTES * MINUTE_MS)]);
  return ranges;
}

async function rowsOf(wanted, signal) {
  const { end, minutes, action, ...filters } = wanted;
  const answers = [];
  for (const [from, to] of pieces(end, minutes))
    answers.push(
      await get(
        `${path(["aggregates"], { time_range: `${utc(from)}_${utc(to)}`, action, ...filters })}&aggregates=COUNT&aggregates=SUM_PRICE`,
        signal,
      ),
    );
  return answers.flatMap(({ columns, rows }) =>
    rows.map((row) => Object.fromEntries(columns.map((column, i) => [column, row[i]]))),
  );
}

const minuteText = (x) => new Date(x * 1000).toISOString().slice(11, 16);

/** Up to where there are tags, by their own time. */
async function newestMinute(signal) {
  const now = status.now ?? (await get("/status", signal));
  const newest = now.events.watermark ? now.events.watermark * 1000 + MINUTE_MS : now.now * 1000;
  return utc(Math.ceil(newest / MINUTE_MS) * MINUTE_MS).slice(0, 16);
}

function aggregateSection(signal) {
  const end = h("input", { type: "datetime-local", required: true });
  const minutes = select(
    SPANS.map(([n, text]) => [String(n), text]),
    "30",
  );
  const action = select(
    [
      ["VIEW", "views"],
      ["BUY", "buys"],
    ],
    "VIEW",
  );
  const filters = ["origin", "brand_id", "category_id"].map((name) => [
    name,
    h("input", { type: "text", placeholder: "any", autocomplete: "off", spellcheck: "false" }),
  ]);
  const button = h("button", { type: "submit", class: "primary" }, "Show");
  const counts = chart({
    title: "Tags a minute",
    format: short,
    labels: ["count"],
    time: minuteText,
    signal,
    bars: true,
  });
  const sums = chart({
    title: "Sum of prices a minute",
    format: short,
    labels: ["sum of prices"],
    time: minuteText,
    signal,
    bars: true,
  });
  const problem = h("div");
  const total = h("p", { role: "status" });

  async function show() {
    replace(problem);
    try {
      end.value ||= await newestMinute(signal);
      const wanted = {
        end: Date.parse(`${end.value}Z`),
        minutes: Number(minutes.value),
        action: action.value,
        ...Object.fromEntries(filters.map(([name, input]) => [name, input.value])),
      };
      const rows = await rowsOf(wanted, signal);
      const at = rows.map((row) => Date.parse(`${row["1m_bucket"]}Z`) / 1000);
      counts.update([at, rows.map((row) => Number(row.count))]);
      sums.update([at, rows.map((row) => Number(row.sum_price))]);
      const sum = (name) => rows.reduce((all, row) => all + Number(row[name]), 0);
      total.textContent = `${count(sum("count"))} ${action.value === "BUY" ? "buys" : "views"}, prices together ${count(sum("sum_price"))}.`;
    } catch (error) {
      showError(problem, error);
    }
  }
  const element = h(
    "section",
    null,
    h("h2", null, "What happened, minute by minute"),
    h(
      "form",
      {
        class: "filters",
        "aria-label": "Choose the aggregates",
        onsubmit: (event) => {
          event.preventDefault();
          run(button, show, tell);
        },
      },
      field("Action", action),
      field("Until (UTC)", end),
      field("Span", minutes),
      field("Origin", filters[0][1]),
      field("Brand", filters[1][1]),
      field("Category", filters[2][1]),
      button,
    ),
    problem,
    total,
    h("div", { class: "charts" }, counts.element, sums.element),
  );
  return { element, show };
}

export function events({ main, signal, query }) {
  const aggregates = aggregateSection(signal);
  main.append(heading("Events"), profileSection(query.get("cookie") ?? "", signal), aggregates.element);
  aggregates.show();
}
