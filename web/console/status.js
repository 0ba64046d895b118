// SPDX-License-Identifier: Apache-2.0
// GET /status every second while the page is open and visible: the newest answer, and what happened
// between each two of them for the last minutes.
import { get } from "./api.js";
import { every } from "./dom.js";

const KEEP = 300;

export const status = {
  now: null, // the newest answer
  rates: null, // the newest entry of history
  history: [], // oldest first
  error: null, // why there is no newer one
  listeners: new Set(),
};

/** The value that the part q of those counted between two histograms does not exceed; null for none. */
export function quantile(before, now, q) {
  const counts = now.counts.map((n, i) => n - (before?.counts[i] ?? 0));
  const total = counts.reduce((sum, n) => sum + n, 0);
  if (total <= 0) return null;
  let below = 0;
  for (let i = 0; i < counts.length; i++) {
    if (counts[i] > 0 && below + counts[i] >= q * total) {
      const start = i > 0 ? now.bounds[i - 1] : 0;
      const end = now.bounds[i] ?? start;
      return start + (end - start) * ((q * total - below) / counts[i]);
    }
    below += counts[i];
  }
  return now.bounds.at(-1);
}

function consumerRates(before, now, seconds) {
  const former = new Map(before.consumers.map((consumer) => [consumer.name, consumer]));
  return Object.fromEntries(
    now.consumers.map((consumer) => {
      const old = former.get(consumer.name) ?? consumer;
      return [
        consumer.name,
        {
          appended: (consumer.appended - old.appended) / seconds,
          applied: (consumer.applied - old.applied) / seconds,
          lag: consumer.lag_records,
        },
      ];
    }),
  );
}

/** Null when the server was started anew in between. */
export function ratesOf(before, now) {
  const seconds = now.now - before.now;
  if (seconds <= 0 || before.process.started_at !== now.process.started_at) return null;
  return {
    at: now.now,
    requests: (now.http.requests - before.http.requests) / seconds,
    errors: (now.http.errors - before.http.errors) / seconds,
    cpu: (now.process.cpu_seconds - before.process.cpu_seconds) / seconds,
    p50: quantile(before.http.latency, now.http.latency, 0.5),
    p99: quantile(before.http.latency, now.http.latency, 0.99),
    sync: quantile(before.journal.sync, now.journal.sync, 0.99),
    consumers: consumerRates(before, now, seconds),
  };
}

function take(answer) {
  const rates = status.now && ratesOf(status.now, answer);
  status.now = answer;
  status.error = null;
  status.rates = rates;
  if (!rates) return;
  status.history.push(rates);
  if (status.history.length > KEEP) status.history.shift();
}

async function round() {
  try {
    take(await get("/status"));
  } catch (error) {
    status.error = error;
  }
  for (const listener of status.listeners) listener();
}

export function watchStatus() {
  every(1000, new AbortController().signal, round);
  document.addEventListener("key", round);
}

/** Calls f now and after each answer, until the signal. */
export function onStatus(signal, f) {
  status.listeners.add(f);
  signal.addEventListener("abort", () => status.listeners.delete(f));
  f();
}
