// SPDX-License-Identifier: Apache-2.0
// Applies the remembered theme before anything is painted; a plain script in the head for that.
"use strict";
const theme = {
  choices: ["system", "light", "dark"],
  get chosen() {
    const kept = localStorage.getItem("millrace-theme");
    return this.choices.includes(kept) ? kept : "system";
  },
  apply() {
    document.documentElement.dataset.theme = this.chosen;
    document.dispatchEvent(new Event("theme"));
  },
  next() {
    const at = this.choices.indexOf(this.chosen);
    localStorage.setItem("millrace-theme", this.choices[(at + 1) % this.choices.length]);
    this.apply();
    return this.chosen;
  },
};
window.millraceTheme = theme;
theme.apply();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => theme.apply());
