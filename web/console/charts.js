// SPDX-License-Identifier: Apache-2.0
// Charts by uPlot, each a figure with a legend that shows the values under the cursor (the newest
// ones without), a sentence in place of the picture, and a table of the last values. A build without
// uPlot has the table alone.
import { h, replace, setText } from "./dom.js";

const HEIGHT = 190;
const ROWS = 10; // of the table

function last(values) {
  return values.length ? values.at(-1) : null;
}

function most(values) {
  return values.reduce((top, value) => (value !== null && value > top ? value : top), 0);
}

/** options: {title, format, labels: […], time: (x) => text, signal, bars: false}. update([x, …series]) has
 *  one array for each label; null is a gap. The signal ends it. */
export function chart({ title, format, labels, time, signal, bars = false }) {
  const swatches = labels.map((_, i) => h("span", { class: `swatch series-${i + 1}` }));
  const values = labels.map(() => h("b", null));
  const legend = h(
    "ul",
    { class: "legend" },
    labels.map((label, i) => h("li", null, swatches[i], `${label} `, values[i])),
  );
  const picture = h("div", { class: "picture", role: "img" });
  const rows = h("tbody");
  const details = h(
    "details",
    null,
    h("summary", null, "As a table"),
    h(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-label": `${title}, as a table` },
      h(
        "table",
        { class: "figures" },
        h("caption", { class: "visually-hidden" }, title),
        h(
          "thead",
          null,
          h(
            "tr",
            null,
            h("th", { scope: "col" }, "Time"),
            labels.map((label) => h("th", { scope: "col" }, label)),
          ),
        ),
        rows,
      ),
    ),
  );
  const element = h(
    "figure",
    { class: "chart" },
    h("figcaption", null, h("h2", null, title)),
    legend,
    picture,
    details,
  );
  let data = [[], ...labels.map(() => [])];
  let plot = null;

  const color = (node, property = "color") => getComputedStyle(node)[property];

  function showValues(at) {
    labels.forEach((_, i) => {
      const value = at === null ? last(data[i + 1]) : data[i + 1][at];
      setText(values[i], value === null || value === undefined ? "–" : format(value));
    });
  }

  function draw() {
    const width = data[0].length > 1 ? data[0][1] - data[0][0] : 60; // of a bar, on the x axis
    const axis = {
      stroke: () => color(element),
      grid: { stroke: () => color(picture, "borderTopColor"), width: 1 },
      ticks: { show: false },
      font: "12px system-ui, sans-serif",
    };
    plot = new window.uPlot(
      {
        width: Math.max(picture.clientWidth, 200),
        height: HEIGHT,
        legend: { show: false },
        cursor: { y: false, drag: { setScale: false, x: false, y: false }, points: { size: 6 } },
        scales: {
          x: { range: (_, min, max) => (bars ? [min - width / 2, max + width / 2] : [min, max]) },
          y: { range: (_, min, max) => [0, max > 0 ? max * 1.1 : 1] },
        },
        padding: [8, 8, 0, 0],
        axes: [
          { ...axis, size: 26, space: 80, values: (_, ticks) => ticks.map((x) => time(x)) },
          { ...axis, size: 64, values: (_, ticks) => ticks.map(format) },
        ],
        series: [
          {},
          ...labels.map((label, i) => ({
            label,
            stroke: () => color(swatches[i]),
            fill: bars ? () => color(swatches[i]) : undefined,
            paths: bars ? window.uPlot.paths.bars({ size: [0.6, 40] }) : undefined,
            width: 1.75,
            points: { show: false },
          })),
        ],
        hooks: { setCursor: [(u) => showValues(u.cursor.idx ?? null)] },
      },
      data,
      picture,
    );
    const resized = new ResizeObserver(() => {
      if (picture.clientWidth > 0) plot.setSize({ width: picture.clientWidth, height: HEIGHT });
    });
    resized.observe(picture);
    document.addEventListener("theme", () => plot.redraw(false), { signal });
    signal.addEventListener("abort", () => {
      resized.disconnect();
      plot.destroy();
    });
  }

  function fillTable() {
    if (!details.open) return;
    const n = data[0].length;
    const from = bars ? 0 : Math.max(0, n - ROWS);
    replace(
      rows,
      Array.from({ length: n - from }, (_, i) => n - 1 - i).map((at) =>
        h(
          "tr",
          null,
          h("th", { scope: "row" }, time(data[0][at])),
          labels.map((_, i) => h("td", null, data[i + 1][at] === null ? "–" : format(data[i + 1][at]))),
        ),
      ),
    );
  }

  function describe() {
    const parts = labels.map((label, i) => {
      const newest = last(data[i + 1]);
      return `${label} ${newest === null ? "no value" : format(newest)}, at most ${format(most(data[i + 1]))}`;
    });
    picture.setAttribute(
      "aria-label",
      data[0].length ? `${title}: ${parts.join("; ")}.` : `${title}: no values yet.`,
    );
  }

  function update(next) {
    data = next;
    if (!plot && window.uPlot && picture.isConnected) draw();
    else plot?.setData(data);
    if (!plot || plot.cursor.idx === null || plot.cursor.idx === undefined) showValues(null);
    describe();
    fillTable();
  }

  details.open = !window.uPlot;
  details.addEventListener("toggle", fillTable);
  describe(); // a reader of the page meets the picture before its first values come
  return { element, update };
}
