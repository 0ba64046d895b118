// SPDX-License-Identifier: Apache-2.0
// What a user of the console does, a function each; test_console.py runs them all.
import assert from "node:assert/strict";
import { until } from "./page.mjs";

const PHONE = { width: 320, height: 640 };
const SLOW = { type: "long_task", args: { total: 1000000, step: 10, pace_ms: 20 } };
const EVIL = "<img src=x onerror=\"alert('xss')\">";
const TAG = {
  time: "2022-03-22T12:15:30.000Z",
  country: "PL",
  device: "PC",
  action: "VIEW",
  origin: "o",
  product_info: { product_id: "p1", brand_id: "b1", category_id: "c1", price: 300 },
};

async function makeCollection(p, name, points = []) {
  await p.ask("DELETE", `/collections/${name}`);
  assert.equal(
    (await p.ask("PUT", `/collections/${name}`, { vectors: { size: 4, distance: "Dot" } })).status,
    200,
  );
  if (points.length)
    assert.equal((await p.ask("PUT", `/collections/${name}/points?wait=true`, { points })).status, 200);
}

async function makeTask(p, body) {
  const { status, json } = await p.ask("POST", "/tasks", body);
  assert.equal(status, 202);
  p.tasks.push(json.id);
  return json.id;
}

const statusOf = async (p, id) => (await p.ask("GET", `/tasks/${id}`)).json.status;
const ended = (p, id, status) => until(`${id} is ${status}`, async () => (await statusOf(p, id)) === status);

async function tag(p, cookie, more = {}) {
  const known = async () => {
    const { json } = await p.ask(
      "GET",
      `/user_profiles/${encodeURIComponent(cookie)}?time_range=2022-03-22T00:00:00_2022-03-23T00:00:00`,
    );
    return json.views.length + json.buys.length;
  };
  const before = await known();
  assert.equal((await p.ask("POST", "/user_tags", { ...TAG, cookie, ...more })).status, 204);
  await until("the tag is visible", async () => (await known()) > before);
}

/* ---- The frame ---- */

export async function everyViewIsAccessible(p) {
  await makeCollection(p, "seen", [
    { id: 1, vector: [1, 0, 0, 0], payload: { city: "Łódź" } },
    { id: 2, vector: [0, 1, 0, 0] },
  ]);
  await tag(p, "someone");
  const id = await makeTask(p, { type: "exec", args: { command: "none" } });
  await ended(p, id, "failed");
  const views = {
    "#/": "Dead letters",
    "#/tasks": id,
    [`#/tasks/${id}`]: "Error",
    "#/collections": "seen",
    "#/collections/seen": "city",
    "#/collections/seen/1": "Łódź",
    "#/events?cookie=someone": "Views (1)",
    "#/dead-letters": "letters/4",
    [`#/dead-letters/points/${(await letterOf(p, 4)).number}`]: "do not fit",
    "#/settings": "checkpoint-size",
    "#/nothing": "There is no such view",
  };
  p.expected.push(/404/);
  for (const [viewport, colorScheme] of [
    [undefined, "light"],
    [PHONE, "dark"],
  ]) {
    await p.open({ viewport, colorScheme });
    for (const [hash, text] of Object.entries(views)) {
      await p.go(hash);
      await p.seen(text);
      await p.accessible(`${hash} ${colorScheme}`);
      await p.fits(`${hash} ${colorScheme}`);
    }
  }
}

/** The values of charts never come: what stands there until then must be readable too. */
export async function whatWaitsForValuesIsAccessible(p) {
  await p.open();
  await p.page.route(/\/(aggregates|status)(\?|$)/, () => {});
  for (const hash of ["#/", "#/events"]) {
    await p.go(hash);
    await p.page.locator(".picture").first().waitFor({ state: "attached" });
    await p.accessible(`${hash} waiting`);
  }
}

