// The console page: a newcomer connects two sockets, joins a room and sees an emit arrive.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { launchBrowser } from "../node/helpers/browser.js";
import { until } from "../node/helpers/deadline.js";
import { startGateway } from "../node/helpers/servers.js";
import { Console } from "./console.js";

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
  const opened = await Console.open(browser, gateway, { view: "try-out" });
  const { page, text } = opened;
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
  await until(async () => Number(await opened.metric("connections")) >= 2, "two connections in the figures");

  await page.fill("#emit-event", "greeting");
  await page.fill("#emit-args", '["hello from A", {"n": 42}]');
  await page.click("#emit-a");
  await until(async () => (await text("#log-b")).includes("hello from A"), "the emit in the log of B");
  assert.match(await text("#log-b"), /greeting/);
  await opened.close();
});
