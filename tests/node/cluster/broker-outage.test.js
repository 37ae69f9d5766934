// A broker that dies and comes back: the nodes say so, serve locally meanwhile, and are a cluster again when they say so.

import assert from "node:assert/strict";
import { test } from "node:test";
import { emit, get } from "../helpers/api.js";
import { startOwnBroker } from "../helpers/brokers.js";
import { TRANSPORTS, connect, join } from "../helpers/clients.js";
import { KINDS, stopAll } from "../helpers/cluster.js";
import { next, until, within } from "../helpers/deadline.js";
import { Child, freePort } from "../helpers/processes.js";
import { REFERENCE, startNodes } from "../helpers/servers.js";

for (const kind of KINDS) {
  test(`${kind} is killed and comes back`, async () => {
    const stoppers = [];
    try {
      const broker = await startOwnBroker(kind);
      stoppers.push(broker.stop);
      const nodes = await startNodes(2, { adapter: broker });
      stoppers.push(...nodes.map((node) => node.stop));
      const [x, y, z] = await Promise.all([nodes[0], nodes[0], nodes[1]].map((n) => connect(n.url, TRANSPORTS.websocket)));
      stoppers.push(() => [x, y, z].forEach((socket) => socket.disconnect()));
      for (const socket of [x, y, z]) await join(socket, "outage");

      await broker.kill();
      for (const node of nodes) {
        await until(async () => (await get(node, "/readyz")).status === 503, "a node that is not ready");
        // Not ready is not dead: a restart would not bring the broker back.
        assert.equal((await get(node, "/livez")).status, 200);
      }
      const local = next(y, "local");
      x.emit("room:emit", "outage", "local", 1);
      assert.deepEqual(await local, [1], "local delivery goes on");

      await broker.restart();
      for (const node of nodes) {
        await until(async () => (await get(node, "/readyz")).status === 200, "a node that is ready again");
      }
      // Ready means that the subscriptions stand: the very next emit arrives, in both directions.
      const [atX, atZ] = [next(x, "back"), next(z, "back")];
      await emit(nodes[0], { sockets: [z.id] }, "back", "to z");
      await emit(nodes[1], { sockets: [x.id] }, "back", "to x");
      assert.deepEqual([await atX, await atZ], [["to x"], ["to z"]]);
      const again = Promise.all([x, y, z].map((socket) => next(socket, "room again")));
      await emit(nodes[1], { rooms: ["outage"] }, "room again");
      await again;
    } finally {
      await stopAll(stoppers);
    }
  });

  test(`${kind} that cannot be reached at start-up is an error, not a fall-back`, { skip: REFERENCE }, async () => {
    const child = new Child(process.env.ROOMCAST_BIN, [], {
      env: {
        ROOMCAST__PUBLIC__LISTEN: `127.0.0.1:${await freePort()}`,
        ROOMCAST__API__LISTEN: `127.0.0.1:${await freePort()}`,
        ROOMCAST__ADAPTER__KIND: kind,
        ROOMCAST__ADAPTER__URL: `${kind}://127.0.0.1:${await freePort()}`,
      },
    });
    try {
      const { code } = await within(child.ended, "end of the gateway", 60_000);
      assert.notEqual(code, 0, child.output);
      assert.match(child.output, new RegExp(kind, "i"));
    } finally {
      await child.stop("SIGKILL");
    }
  });
}