export async function dialogsAreAccessible(p) {
  await makeCollection(p, "asked");
  for (const colorScheme of ["light", "dark"]) {
    await p.open({ viewport: PHONE, colorScheme });
    await p.go("#/tasks");
    await p.role("button", "New task").click();
    await p.role("dialog", "New task").waitFor();
    await p.accessible(`new task, ${colorScheme}`);
    await p.go("#/collections/asked");
    await p.role("button", "Delete").click();
    await p.role("dialog", "Delete the collection?").waitFor();
    await p.accessible(`confirmation, ${colorScheme}`);
  }
}

export async function theKeyIsAskedFor(p) {
  p.expected.push(/401/, /403/);
  await p.open({ key: "" });
  await p.go("");
  const dialog = p.role("dialog", "API key");
  await dialog.waitFor();
  await p.accessible("the key");
  await p.page.getByLabel("Key", { exact: true }).fill("wrong");
  await p.page.keyboard.press("Enter");
  await p.seen("The server does not take this key");
  await p.page.getByLabel("Key", { exact: true }).fill(p.key);
  await p.role("button", "Use this key").click();
  await p.role("heading", "Health").waitFor();
  await dialog.waitFor({ state: "detached" });
  const kept = await p.page.evaluate(() => [
    JSON.stringify(sessionStorage),
    JSON.stringify(localStorage),
    document.cookie,
  ]);
  assert.ok(kept[0].includes(p.key) && !kept[1].includes(p.key) && kept[2] === "");
  await p.role("button", "Forget key").click();
  await dialog.waitFor();
}

export async function whoHasNoKeyIsNotAskedAgain(p) {
  p.expected.push(/401/);
  await p.open({ key: "" });
  await p.go("#/settings");
  await p.role("button", "Not now").click();
  await p.seen("this server asks for an API key");
  await p.seen("no access");
  assert.equal(await p.page.getByRole("dialog").count(), 0);
  await p.role("button", "Enter key").click();
  await p.page.getByLabel("Key", { exact: true }).fill(p.key);
  await p.page.keyboard.press("Enter");
  await p.seen("checkpoint-size");
}

export async function aLostConnectionIsSaid(p) {
  p.expected.push(/ERR_INTERNET_DISCONNECTED|ERR_NETWORK_CHANGED/);
  await p.go("#/");
  await p.role("heading", "Health").waitFor();
  const banner = p.page.getByRole("alert").filter({ hasText: "connection" });
  assert.equal(await banner.count(), 0);
  await p.context.setOffline(true);
  await banner.waitFor();
  await p.seen("no connection");
  await p.context.setOffline(false);
  await banner.waitFor({ state: "detached" });
}

export async function theThemeIsRemembered(p) {
  const background = () => p.page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  await p.go("#/");
  const light = await background();
  await p.role("button", "Theme: system").click();
  await p.role("button", "Theme: light").click();
  await p.role("button", "Theme: dark").waitFor();
  const dark = await background();
  assert.notEqual(dark, light);
  await p.page.reload();
  await p.role("button", "Theme: dark").waitFor();
  assert.equal(await background(), dark);
}

export async function theKeyboardIsEnough(p) {
  const id = await makeTask(p, SLOW);
  await p.go("#/");
  await p.page.keyboard.press("Tab");
  assert.equal(await p.focused(), "Skip to the content");
  await p.page.keyboard.press("Enter");
  assert.equal(await p.page.evaluate(() => document.activeElement.id), "main");
  await p.page.reload();
  await p.tabTo("Tasks");
  await p.page.keyboard.press("Enter");
  await until("the heading has the focus", async () => (await p.focused()) === "Tasks");
  assert.equal(await p.page.title(), "Tasks · Millrace");
  await p.tabTo("New task");
  await p.page.keyboard.press("Enter");
  await p.role("dialog", "New task").waitFor();
  await p.page.keyboard.press("Escape");
  await until("the focus is given back", async () => (await p.focused()) === "New task");
  await p.role("button", `Cancel long_task ${id}`).waitFor();
  await p.tabTo(`Cancel long_task ${id}`);
  await p.page.keyboard.press("Enter");
  await ended(p, id, "cancelled");
  await until(
    "the row says it, and keeps the focus",
    async () => (await p.focused()) === `Retry long_task ${id}`,
  );
}

/* ---- Overview ---- */

