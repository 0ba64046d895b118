// SPDX-License-Identifier: Apache-2.0
// Numbers and times as people read them.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const fine = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
export const NONE = "–";

export function count(value) {
  return Number.isFinite(value) ? whole.format(value) : NONE;
}

/** 1,234 or 1.2M: for axes and tiles. */
export function short(value) {
  if (!Number.isFinite(value)) return NONE;
  return Math.abs(value) < 100
    ? fine.format(value)
    : Math.abs(value) < 100000
      ? whole.format(value)
      : compact.format(value).replace("K", "k");
}

export function rate(value) {
  return Number.isFinite(value) ? `${short(value)}/s` : NONE;
}

export function bytes(value) {
  if (!Number.isFinite(value)) return NONE;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  for (; value >= 1024 && i < units.length - 1; i++) value /= 1024;
  return `${i ? fine.format(value) : whole.format(value)} ${units[i]}`;
}

/** A span in seconds: 12 µs, 3.4 ms, 5 s, 2 min 3 s, 4 h 5 min, 3 d 2 h. */
export function span(seconds) {
  if (!Number.isFinite(seconds)) return NONE;
  if (seconds === 0) return "0 s";
  if (seconds < 1e-3) return `${fine.format(seconds * 1e6)} µs`;
  if (seconds < 1) return `${fine.format(seconds * 1e3)} ms`;
  if (seconds < 60) return `${fine.format(seconds)} s`;
  const steps = [
    [86400, "d", 3600, "h"],
    [3600, "h", 60, "min"],
    [60, "min", 1, "s"],
  ];
  const [large, largeUnit, small, smallUnit] = steps.find(([size]) => seconds >= size);
  const rest = Math.floor((seconds % large) / small);
  return `${Math.floor(seconds / large)} ${largeUnit}${rest ? ` ${rest} ${smallUnit}` : ""}`;
}

export function percent(part) {
  return Number.isFinite(part) ? `${Math.floor(part * 100)} %` : NONE;
}

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });

/** The local time, with the day when it is another one. */
export function time(text) {
  const at = new Date(text);
  if (!text || Number.isNaN(at.getTime())) return NONE;
  const today = at.toDateString() === new Date().toDateString();
  return today ? clock.format(at) : `${day.format(at)}, ${clock.format(at)}`;
}

/** 2022-03-22T12:15:00 in UTC, as the queries of events have it. */
export function utc(milliseconds) {
  return new Date(milliseconds).toISOString().slice(0, 19);
}

export function shorten(text, most) {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}
