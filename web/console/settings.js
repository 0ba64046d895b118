// SPDX-License-Identifier: Apache-2.0
// The settings in force, with where each comes from.
import { get } from "./api.js";
import { badge, cell, empty, field, h, heading, loading, replace, setText, showError, table } from "./dom.js";
import { NONE } from "./format.js";

const SOURCES = { default: "", file: "busy", environment: "busy", flag: "busy" };

function settingRow(setting) {
  return h(
    "tr",
    null,
    h(
      "th",
      { scope: "row" },
      h("code", null, setting.name),
      h("p", { class: "hint" }, setting.summary, setting.reload ? " A SIGHUP can change it." : ""),
    ),
    cell("Value", "value", setting.value ?? NONE),
    cell("Default", "value", setting.default ?? NONE),
    cell("From", null, badge(SOURCES[setting.from] ?? "", setting.from)),
  );
}

export function settings({ main, signal }) {
  const words = h("input", { type: "search", autocomplete: "off", placeholder: "name or words" });
  const changed = h("input", { type: "checkbox" });
  const place = h("div", null, loading("the settings"));
  const form = h(
    "form",
    { class: "filters", "aria-label": "Filter the settings", onsubmit: (event) => event.preventDefault() },
    field("Find", words),
    h("label", { class: "check" }, changed, " only what differs from the default"),
  );
  const number = h("p", { class: "since", role: "status" });
  main.append(
    heading("Settings in force", number),
    h(
      "p",
      { class: "lead" },
      "A flag wins over the environment, which wins over the file; secrets are not shown.",
    ),
    form,
    place,
  );
  let all = [];

  function show() {
    const wanted = words.value.trim().toLowerCase();
    const found = all.filter(
      (setting) =>
        (!changed.checked || setting.from !== "default") &&
        `${setting.name} ${setting.summary}`.toLowerCase().includes(wanted),
    );
    setText(
      number,
      found.length === all.length ? `${all.length} settings` : `${found.length} of ${all.length}`,
    );
    if (!found.length) {
      replace(
        place,
        empty(
          "No such setting",
          changed.checked ? "Nothing was changed that fits." : "No name and no summary has these words.",
        ),
      );
      return;
    }
    const { element, body } = table(
      "Settings in force",
      [{ title: "Setting" }, { title: "Value" }, { title: "Default" }, { title: "From" }],
      "cards settings",
    );
    replace(body, found.map(settingRow));
    replace(place, element);
  }
  async function load() {
    try {
      all = (await get("/settings", signal)).settings;
      show();
    } catch (error) {
      showError(place, error, load);
    }
  }
  words.addEventListener("input", show);
  changed.addEventListener("change", show);
  load();
}
