// Two nodes behind HAProxy with a sticky cookie: clients that keep cookies work with every transport, and meet across
// the nodes.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { allowOrigin, emit } from "../helpers/api.js";
import { BrowserSocket, launchBrowser, openPage, servePage } from "../helpers/browser.js";
import { startBroker, startHaproxy } from "../helpers/brokers.js";
import { TRANSPORTS, connect, gatewayAsk, join, record } from "../helpers/clients.js";
import { KINDS, plain, stopAll } from "../helpers/cluster.js";
import { until } from "../helpers/deadline.js";
import { pythonListener } from "../helpers/python.js";
import { startNodes } from "../helpers/servers.js";

for (const kind of KINDS) {
  describe(`behind HAProxy over ${kind}`, () => {
    const stoppers = [];
    let nodes, balancer, page;

    before(async () => {
      const broker = await startBroker(kind);
      stoppers.push(broker.stop);
      const site = await servePage();
      stoppers.push(site.stop);
      nodes = await startNodes(2, { adapter: broker, env: allowOrigin(site.origin) });
      stoppers.push(...nodes.map((node) => node.stop));
      balancer = await startHaproxy(nodes);
      stoppers.push(balancer.stop);
      const browser = await launchBrowser();
      stoppers.push(() => browser.close());
      page = await openPage(browser, site.origin);
    });
    after(() => stopAll(stoppers));

    for (const [name, transport] of Object.entries(TRANSPORTS)) {
      test(`${name}: Node, browser and Python clients meet`, async () => {
        const room = `lb-${kind}-${name}-${balancer.port}`;
        // With credentials the clients keep the balancer's cookie, in Node as in a browser.
        const options = { ...transport, withCredentials: true };
        const inNode = await Promise.all(Array.from({ length: 4 }, () => connect(balancer.url, options)));
        const atNode = inNode.map((socket) => record(socket));
        const inBrowser = await BrowserSocket.connect(page, balancer.url, options);
        const inPython = await pythonListener(balancer.url, transport.transports, room);
        stoppers.push(inPython.stop, () => inNode.forEach((socket) => socket.disconnect()));
        await Promise.all([inBrowser.join(room), ...inNode.map((socket) => join(socket, room))]);

        await gatewayAsk(inNode[0], "room:emit", room, "from node", Buffer.from([1, 2]));
        await inBrowser.gatewayAsk("room:emit", room, "from browser", "text");
        // The fence comes from one node: a client has all of that node's earlier emits when it has this.
        for (const node of nodes) await emit(node, { rooms: [room] }, `fence ${node.port}`);
        const fences = nodes.map((node) => [`fence ${node.port}`]);

        const fromNode = ["from node", { $bin: "AQI=" }];
        const fromBrowser = ["from browser", "text"];
        for (const [index, events] of atNode.entries()) {
          const expected = index === 0 ? [fromBrowser] : [fromNode, fromBrowser];
          await assertReceived(() => events, [...expected, ...fences]);
        }
        await assertReceived(() => inBrowser.received(), [fromNode, ...fences]);
        await assertReceived(() => inPython.received, [fromNode, fromBrowser, ...fences]);

        await inBrowser.disconnect();
        inNode.forEach((socket) => socket.disconnect());
        await inPython.stop();
      });
    }
  });
}

const sorted = (events) => [...events].map((event) => JSON.stringify(plain(event))).sort();

async function assertReceived(received, expected) {
  await until(async () => (await received()).length >= expected.length, `${expected.length} events`);
  assert.deepEqual(sorted(await received()), sorted(expected));
}
