// The console page: a newcomer connects two sockets, joins a room and sees an emit arrive. SCREENSHOT=1 renews the
// picture in docs/.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { launchBrowser } from "../node/helpers/browser.js";
import { DEADLINE_MS, until } from "../node/helpers/deadline.js";
import { startGateway } from "../node/helpers/servers.js";

let gateway, browser;
before(async () => {
  gateway = await startGateway();
  browser = await launchBrowser();
});
after(async () => {
  await browser?.close();
  await gateway?.stop();
});

test("two sockets of the console meet in a room", async () => {
  const page = await browser.newPage({ viewport: { width: 1280, height: 800 } });
  page.setDefaultTimeout(DEADLINE_MS);
  const origins = new Set();
  const problems = [];
  const origin = (url) => new URL(url).origin.replace(/^ws/, "http");
  page.on("request", (request) => {
    // Data and blob URLs leave no machine.
    if (/^(http|ws)s?:/.test(request.url())) origins.add(origin(request.url()));
  });
  page.on("websocket", (socket) => origins.add(origin(socket.url())));
  page.on("pageerror", (error) => problems.push(error.message));

  await page.goto(`${gateway.api}/console`);
  const text = (selector) => page.locator(selector).textContent();
  /** The log changes after an action: waits for that, so that the next action finds the socket ready. */
  const logged = async (log, action) => {
    const previous = await text(log);
    await action();
    await until(async () => (await text(log)) !== previous, `a new line in ${log}`);
  };

  for (const name of ["a", "b"]) {
    await logged(`#log-${name}`, () => page.click(`#connect-${name}`));
    await page.fill(`#room-${name}`, "lobby");
    await logged(`#log-${name}`, () => page.click(`#join-${name}`));
  }
  await until(async () => Number(await text('[data-metric="connections"]')) >= 2, "two connections in the figures");

  await page.fill("#emit-event", "greeting");
  await page.fill("#emit-args", '["hello from A", {"n": 42}]');
  await page.click("#emit-a");
  await until(async () => (await text("#log-b")).includes("hello from A"), "the emit in the log of B");
  assert.match(await text("#log-b"), /greeting/);

  if (process.env.SCREENSHOT) {
    await page.screenshot({ path: fileURLToPath(new URL("../../docs/console.png", import.meta.url)), fullPage: true });
  }
  assert.deepEqual(problems, []);
  // Only the gateway's own two listeners: nothing is fetched from elsewhere.
  const strangers = [...origins].filter((found) => ![gateway.api, gateway.url].includes(found));
  assert.deepEqual(strangers, []);
});
