// SPDX-License-Identifier: Apache-2.0
// One browser for all scenarios: reads their names from standard input, a line each, runs each in a
// context of its own and answers with a line of JSON, {ok, error}.
//
//   node runner.mjs URL KEY CHROMIUM PACKAGES SCREENSHOTS
import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import readline from "node:readline";
import { Page } from "./page.mjs";
import * as scenarios from "./scenarios.mjs";

const [url, key, executablePath, packages, screenshots] = process.argv.slice(2);
const require = createRequire(path.join(packages, "node_modules", "/"));
const axe = fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const root = process.getuid() === 0; // Chromium's sandbox does not work for it
const browser = await require("playwright-core").chromium.launch({
  executablePath,
  args: root ? ["--no-sandbox"] : [],
});

async function run(name) {
  const page = new Page({ browser, url, key, axe });
  try {
    await page.open();
    await scenarios[name](page);
    page.check();
    return { ok: true };
  } catch (error) {
    await page.screenshot(path.join(screenshots, `console-${name}.png`)).catch(() => {});
    return { ok: false, error: `${error.stack ?? error}\n${page.problems.join("\n")}` };
  } finally {
    await page.close();
    await page.cancelTasks();
  }
}

process.stdout.write("ready\n");
for await (const name of readline.createInterface({ input: process.stdin }))
  process.stdout.write(`${JSON.stringify(await run(name))}\n`);
await browser.close();
