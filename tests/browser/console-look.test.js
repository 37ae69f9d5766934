// The console as people see it: light and dark, on a phone, and for those who do not see it. SCREENSHOT=1 renews the
// picture in docs/, which takes a minute: plots need something to show.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { emit } from "../node/helpers/api.js";
import { startOwnBroker } from "../node/helpers/brokers.js";
import { launchBrowser } from "../node/helpers/browser.js";
import { TRANSPORTS, connect, join } from "../node/helpers/clients.js";
import { stopAll } from "../node/helpers/cluster.js";
import { pause, until } from "../node/helpers/deadline.js";
import { REFERENCE, startGateway, startNodes } from "../node/helpers/servers.js";
import { Console, VIEWS } from "./console.js";

const LONG = `a-room-whose-name-has-no-place-to-break-${"x".repeat(120)}`;

describe("the look of the console", { skip: REFERENCE }, () => {
  let node, browser, socket;
  before(async () => {
    node = await startGateway();
    browser = await launchBrowser();
    socket = await connect(node.url, TRANSPORTS.websocket);
    await join(socket, LONG);
  });
  after(async () => {
    socket?.disconnect();
    await browser?.close();
    await node?.stop();
  });

  /** Fills a view with what it has for people. */
  const fill = {
    overview: ({ shows }) => shows("#node-rows", /answers here/),
    rooms: async ({ page, shows }) => {
      await page.fill("#rooms-search", LONG);
      await page.press("#rooms-search", "Enter");
      await shows("#room-rows-sockets", new RegExp(socket.id));
    },
    live: async ({ page, text }) => {
      await page.check("#tail-payload");
      await page.click("#tail-start");
      await until(async () => {
        await emit(node, { rooms: [LONG] }, LONG, { [LONG]: LONG });
        return (await text("#tail-log")).includes(LONG);
      }, "a line");
    },
    "try-out": async ({ page, shows }) => {
      await page.fill("#room-a", LONG);
      for (const name of ["a", "b"]) await page.click(`#options-${name} > summary`);
      await page.click("#start");
      await shows("#rooms-a", new RegExp(LONG));
      await shows("#rooms-b", /lobby/);
      await page.fill("#emit-event", LONG);
      await page.click("#emit-a");
      await shows("#log-b", new RegExp(LONG));
      await page.selectOption("#emit-to", "server");
      await page.click("#emit-a");
      await shows("#log-a", /refused/);
    },
    requests: async ({ page, shows }) => {
      await until(() => page.locator("#call option").count(), "the calls");
      await page.selectOption("#call", "POST /v1/emit");
      await page.locator("#call-fields input").first().fill(LONG);
      await page.click("#call-more > summary");
      await page.click("#call-send");
      await shows("#answer", /"id"/);
    },
  };

  // Colours are the same on every screen, and places are the same in every colour.
  for (const [colorScheme, judged, other] of [["light", 1280, 360], ["dark", 360, 1280]]) {
    test(`${colorScheme}: nothing is against WCAG AA, and no screen needs scrolling to the side`, async () => {
      const opened = await Console.open(browser, node, { colorScheme, reducedMotion: "reduce" });
      for (const view of VIEWS) {
        await opened.go(view);
        await fill[view](opened);
        for (const width of [other, judged]) {
          await opened.page.setViewportSize({ width, height: 760 });
          assert.equal(await opened.overflow(), 0, `${view} in ${width} pixels`);
        }
        assert.deepEqual(await opened.breaches(), [], `${view} in ${judged} pixels`);
      }
      await opened.close();
    });
  }

  test("the button changes what the system chose", async () => {
    const opened = await Console.open(browser, node, { colorScheme: "dark" });
    const ground = () => opened.page.evaluate(() => getComputedStyle(document.querySelector(".card")).backgroundColor);
    const dark = await ground();
    await opened.page.click("#theme");
    const light = await ground();
    assert.notEqual(light, dark);
    await opened.page.emulateMedia({ colorScheme: "light" });
    await opened.page.click("#theme");
    assert.equal(await ground(), dark);
    await opened.close();
  });

  test("the form for a key is for everybody, too", async () => {
    const keyed = await startGateway({ env: { ROOMCAST__API__KEYS: JSON.stringify(["k-0123456789abcdef"]) } });
    try {
      const opened = await Console.open(browser, keyed, { width: 360 });
      await opened.shows("#key-why", /wants an API key/);
      assert.deepEqual(await opened.breaches(), []);
      assert.equal(await opened.overflow(), 0);
      await opened.close();
    } finally {
      await keyed.stop();
    }
  });

  test("a picture for the docs", { skip: !process.env.SCREENSHOT }, async () => {
    const stoppers = [];
    try {
      const broker = await startOwnBroker("nats");
      stoppers.push(broker.stop);
      const nodes = await startNodes(3, { adapter: broker });
      stoppers.push(...nodes.map(({ stop }) => stop));
      const sockets = [];
      const opened = await Console.open(browser, nodes[0], { width: 1280, height: 820, deviceScaleFactor: 1.5 });
      const end = Date.now() + 57_000;
      for (let turn = 0; Date.now() < end; turn++) {
        const wave = 1 + Math.sin(turn / 40);
        if (turn % 6 === 0 && sockets.length < 80) {
          const member = await connect(nodes[sockets.length % 3].url, sockets.length % 5 ? TRANSPORTS.websocket : TRANSPORTS.polling);
          stoppers.push(() => member.disconnect());
          sockets.push(member);
          await join(member, `order:${sockets.length % 24}`);
        }
        const talking = sockets.slice(0, Math.ceil((wave * sockets.length) / 3));
        talking.forEach((member, index) => member.emit("room:emit", `order:${(index + turn) % 24}`, "changed", { turn }));
        await emit(nodes[1], { rooms: [`order:${turn % 24}`] }, "paid", { turn });
        await pause(100);
      }
      await opened.page.screenshot({ path: fileURLToPath(new URL("../../docs/console.png", import.meta.url)), fullPage: true });
      await opened.close();
    } finally {
      await stopAll(stoppers);
    }
  });
});
