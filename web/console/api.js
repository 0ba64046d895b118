// SPDX-License-Identifier: Apache-2.0
// Requests to the server this page came from, with the key when there is one.
import { askKey } from "./dialogs.js";

const KEY = "millrace-api-key";
const READ_TRIES = 3;

/** An answer that is no 2xx, or none at all (status 0). */
export class ApiError extends Error {
  constructor(status, message, code) {
    super(message);
    this.name = "ApiError";
    this.status = status;
    this.code = code;
  }
}

export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (text) => (text ? sessionStorage.setItem(KEY, text) : sessionStorage.removeItem(KEY)),
};

function request(method, path, body, signal) {
  const headers = {};
  if (key.get()) headers["api-key"] = key.get();
  if (body !== undefined) headers["content-type"] = "application/json";
  return fetch(path, {
    method,
    headers,
    signal,
    body: body === undefined ? undefined : JSON.stringify(body),
  });
}

/** Both forms of the server's errors. */
async function errorOf(answer) {
  let message = `the server answered ${answer.status}`;
  let code;
  try {
    const json = await answer.json();
    message = json.error?.message ?? json.status?.error ?? message;
    code = json.error?.code;
  } catch {
    /* no JSON: the status says it */
  }
  return new ApiError(answer.status, message, code);
}

/** One question for the key at a time, whoever needs it; who said "not now" is not asked again until
 *  they ask for it themselves. */
let asking = null;
let declined = false;
export function needKey(wrong) {
  asking ??= askKey(wrong)
    .then((text) => {
      declined = text === null;
      if (!declined) key.set(text);
      document.dispatchEvent(new Event("key"));
    })
    .finally(() => {
      asking = null;
    });
  return asking;
}

/** Which the server asks for after 429 and 503. */
const pause = (answer) =>
  new Promise((resolve) => setTimeout(resolve, 1000 * Number(answer.headers.get("retry-after"))));

/** Reads are tried again when the server has too much to do. */
async function answered(method, path, body, signal) {
  for (let tries = 0; ; tries++) {
    const used = key.get();
    let answer;
    try {
      answer = await request(method, path, body, signal);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError(0, "the server does not answer");
    }
    if (method === "GET" && tries < READ_TRIES && answer.headers.has("retry-after")) {
      await pause(answer);
      signal?.throwIfAborted();
      continue;
    }
    if (answer.status !== 401 && answer.status !== 403) return answer;
    if (used === key.get() && !declined) await needKey(used !== "");
    if (declined) throw new ApiError(answer.status, "this server asks for an API key");
    signal?.throwIfAborted();
  }
}

/** Integers past 2^53, as ids may be, stay as they are written: an object that JSON.stringify gives back
 *  so. A browser that has no such objects rounds them. */
export function parseExact(text) {
  return JSON.parse(text, (_, value, context) => {
    const rounded = Number.isInteger(value) && !Number.isSafeInteger(value);
    return rounded && JSON.rawJSON && /^-?\d+$/.test(context.source) ? JSON.rawJSON(context.source) : value;
  });
}

/** A number in JSON, however long. */
export const exactNumber = (digits) => parseExact(String(digits));
export const numberText = (number) => number?.rawJSON ?? String(number);

/** The answer's JSON, null when there is none. Throws ApiError. */
export async function call(method, path, { body, signal, exact } = {}) {
  const answer = await answered(method, path, body, signal);
  if (!answer.ok) throw await errorOf(answer);
  if (answer.status === 204) return null;
  return exact ? parseExact(await answer.text()) : answer.json();
}

export const get = (path, signal) => call("GET", path, { signal });
export const post = (path, body, signal) => call("POST", path, { body, signal });
export const put = (path, body, signal) => call("PUT", path, { body, signal });
export const del = (path, signal) => call("DELETE", path, { signal });
export const getExact = (path, signal) => call("GET", path, { signal, exact: true });
export const postExact = (path, body, signal) => call("POST", path, { body, signal, exact: true });

/** Path and query from parts, each encoded. */
export function path(parts, query = {}) {
  const given = Object.entries(query).filter(
    ([, value]) => value !== "" && value !== undefined && value !== null,
  );
  const text = given.map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join("&");
  return `/${parts.map(encodeURIComponent).join("/")}${text ? `?${text}` : ""}`;
}

/** The event and data lines of one block of a stream. */
function eventOf(block) {
  const event = { type: "message", data: "" };
  for (const line of block.split("\n")) {
    if (line.startsWith("event:")) event.type = line.slice(6).trim();
    if (line.startsWith("data:")) event.data += line.slice(5).trim();
  }
  return event;
}

/** Server-sent events by fetch, as EventSource cannot send a key. Returns at the stream's end. */
export async function stream(where, signal, onEvent) {
  const answer = await answered("GET", where, undefined, signal);
  if (!answer.ok) throw await errorOf(answer);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const event = eventOf(block);
      if (event.data) onEvent(event.type, JSON.parse(event.data));
    }
  }
}