export async function theOverviewIsLive(p) {
  await makeCollection(p, "written");
  await p.go("#/");
  await until("four charts are drawn", async () => (await p.page.locator("figure canvas").count()) === 4);
  const picture = p.page.getByRole("img", { name: /^Throughput/ });
  let written = 0;
  await until("the chart tells of records", async () => {
    const points = Array.from({ length: 20 }, (_, i) => ({ id: i + 1, vector: [i, 1, 0, written++] }));
    await p.ask("PUT", "/collections/written/points", { points });
    return /points [1-9]/.test(await picture.getAttribute("aria-label"));
  });
  await p.page.getByText("As a table").first().click();
  await p.role("region", "Throughput: records appended, as a table").getByRole("row").nth(1).waitFor();
  const row = p.page
    .getByRole("row")
    .filter({ has: p.page.getByRole("rowheader", { name: "points", exact: true }) });
  assert.match(await row.innerText(), /of \d+ busy/);
  await p.seen("version 0.");
}

export async function thereIsATableWithoutCharts(p) {
  p.expected.push(/ERR_FAILED/);
  await p.page.route("**/uplot.js", (route) => route.abort());
  await p.go("#/");
  await p.role("region", "Latency of requests, as a table").getByRole("row").nth(1).waitFor();
}

/* ---- Tasks ---- */

export async function aTaskIsCancelledAndRetried(p) {
  const id = await makeTask(p, SLOW);
  await p.go("#/tasks");
  const row = p.page.getByRole("row").filter({ hasText: id });
  await row.getByRole("button", { name: "Cancel" }).click();
  await row.getByText("cancelled").waitFor();
  assert.equal(await statusOf(p, id), "cancelled");
  await row.getByRole("button", { name: "Retry" }).click();
  await until("it runs again", async () => ["queued", "running"].includes(await statusOf(p, id)));
  await row.getByRole("link", { name: "long_task" }).click();
  const bar = p.role("progressbar", "Progress");
  await bar.waitFor();
  const first = Number(await bar.evaluate((element) => element.value));
  await until(
    "the bar moves by itself",
    async () => Number(await bar.evaluate((element) => element.value)) > first,
  );
  await p.page
    .locator("main")
    .getByRole("button", { name: /^Cancel/ })
    .click();
  await p.page.locator("main").getByText("cancelled", { exact: true }).waitFor();
  await p.seen("Attempts");
}

export async function aTaskIsMadeByAForm(p) {
  await p.go("#/tasks");
  await p.role("button", "New task").click();
  const args = p.page.getByLabel("Arguments");
  await until("the form knows the arguments", async () => /total/.test(await args.inputValue()));
  await args.fill("{no");
  await p.role("button", "Queue it").click();
  await p.seen("The arguments are not valid JSON.");
  await args.fill('{"total": "many"}');
  await p.role("button", "Queue it").click();
  p.expected.push(/4\d\d/);
  await p.page.getByRole("dialog").getByText("total").first().waitFor();
  await args.fill('{"total": 500, "step": 100}');
  await p.role("button", "Queue it").click();
  await p.role("heading", "Result").waitFor();
  await p.page.locator("pre").getByText('"counted": 500').waitFor();
  await p.page.locator("main").getByText("succeeded", { exact: true }).waitFor();
}

export async function tasksAreFilteredAndPaged(p) {
  const tasks = Array.from({ length: 60 }, () => ({ type: "long_task", args: { total: 1, step: 1 } }));
  const { json } = await p.ask("POST", "/tasks/batch", { tasks });
  for (const task of json.tasks) await ended(p, task.id, "succeeded");
  await p.go("#/tasks");
  await p.page.getByLabel("Status").selectOption("succeeded");
  await until("the filter is in the address", () => p.page.url().includes("status=succeeded"));
  const names = () => p.page.locator("tbody th code").allInnerTexts();
  await until("a page of them", async () => (await names()).length === 50);
  const newest = await names();
  await p.role("link", "Older").click();
  await until(
    "the next page",
    async () => (await names()).length > 0 && !(await names()).some((name) => newest.includes(name)),
  );
  await p.role("link", "Newest").click();
  await until("the first again", async () => (await names())[0] === newest[0]);
  await p.page.getByLabel("Type").fill("nothing_of_that_type");
  await p.page.keyboard.press("Enter");
  await p.seen("No such tasks");
}

