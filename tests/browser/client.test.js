// The official client in Chromium, on a page of another origin than the server's.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { BrowserSocket, launchBrowser, openPage, servePage } from "../node/helpers/browser.js";
import { TRANSPORTS } from "../node/helpers/clients.js";
import { until } from "../node/helpers/deadline.js";
import { startTestServer } from "../node/helpers/servers.js";

let site, server, browser, page;
before(async () => {
  site = await servePage();
  server = await startTestServer({ CORS_ORIGIN: site.origin });
  browser = await launchBrowser();
  page = await openPage(browser, site.origin);
});
after(async () => {
  await browser?.close();
  await server?.stop();
  await site?.stop();
});

const bytes = { $bin: "AAEC/w==" };

for (const [name, options] of Object.entries(TRANSPORTS)) {
  for (const withCredentials of [false, true]) {
    describe(`${name}${withCredentials ? " with credentials" : ""}`, () => {
      const open = (namespace = "/", more = {}) =>
        BrowserSocket.connect(page, server.url + namespace, { ...options, withCredentials, ...more });

      test("text, binary and acknowledgements", async () => {
        const socket = await open("/", { auth: { token: "t" } });
        assert.equal(await socket.transport(), name === "polling" ? "polling" : "websocket");
        await socket.emit("message", "€ 👋🏽", { deep: [bytes] });
        const answer = await socket.ask("message-with-ack", bytes, { n: 1 });
        assert.deepEqual(answer, [bytes, { n: 1 }]);
        assert.deepEqual(await socket.received(), [
          ["auth", { token: "t" }],
          ["message-back", "€ 👋🏽", { deep: [bytes] }],
        ]);
        await socket.disconnect();
      });

      test("a Blob arrives as its bytes", async () => {
        const socket = await open();
        assert.deepEqual(await socket.ask("message-with-ack", { $blob: bytes.$bin }), [bytes]);
        await socket.disconnect();
      });

      test("a refusal is told with its data", async () => {
        await assert.rejects(open("/forbidden"), /not allowed \{"code":"E1"\}/);
      });
    });
  }
}

test("a page of an origin that is not allowed cannot poll", async () => {
  const stranger = await servePage();
  try {
    const other = await openPage(browser, stranger.origin);
    await assert.rejects(BrowserSocket.connect(other, server.url, TRANSPORTS.polling), /xhr poll error/);
  } finally {
    await stranger.stop();
  }
});

test("closing the tab ends its sockets", async () => {
  const room = "tab";
  const tab = await openPage(browser, site.origin);
  const leaving = await BrowserSocket.connect(tab, server.url, TRANSPORTS.upgrade);
  const staying = await BrowserSocket.connect(page, server.url, TRANSPORTS.upgrade);
  await leaving.ask("join", room);
  await staying.ask("join", room);
  await tab.close();
  // The server goes on for those that stay.
  assert.deepEqual(await until(() => staying.ask("message-with-ack", 1), "an answer"), [1]);
  await staying.disconnect();
});

test("nothing went wrong inside the page", () => assert.deepEqual(page.problems, []));
