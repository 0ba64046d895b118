// SPDX-License-Identifier: Apache-2.0
// The server at a glance: tiles, four charts of the last minutes, workers, health.
import { chart } from "./charts.js";
import { cell, h, heading, reconcile, setText, table } from "./dom.js";
import { NONE, bytes, count, rate, short, span } from "./format.js";
import { onStatus, status } from "./status.js";

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const KINDS = ["points", "events", "tasks"];

/** A figure with a line below it, and a meter when it is part of something. */
function tile(title, read) {
  const value = h("p", { class: "value" }, NONE);
  const beside = h("p", { class: "beside" });
  const meter = h("meter", { min: "0", max: "1", high: "0.9", "aria-label": title, hidden: true });
  const element = h("section", { class: "tile" }, h("h2", null, title), value, meter, beside);
  const update = () => {
    const shown = read(status.now, status.rates);
    setText(value, shown.value);
    setText(beside, shown.beside);
    meter.hidden = !Number.isFinite(shown.part);
    if (!meter.hidden) meter.value = shown.part;
  };
  return { element, update };
}

const latency = (seconds) => (seconds === null || seconds === undefined ? NONE : span(seconds));

function lagOf(now) {
  const most = Math.max(...now.consumers.map((consumer) => consumer.lag_seconds));
  const records = now.consumers.reduce((sum, consumer) => sum + consumer.lag_records, 0);
  return {
    value: count(records),
    beside: most > 0 ? `records not applied, ${span(most)} old` : "records not applied yet",
  };
}

function tiles() {
  return [
    tile("Requests", (now, rates) => ({
      value: rate(rates?.requests),
      beside: `${rate(rates?.errors)} errors, ${count(now.http.connections)} connections`,
    })),
    tile("Latency", (now, rates) => ({
      value: latency(rates?.p50),
      beside: `median; p99 ${latency(rates?.p99)}`,
    })),
    tile("Lag", (now) => lagOf(now)),
    tile("Tasks", (now) => ({
      value: count(now.tasks.running),
      beside: `running, ${count(now.tasks.queued)} queued`,
    })),
    tile("Memory", (now) => ({
      value: bytes(now.process.resident_bytes),
      beside: `of ${bytes(now.process.memory_limit_bytes)}`,
      part: now.process.resident_bytes / now.process.memory_limit_bytes,
    })),
    tile("Disk", (now) => ({
      value: bytes(now.disk.free_bytes),
      beside: `free of ${bytes(now.disk.total_bytes)}`,
      part: 1 - now.disk.free_bytes / now.disk.total_bytes,
    })),
  ];
}

function charts(signal) {
  const time = (x) => clock.format(new Date(x * 1000));
  const each = (read) => status.history.map(read);
  const kinds = (read) => KINDS.map((kind) => each((entry) => read(entry.consumers[kind] ?? {}) ?? null));
  return [
    {
      chart: chart({ title: "Throughput: records appended", format: rate, labels: KINDS, time, signal }),
      series: () => kinds((k) => k.appended),
    },
    {
      chart: chart({
        title: "Latency of requests",
        format: span,
        labels: ["median", "p99", "p99 of a sync"],
        time,
        signal,
      }),
      series: () => [each((e) => e.p50), each((e) => e.p99), each((e) => e.sync)],
    },
    {
      chart: chart({ title: "Lag: records not applied yet", format: short, labels: KINDS, time, signal }),
      series: () => kinds((k) => k.lag),
    },
    {
      chart: chart({ title: "Requests answered", format: rate, labels: ["all", "errors"], time, signal }),
      series: () => [each((e) => e.requests), each((e) => e.errors)],
    },
  ].map(({ chart: made, series }) => ({
    element: made.element,
    update: () => made.update([each((entry) => entry.at), ...series()]),
  }));
}

function workerRow() {
  const columns = ["Appended", "Applied", "Lag", "Oldest", "Workers", "Retries", "Dead letters"];
  const cells = columns.map((title) => cell(title, "number"));
  const name = h("th", { scope: "row" });
  return {
    element: h("tr", null, name, cells),
    update(consumer) {
      const rates = status.rates?.consumers[consumer.name];
      setText(name, consumer.name);
      [
        rate(rates?.appended),
        rate(rates?.applied),
        count(consumer.lag_records),
        span(consumer.lag_seconds),
        `${consumer.busy} of ${consumer.threads} busy`,
        count(consumer.retries),
        count(consumer.dead_letters),
      ].forEach((text, i) => setText(cells[i], text));
    },
  };
}

function workers() {
  const { element, body } = table(
    "Workers by kind of record",
    [
      { title: "Kind" },
      ...["Appended", "Applied", "Lag", "Oldest", "Workers", "Retries", "Dead letters"].map((title) => ({
        title,
        class: "number",
      })),
    ],
    "cards",
  );
  const section = h("section", null, h("h2", null, "Lag and workers"), element);
  return {
    element: section,
    update: () => reconcile(body, status.now.consumers, (consumer) => consumer.name, workerRow),
  };
}

function partRow() {
  const mark = h("span");
  const reason = h("span", { class: "reason" });
  const name = h("strong");
  return {
    element: h("li", null, mark, name, reason),
    update([part, { ready, reason: why }]) {
      setText(name, part);
      mark.className = `badge ${ready ? "good" : "bad"}`;
      setText(mark, ready ? "ok" : "not ready");
      setText(reason, why ?? "");
    },
  };
}

function health() {
  const list = h("ul", { class: "parts" });
  const section = h("section", null, h("h2", null, "Health"), list);
  return {
    element: section,
    update: () => reconcile(list, Object.entries(status.now.health.parts), ([name]) => name, partRow),
  };
}

export function overview({ main, signal }) {
  const shown = [...tiles(), ...charts(signal), workers(), health()];
  const since = h("p", { class: "since" });
  const wait = h("p", { class: "loading" }, "Asking the server …");
  const content = h(
    "div",
    { hidden: true },
    h(
      "div",
      { class: "tiles" },
      shown.slice(0, 6).map((part) => part.element),
    ),
    h(
      "div",
      { class: "charts" },
      shown.slice(6, 10).map((part) => part.element),
    ),
    shown.slice(10).map((part) => part.element),
  );
  main.append(heading("Overview", since), wait, content);
  onStatus(signal, () => {
    if (!status.now) return;
    wait.hidden = true;
    content.hidden = false;
    setText(
      since,
      `version ${status.now.health.version}, up ${span(Math.floor(status.now.now - status.now.process.started_at))}`,
    );
    for (const part of shown) part.update();
  });
}

/** The state of the server for the top of the page: [kind, text]. */
export function serverState() {
  if (status.error && status.error.status === 0) return ["bad", "no connection"];
  if (status.error) return ["warn", "no access"];
  if (!status.now) return ["", "connecting"];
  const state = status.now.health.status;
  return [state === "ok" ? "good" : state === "stalled" ? "bad" : "warn", state];
}