/* ---- Collections ---- */

export async function pointsAreFound(p) {
  const points = Array.from({ length: 30 }, (_, i) => ({
    id: i + 1,
    vector: [1, i / 30, 0, 0],
    payload: { city: `city ${i + 1}` },
  }));
  await makeCollection(p, "found", points);
  const longest = "18446744073709551615"; // more than a number of JavaScript holds
  const one = `{"points":[{"id":${longest},"vector":[0,0,9,0],"payload":{"city":"far off","code":${longest}}}]}`;
  await fetch(`${p.url}/collections/found/points?wait=true`, {
    method: "PUT",
    headers: { "api-key": p.key },
    body: one,
  });
  await p.go("#/collections");
  await p.role("row", "found green 31", { exact: false }).getByRole("link", { name: "found" }).click();
  await p.page.getByText("city: city 25").waitFor();
  await p.role("button", "Next").click();
  await p.page.getByText("city: city 30").waitFor();
  await p.role("button", "Previous").click();
  await p.page.getByText("city: city 25").waitFor();
  const box = p.page.getByRole("searchbox");
  await box.fill("[1, 1, 0, 0]");
  await p.page.keyboard.press("Enter");
  const near = p.page.getByRole("region", { name: /^Nearest to/ });
  await until("the nearest is first", async () =>
    /^30\s/.test(await near.getByRole("row").nth(1).innerText()),
  );
  await box.fill("7");
  await p.page.keyboard.press("Enter");
  await p.role("link", "Open point 7").click();
  await p.page.locator("pre").getByText('"city": "city 7"').waitFor();
  await p.role("region", "Nearest points").waitFor();
  await p.page.goBack();
  await box.fill(longest);
  await p.page.keyboard.press("Enter");
  await p.role("link", `Open point ${longest}`).click();
  await p.page.locator("pre").getByText(`"code": ${longest}`).waitFor();
  await p.page.goBack();
  await box.fill("seven");
  await p.page.keyboard.press("Enter");
  await p.seen("Give the id of a point");
  await box.fill("[1, 2]");
  p.expected.push(/400/);
  await p.page.keyboard.press("Enter");
  await p.page.getByRole("alert").filter({ hasText: "dimension" }).waitFor();
}

export async function aCollectionIsMadeByAForm(p) {
  p.expected.push(/409/);
  await p.ask("DELETE", "/collections/made here");
  await makeCollection(p, "there");
  await p.go("#/collections");
  await p.role("button", "New collection").click();
  const dialog = p.role("dialog", "New collection");
  const name = p.page.getByLabel("Name", { exact: true });
  const submit = p.role("button", "Create it");
  await submit.click();
  assert.ok(await name.evaluate((element) => element.matches(":invalid")));
  await name.fill("there");
  await p.page.getByLabel("Size").fill("3");
  await p.page.getByLabel("Distance").selectOption("Euclid");
  await submit.click();
  await dialog.getByRole("alert").filter({ hasText: "already" }).waitFor();
  await name.fill("made here");
  await p.accessible("new collection");
  await submit.click();
  await p.seen("The collection made here is created."); // for six seconds
  await p.role("heading", "made here").waitFor();
  await p.seen("3 × Euclid");
  const { json } = await p.ask("GET", "/collections/made here");
  assert.deepEqual(json.result.config.params.vectors, { size: 3, distance: "Euclid" });
}

export async function deletingACollectionAsksForItsName(p) {
  await makeCollection(p, "doomed");
  await p.go("#/collections");
  await p.role("button", "Delete doomed").click();
  const word = p.page.getByLabel("Type doomed to go on");
  await word.fill("doome");
  await p.role("button", "Delete it").click();
  await p.seen("nothing was done");
  assert.equal((await p.ask("GET", "/collections/doomed")).status, 200);
  await word.fill("doomed");
  await p.role("button", "Keep it").click();
  await p.page.getByRole("dialog").waitFor({ state: "detached" });
  assert.equal((await p.ask("GET", "/collections/doomed")).status, 200);
  await p.role("button", "Delete doomed").click();
  await word.fill("doomed");
  await p.role("button", "Delete it").click();
  await p.seen("The collection doomed is deleted.");
  await p.role("link", "doomed").waitFor({ state: "detached" });
  assert.equal((await p.ask("GET", "/collections/doomed")).status, 404);
}

