// SPDX-License-Identifier: Apache-2.0
// Questions that stop everything else: the browser's own modal dialogs, which keep and give back
// the focus and close by Escape. And the short messages in the corner.
import { field, h, run } from "./dom.js";

/** Shows a form; resolves to what onSubmit() returns, or to null when it was left, as by going to
 *  another view. onSubmit may throw to say what is wrong. */
export function ask({ title, body, submit, danger, onSubmit, cancel = "Cancel" }) {
  return new Promise((resolve) => {
    const id = "dialog-title";
    const problem = h("p", { class: "problem", role: "alert" });
    const send = h("button", { type: "submit", class: danger ? "danger" : "primary" }, submit);
    const leave = h("button", { type: "button", onclick: () => dialog.close() }, cancel);
    let result = null;
    const form = h(
      "form",
      {
        onsubmit: (event) => {
          event.preventDefault();
          problem.textContent = "";
          run(
            send,
            async () => {
              result = await onSubmit();
              dialog.close();
            },
            (message) => {
              problem.textContent = message;
            },
          );
        },
      },
      h("h2", { id }, title),
      body,
      problem,
      h("div", { class: "actions" }, leave, send),
    );
    const leaving = new AbortController();
    const dialog = h(
      "dialog",
      {
        "aria-labelledby": id,
        onclose: () => {
          leaving.abort();
          dialog.remove();
          resolve(result);
        },
      },
      form,
    );
    window.addEventListener("hashchange", () => dialog.close(), { signal: leaving.signal });
    document.body.append(dialog);
    dialog.showModal();
    form.querySelector("input, textarea, select")?.focus();
  });
}

/** For what cannot be undone: true once the word was typed. */
export async function confirmTyped({ title, text, word, submit }) {
  const input = h("input", { type: "text", autocomplete: "off", autocapitalize: "off", spellcheck: "false" });
  const answer = await ask({
    title,
    danger: true,
    submit,
    cancel: "Keep it",
    body: [h("p", null, text), field(["Type ", h("strong", { class: "word" }, word), " to go on"], input)],
    onSubmit: () => {
      if (input.value !== word) throw new Error("That is not what stands above; nothing was done.");
      return true;
    },
  });
  return answer === true;
}

/** The key that was typed; null for none. */
export function askKey(wrong) {
  const input = h("input", { type: "password", autocomplete: "current-password", required: true });
  return ask({
    title: "API key",
    submit: "Use this key",
    cancel: "Not now",
    body: [
      h(
        "p",
        null,
        wrong
          ? "The server does not take this key."
          : "This server asks for a key (--api-key or --api-key-file).",
      ),
      field("Key", input, "It stays in this tab and is gone when the tab is closed."),
    ],
    onSubmit: () => input.value,
  });
}

/** A message in the corner; failures stay until they are dismissed. */
export function tell(text, failed = false) {
  const close = h(
    "button",
    { type: "button", class: "quiet", "aria-label": "Dismiss", onclick: () => toast.remove() },
    "×",
  );
  const toast = h("div", { class: failed ? "toast bad" : "toast" }, h("span", null, text), close);
  document.getElementById("toasts").append(toast);
  if (!failed) setTimeout(() => toast.remove(), 6000);
}
