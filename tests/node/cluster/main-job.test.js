// The main job: a browser and a Node client on node A and a Python client on node B share a room; whoever emits, by
// socket or by HTTP, to either node, reaches each of the others exactly once.

import assert from "node:assert/strict";
import { describe, test, before, after } from "node:test";
import { allowOrigin, emit, roomSize } from "../helpers/api.js";
import { BrowserSocket, launchBrowser, openPage, servePage } from "../helpers/browser.js";
import { startBroker } from "../helpers/brokers.js";
import { TRANSPORTS, connect, gatewayAsk, join, record } from "../helpers/clients.js";
import { KINDS, plain, stopAll } from "../helpers/cluster.js";
import { until } from "../helpers/deadline.js";
import { pythonListener } from "../helpers/python.js";
import { startNodes } from "../helpers/servers.js";

for (const kind of KINDS) {
  describe(`main job over ${kind}`, () => {
    const stoppers = [];
    let a, b, page;

    before(async () => {
      const broker = await startBroker(kind);
      stoppers.push(broker.stop);
      const site = await servePage();
      stoppers.push(site.stop);
      [a, b] = await startNodes(2, { adapter: broker, env: allowOrigin(site.origin) });
      stoppers.push(a.stop, b.stop);
      const browser = await launchBrowser();
      stoppers.push(() => browser.close());
      page = await openPage(browser, site.origin);
    });
    after(() => stopAll(stoppers));

    for (const [name, options] of Object.entries(TRANSPORTS)) {
      test(`${name}: every emit arrives exactly once`, async () => {
        const room = `order:${kind}-${name}-${a.port}`;
        const inBrowser = await BrowserSocket.connect(page, a.url, options);
        await inBrowser.join(room);
        const inNode = await connect(a.url, options);
        const atNode = record(inNode);
        await join(inNode, room);
        const inPython = await pythonListener(b.url, options.transports, room);
        stoppers.push(inPython.stop, () => inNode.disconnect());

        assert.equal(await until(async () => (await roomSize(a, room)) === 3, "three members seen from A"), true);
        assert.equal(await until(async () => (await roomSize(b, room)) === 3, "three members seen from B"), true);

        const bytes = { $bin: "AAEC/w==" };
        await inBrowser.gatewayAsk("room:emit", room, "from browser", { text: "€", bytes });
        await emit(a, { rooms: [room] }, "from api of A", 1, bytes);
        await emit(b, { rooms: [room] }, "from api of B", 2);
        await gatewayAsk(inNode, "room:emit", room, "from node", Buffer.from([7]));
        await atNode.atLeast(3);
        await inPython.atLeast(4);

        // The fences: each node's last word on the room; what came before it from that node would stand before it.
        await emit(a, { rooms: [room] }, "fence of A");
        await emit(b, { rooms: [room] }, "fence of B");
        const fences = [["fence of A"], ["fence of B"]];
        const expected = [
          ["from browser", { text: "€", bytes }],
          ["from api of A", 1, bytes],
          ["from api of B", 2],
          ["from node", { $bin: "Bw==" }],
          ...fences,
        ];
        await assertReceived("Node", () => atNode, without(expected, "from node"));
        await assertReceived("Python", () => inPython.received, expected);
        await assertReceived("browser", () => inBrowser.received(), without(expected, "from browser"));

        await inBrowser.disconnect();
        inNode.disconnect();
        await inPython.stop();
      });
    }
  });
}

const without = (events, name) => events.filter(([event]) => event !== name);
const sorted = (events) => [...events].map((event) => JSON.stringify(plain(event))).sort();

/** Order between publishers is nobody's promise: what is compared is the set, with every copy counted. */
async function assertReceived(who, received, expected) {
  await until(async () => {
    const events = await received();
    return ["fence of A", "fence of B"].every((fence) => events.some(([event]) => event === fence));
  }, `fences at ${who}`);
  assert.deepEqual(sorted(await received()), sorted(expected), who);
}