/* ---- Events ---- */

export async function aProfileIsShownAndErased(p) {
  await tag(p, "a/b c?");
  await tag(p, "a/b c?", { action: "BUY" });
  await p.go("#/events");
  await p.page.getByLabel("Cookie").fill("a/b c?");
  await p.page.keyboard.press("Enter");
  await p.role("heading", "Views (1)").waitFor();
  await p.role("region", "Buys").getByText("2022-03-22 12:15:30.000").waitFor();
  await p.role("button", "Erase this profile").click();
  await p.page.getByLabel("Type a/b c? to go on").fill("a/b c?");
  await p.role("button", "Erase it").click();
  await p.seen("Nothing is known of this cookie");
}

export async function aggregatesAreCharted(p) {
  await tag(p, "counted", { origin: "only-here" });
  await tag(p, "counted too", { origin: "only-here" });
  await p.go("#/events");
  await p.page.getByLabel("Until (UTC)").fill("2022-03-22T12:30");
  await p.page.getByLabel("Origin").fill("only-here");
  await p.page.keyboard.press("Enter");
  await p.seen("2 views, prices together 600.");
  await p.page.getByRole("figure").first().getByText("As a table").click();
  const rows = p.role("region", "Tags a minute, as a table").getByRole("row");
  await p.page.getByRole("row", { name: "12:15 2", exact: true }).waitFor();
  assert.equal(await rows.count(), 31);
}

/* ---- Dead letters: test_console.py has put those of "letters" into the journal ---- */

async function letterOf(p, id) {
  const { json } = await p.ask("GET", "/dead-letters?kind=points");
  return json.dead_letters.find(({ key }) => key === `letters/${id}`);
}

async function openLetter(p, id) {
  const { number } = await letterOf(p, id);
  await p.go("#/dead-letters");
  await p.role("link", `points ${number}`).click();
  await p.role("heading", `Dead letter points ${number}`).waitFor();
  return number;
}

export async function aDeadLetterIsMendedAndWrittenAgain(p) {
  p.expected.push(/422/);
  await openLetter(p, 1);
  const box = p.page.getByLabel("Record", { exact: true });
  const record = JSON.parse(await box.inputValue());
  assert.equal(record.id, 1);
  assert.equal(record.vector.length, 1); // of two
  await p.role("button", "Write it again").click();
  await p.page.getByRole("alert").filter({ hasText: "do not fit" }).waitFor();
  await box.fill("{");
  await p.role("button", "Write it again").click();
  await p.seen("The record is not valid JSON");
  await box.fill(JSON.stringify({ ...record, vector: [0, 2] }));
  await p.role("button", "Write it again").click();
  await p.seen("Written again as record");
  await p.role("heading", "Dead letters").waitFor();
  assert.equal(await letterOf(p, 1), undefined);
  assert.deepEqual((await p.ask("GET", "/collections/letters/points/1")).json.result.vector, [0, 2]);
}

export async function droppingADeadLetterAsksForItsName(p) {
  p.expected.push(/404/);
  const number = await openLetter(p, 2);
  await p.role("button", "Drop it").click();
  const dialog = p.role("dialog", "Drop this dead letter?");
  await dialog.getByRole("textbox").fill("points");
  await dialog.getByRole("button", { name: "Drop it" }).click();
  await p.seen("nothing was done");
  assert.equal((await letterOf(p, 2)).number, number);
  await dialog.getByRole("textbox").fill(`points ${number}`);
  await dialog.getByRole("button", { name: "Drop it" }).click();
  await p.seen("The dead letter is dropped.");
  await p.role("heading", "Dead letters").waitFor();
  assert.equal(await letterOf(p, 2), undefined);
}

