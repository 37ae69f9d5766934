// A node joins a cluster whose clients are all connected elsewhere: the others give some away, slowly, and then no more.

import assert from "node:assert/strict";
import { test } from "node:test";
import { get, metric, metrics } from "../helpers/api.js";
import { startBroker, startHaproxy } from "../helpers/brokers.js";
import { KINDS, stopAll } from "../helpers/cluster.js";
import { pause, until } from "../helpers/deadline.js";
import { Ledger, peak } from "../helpers/ledger.js";
import { startGateway, startNodes } from "../helpers/servers.js";

const CLIENTS = 120;
const RATE = 10;
const THRESHOLD = 0.2;

for (const kind of KINDS) {
  test(`after scale-out over ${kind} every node comes to its share`, { timeout: 180_000 }, async (t) => {
    const stoppers = [];
    try {
      const broker = await startBroker(kind);
      stoppers.push(broker.stop);
      const options = {
        adapter: broker,
        env: {
          ROOMCAST__REBALANCE__THRESHOLD: String(THRESHOLD),
          ROOMCAST__REBALANCE__RATE: String(RATE),
          ROOMCAST__REBALANCE__FLOOR: "10",
        },
      };
      const nodes = await startNodes(3, options);
      stoppers.push(() => Promise.all(nodes.map((node) => node.stop())));
      const balancer = await startHaproxy(nodes, { balance: "leastconn", cookies: false });
      stoppers.push(balancer.stop);
      await nodes[2].stop();
      const ledger = new Ledger(balancer.url, "rebalanced");
      stoppers.push(() => ledger.close());
      await ledger.open({ websocket: CLIENTS });
      nodes[2] = await startGateway({ ...options, port: nodes[2].port, apiPort: nodes[2].apiPort });

      const counts = async () => Promise.all(nodes.map((node) => metric(node, "connections")));
      const share = (CLIENTS / 3) * (1 + THRESHOLD);
      const settled = async () => {
        const fair = (await counts()).every((count) => count <= share);
        return fair && ledger.complete && (await metrics(nodes, "rebalancing")) === 0;
      };
      await until(settled, "every node with its share", 90_000);
      const sent = () => metrics(nodes, "connections_sent_away_total", { cause: "rebalance" });
      const sentAway = await sent();
      // It has ended: nothing more happens within several looks.
      await pause(4_000);
      assert.equal(await sent(), sentAway);
      assert.ok(await settled());
      const now = await counts();
      t.diagnostic(`connections: ${now}; sent away: ${sentAway}; most within a second: ${peak(ledger.closes)}, of ${RATE} on each of two nodes`);
      assert.equal(now.reduce((sum, count) => sum + count), CLIENTS);
      assert.ok(sentAway >= now[2] && ledger.closes.length === sentAway);
      assert.deepEqual(Object.keys(ledger.reasons), ["transport close"]);
      assert.equal(await metrics(nodes, "rebalance_gave_up_total"), 0);
      assert.equal((await get(nodes[0], "/v1/nodes")).body.nodes.reduce((sum, { connections }) => sum + connections, 0), CLIENTS);
    } finally {
      await stopAll(stoppers);
    }
  });
}
