// SPDX-License-Identifier: Apache-2.0
// A page of the console in a context of its own: what scenarios do with it, and what must hold in each
// of them: no request to anybody else, nothing in the browser's console, no script that is not ours.
import assert from "node:assert/strict";

export const PATIENCE_MS = 30000;
const WIDE = { width: 1280, height: 800 };

export class Page {
  constructor({ browser, url, key, axe }) {
    Object.assign(this, { browser, url, key, axe });
    this.problems = [];
    this.tasks = []; // made by the scenario
    this.expected = []; // messages of the browser that a scenario provokes
  }

  /** A context with the key in its session, unless there shall be none. */
  async open({ key = this.key, viewport = WIDE, colorScheme = "light" } = {}) {
    await this.close();
    this.context = await this.browser.newContext({ viewport, colorScheme, reducedMotion: "reduce" });
    this.context.setDefaultTimeout(PATIENCE_MS);
    if (key)
      await this.context.addInitScript((text) => sessionStorage.setItem("millrace-api-key", text), key);
    this.page = await this.watch(await this.context.newPage());
    return this.page;
  }

  async watch(page) {
    page.on("request", (request) => {
      if (!request.url().startsWith(`${this.url}/`)) this.problems.push(`asked ${request.url()}`);
    });
    page.on("console", (message) => {
      if (["error", "warning"].includes(message.type())) this.problems.push(message.text());
    });
    page.on("pageerror", (error) => this.problems.push(String(error.stack)));
    page.on("dialog", (dialog) => {
      this.problems.push(`a script said ${dialog.message()}`);
      dialog.dismiss();
    });
    return page;
  }

  async close() {
    await this.context?.close();
    this.context = null;
  }

  /** Tasks of a scenario that failed must not keep the workers from those of the next. */
  async cancelTasks() {
    for (const id of this.tasks) await this.ask("DELETE", `/tasks/${id}`);
  }

  check() {
    const left = this.problems.filter((problem) => !this.expected.some((pattern) => pattern.test(problem)));
    assert.deepEqual(left, []);
  }

  screenshot(path) {
    return this.page.screenshot({ path, fullPage: true });
  }

  /** Enters a view, as "#/tasks". */
  async go(hash) {
    await this.page.goto(`${this.url}/console${hash}`);
    await this.page.getByRole("heading", { level: 1 }).waitFor();
  }

  /** The server asked from outside the page. */
  async ask(method, path, body) {
    const answer = await fetch(this.url + path, {
      method,
      headers: { "api-key": this.key, "content-type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    const text = await answer.text();
    return { status: answer.status, json: text ? JSON.parse(text) : null };
  }

  role(role, name, options = {}) {
    return this.page.getByRole(role, { name, exact: true, ...options });
  }

  seen(text) {
    return this.page.getByText(text).first().waitFor();
  }

  /** What axe finds serious on the page as it is. */
  async accessible(where) {
    if (!(await this.page.evaluate(() => "axe" in window))) await this.page.evaluate(this.axe);
    const { violations } = await this.page.evaluate(() =>
      window.axe.run(document, { resultTypes: ["violations"] }),
    );
    const serious = violations
      .filter(({ impact }) => ["serious", "critical"].includes(impact))
      .map(
        ({ id, nodes }) =>
          `${id}: ${nodes.map(({ html, failureSummary }) => `${html}\n    ${failureSummary}`).join("\n  ")}`,
      );
    assert.deepEqual(serious, [], where);
  }

  /** Nothing sticks out to the side. */
  async fits(where) {
    const [content, width] = await this.page.evaluate(() => [
      document.documentElement.scrollWidth,
      window.innerWidth,
    ]);
    assert.ok(content <= width, `${where}: ${content} pixels in ${width}`);
  }

  /** The text of the element that has the focus. */
  focused() {
    return this.page.evaluate(
      () => document.activeElement.getAttribute("aria-label") ?? document.activeElement.textContent,
    );
  }

  /** Presses Tab until the focus is there. */
  async tabTo(name) {
    for (let i = 0; i < 60; i++) {
      await this.page.keyboard.press("Tab");
      if ((await this.focused()).trim().startsWith(name)) return;
    }
    assert.fail(`no Tab leads to ${name}`);
  }
}

/** Waits until something holds. */
export async function until(what, holds) {
  const deadline = Date.now() + PATIENCE_MS;
  while (!(await holds())) {
    if (Date.now() > deadline) assert.fail(`it never came to be: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