export async function aKeyThatHasChangedIsWrittenOverOnlyByForce(p) {
  p.expected.push(/409/);
  const points = [{ id: 3, vector: [5, 5] }];
  await p.ask("PUT", "/collections/letters/points?wait=true", { points });
  await openLetter(p, 3);
  const box = p.page.getByLabel("Record", { exact: true });
  await box.fill(JSON.stringify({ id: 3, vector: [0, 3] }));
  await p.role("button", "Write it again").click();
  const vector = async () => (await p.ask("GET", "/collections/letters/points/3")).json.result.vector;
  await until("the server says why not", async () => (await p.page.locator(".problem").innerText()) !== "");
  assert.deepEqual(await vector(), [5, 5]);
  await p.page.getByLabel(/has changed since/).check();
  await p.role("button", "Write it again").click();
  await p.seen("Written again as record");
  assert.deepEqual(await vector(), [0, 3]);
}

/** As of a journal that processes share: a number past 2^53, and nobody knows of the key. */
export async function aLetterOfASharedJournalHasALongNumber(p) {
  const number = "18014398509481985";
  const letter = `{"kind":"events","number":${number},"key":"c","at":"2026-03-01T12:00:00.000Z",
    "reason":"not a record of events","bytes":2,"changed":null`;
  const answer = (pattern, body) =>
    p.page.route(pattern, (route) => route.fulfill({ contentType: "application/json", body }));
  await answer(/\/dead-letters(\?|$)/, `{"dead_letters":[${letter}}],"next_cursor":null}`);
  await answer(`**/dead-letters/events/${number}`, `${letter},"record":{"cookie":"c"}}`);
  await answer(`**/dead-letters/events/${number}/replay`, `{"lsn":7}`);
  await p.go("#/dead-letters");
  await p.seen("unknown");
  await p.role("link", `events ${number}`).click();
  await p.role("heading", `Dead letter events ${number}`).waitFor();
  await p.seen("unknown");
  await p.role("button", "Write it again").click();
  await p.seen("Written again as record 7");
}

/* ---- Settings, and what is no markup ---- */

export async function settingsHideTheKey(p) {
  await p.go("#/settings");
  const row = p.page.getByRole("row").filter({ has: p.page.locator("code", { hasText: /^api-key$/ }) });
  await row.getByText("***").waitFor();
  assert.ok(!(await p.page.content()).includes(p.key));
  await p.page.getByLabel("only what differs from the default").check();
  await p.page.getByText("checkpoint-size").waitFor({ state: "detached" });
  await p.page.getByLabel("Find").fill("data-dir");
  await until("one is left", async () => (await p.page.locator("tbody tr").count()) === 1);
}

export async function dataIsNeverMarkup(p) {
  await tag(p, EVIL, { origin: EVIL, product_info: { ...TAG.product_info, brand_id: EVIL } });
  await makeCollection(p, "evil", [{ id: 1, vector: [1, 0, 0, 0], payload: { [EVIL]: EVIL } }]);
  const id = await makeTask(p, { type: "exec", args: { command: EVIL } });
  await ended(p, id, "failed");
  const encoded = encodeURIComponent(EVIL);
  p.expected.push(/40\d/);
  const images = [];
  for (const hash of [
    `#/events?cookie=${encoded}`,
    "#/collections/evil",
    "#/collections/evil/1",
    `#/tasks/${id}`,
    `#/tasks?type=${encoded}`,
    `#/collections/${encoded}`,
    `#/dead-letters/points/${encoded}`,
    `#/tasks/${encoded}`,
    `#/${encoded}`,
  ]) {
    await p.go(hash);
    await until("nothing is loading", async () => (await p.page.locator("main .loading").count()) === 0);
    images.push(
      ...(await p.page
        .locator("img")
        .evaluateAll((found) => found.map((image) => image.getAttribute("src")))),
    );
  }
  assert.deepEqual(new Set(images), new Set(["/console/icon.svg"]));
  await p.go(`#/events?cookie=${encoded}`);
  await p.role("region", "Views").getByText(EVIL).first().waitFor();
}
