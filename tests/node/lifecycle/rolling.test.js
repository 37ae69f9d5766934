// Three nodes behind HAProxy are restarted one after the other while a backend emits and official clients listen. Printed:
// what was lost to clients that were connected, and how many came back within a second, beside the configured pace.

import assert from "node:assert/strict";
import { test } from "node:test";
import { post } from "../helpers/api.js";
import { startBroker, startHaproxy } from "../helpers/brokers.js";
import { KINDS, stopAll } from "../helpers/cluster.js";
import { until, within } from "../helpers/deadline.js";
import { Ledger, peak } from "../helpers/ledger.js";
import { startGateway, startNodes } from "../helpers/servers.js";

/** Connections that a node closes per second. */
const RATE = Number(process.env.ROLLING_RATE ?? 25);
const CLIENTS = Number(process.env.ROLLING_CLIENTS ?? 180);
const EMIT_EVERY_MS = 40;
/** How long emits may be on their way before one counts as lost whatever the machine does beside. */
const MAX_ON_ITS_WAY_MS = 5_000;

for (const kind of KINDS) {
  test(`a rolling restart over ${kind} loses nothing and brings back no crowd`, { timeout: 240_000 }, async (t) => {
    const stoppers = [];
    try {
      const broker = await startBroker(kind);
      stoppers.push(broker.stop);
      const options = {
        adapter: broker,
        env: { ROOMCAST__DRAIN__DELAY: "1s", ROOMCAST__DRAIN__RATE: String(RATE), ROOMCAST__DRAIN__PERIOD: "1m" },
      };
      const nodes = await startNodes(3, options);
      stoppers.push(() => Promise.all(nodes.map((node) => node.stop())));
      const balancer = await startHaproxy(nodes);
      stoppers.push(balancer.stop);
      const ledger = new Ledger(balancer.url, "rolling");
      stoppers.push(() => ledger.close());
      const polling = Math.round(CLIENTS / 12);
      // With credentials the clients keep the balancer's cookie.
      await ledger.open({ websocket: CLIENTS - 2 * polling, upgrade: polling, polling }, { withCredentials: true });

      // A backend that takes the next node when one does not answer.
      let turn = 0;
      ledger.begin(async (body) => {
        for (let attempt = 0; attempt < nodes.length; attempt++) {
          const node = nodes[turn++ % nodes.length];
          const answer = await post(node, "/v1/emit", body).catch(() => undefined);
          if (answer?.status === 202) return 202;
        }
        return undefined;
      }, EMIT_EVERY_MS);

      for (const [index, node] of nodes.entries()) {
        const { port, apiPort, child } = node;
        child.kill("SIGTERM");
        assert.deepEqual(await within(child.ended, "end of a node", 60_000), { code: 0, signal: null }, child.output);
        nodes[index] = await startGateway({ ...options, port, apiPort });
        await until(() => ledger.complete, "all clients back", 60_000);
      }
      await ledger.end();
      // What was accepted no longer before the end of a connection than emits were seen to travel was still on its way.
      const margin = () => Math.min(ledger.slowest + 1, MAX_ON_ITS_WAY_MS);
      await until(() => ledger.lost(margin()).length === 0, "what is owed");

      const lost = ledger.lost(margin());
      const [closed, returned] = [peak(ledger.closes), peak(ledger.returns)];
      t.diagnostic(
        `${ledger.accepted.length} emits accepted of ${ledger.emits.length}, ${ledger.members.length} clients, ` +
          `${ledger.returns.length} returns; lost while connected: ${lost.length} ` +
          `(accepted within ${margin().toFixed(0)} ms of a close, as long as the slowest emit took: ${ledger.lost(0).length}); ` +
          `most within a second: ${closed} closed, ${returned} returned, of a pace of ${RATE}; ` +
          `failed attempts: ${ledger.errors}; reasons: ${JSON.stringify(ledger.reasons)}`,
      );
      assert.deepEqual(lost, []);
      assert.ok(ledger.accepted.length > 100 && ledger.returns.length >= CLIENTS, "there was something to lose");
      assert.ok(ledger.members.every(({ twice }) => twice === 0), "nothing came twice");
      // Stock clients wait for half a second to one and a half, at random, which makes small crowds of its own.
      assert.ok(returned <= 2 * RATE, `${returned} came back within a second`);
    } finally {
      await stopAll(stoppers);
    }
  });
}
