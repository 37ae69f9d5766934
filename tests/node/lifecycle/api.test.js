// A node that is told to drain by the API, through another node of the cluster.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { get, metric, post } from "../helpers/api.js";
import { startBroker } from "../helpers/brokers.js";
import { TRANSPORTS, connect } from "../helpers/clients.js";
import { KINDS, stopAll } from "../helpers/cluster.js";
import { next, until, within } from "../helpers/deadline.js";
import { Child } from "../helpers/processes.js";
import { startGateway, startNodes } from "../helpers/servers.js";

for (const kind of KINDS) {
  describe(`draining over ${kind}`, () => {
    const stoppers = [];
    let nodes, tags;
    before(async () => {
      const broker = await startBroker(kind);
      stoppers.push(broker.stop);
      nodes = await startNodes(3, { adapter: broker });
      stoppers.push(...nodes.map((node) => node.stop));
      tags = await Promise.all(nodes.map(async (node) => (await get(node, "/readyz")).body.node));
      for (const node of nodes) {
        await until(async () => (await get(node, "/v1/nodes")).body.nodes.filter(({ state }) => state === "ready").length === 3, "three ready nodes");
      }
    });
    after(() => stopAll(stoppers));

    test("any node passes the order on, and the one that it is for drains and ends with 0", async () => {
      const sockets = await Promise.all(Array.from({ length: 10 }, () => connect(nodes[1].url, TRANSPORTS.websocket)));
      const other = await connect(nodes[0].url, TRANSPORTS.websocket);
      const disturbed = [];
      other.on("disconnect", (reason) => disturbed.push(reason));
      const ends = sockets.map((socket) => next(socket, "disconnect"));
      const answer = await post(nodes[0], `/v1/nodes/${tags[1]}/drain`, { period: "2s" });
      assert.deepEqual([answer.status, answer.body], [200, { node: tags[1], state: "draining", already: false, connections: 10 }]);
      const again = await post(nodes[2], `/v1/nodes/${tags[1]}/drain`, "");
      assert.deepEqual([again.status, again.body.already], [200, true]);
      await until(async () => {
        const known = (await get(nodes[2], "/v1/nodes")).body.nodes.find(({ id }) => id === tags[1]);
        return known?.state === "draining";
      }, "a node that others know to drain");
      for (const [reason] of await Promise.all(ends)) assert.equal(reason, "transport close");
      assert.deepEqual(await within(nodes[1].child.ended, "end of the node"), { code: 0, signal: null });
      assert.deepEqual(disturbed, []);
      await until(async () => (await get(nodes[0], "/v1/nodes")).body.nodes.length === 2, "a cluster of two");
      const gone = await post(nodes[0], `/v1/nodes/${tags[1]}/drain`, "");
      assert.deepEqual([gone.status, gone.body.code], [404, "not_found"]);
      other.disconnect();
    });

    test("a node drains itself, by the command line", async () => {
      const socket = await connect(nodes[2].url, TRANSPORTS.websocket);
      const args = (...rest) => new Child(process.env.ROOMCAST_BIN, rest, { env: { ROOMCAST_URL: nodes[2].api, ROOMCAST_KEY: "none" } });
      const drain = args("drain", "--delay", "1m");
      assert.equal((await within(drain.ended, "end of the command")).code, 0, drain.output);
      assert.match(drain.output, new RegExp(`${tags[2]} drains, with 1 connections`));
      const list = args("nodes");
      await within(list.ended, "end of the command");
      assert.match(list.output, new RegExp(`${tags[2]} +draining +1 `));
      assert.ok(socket.connected);
      // A signal goes over what the API said: it waits with a time of its own.
      const gone = next(socket, "disconnect");
      nodes[2].child.kill("SIGTERM");
      assert.equal((await gone)[0], "transport close");
      assert.deepEqual(await within(nodes[2].child.ended, "end of the node"), { code: 0, signal: null });
    });
  });
}

test("a node that is alone drains itself", async () => {
  const node = await startGateway();
  const { body } = await get(node, "/readyz");
  const socket = await connect(node.url, TRANSPORTS.polling);
  const gone = next(socket, "disconnect");
  const answer = await post(node, `/v1/nodes/${body.node}/drain`, {});
  assert.deepEqual([answer.status, answer.body.connections], [200, 1]);
  assert.equal((await gone)[0], "transport close");
  assert.deepEqual(await within(node.child.ended, "end of the node"), { code: 0, signal: null });
});

test("orders that are none change nothing", async () => {
  const node = await startGateway();
  try {
    const { body } = await get(node, "/readyz");
    for (const [path, order, status] of [
      [`/v1/nodes/none/drain`, {}, 404],
      [`/v1/nodes/${body.node}/drain`, { period: "soon" }, 422],
      [`/v1/nodes/${body.node}/drain`, { periods: "1s" }, 422],
      [`/v1/nodes/${body.node}/drain`, "{", 400],
    ]) {
      assert.equal((await post(node, path, order)).status, status, JSON.stringify(order));
    }
    assert.equal((await get(node, "/readyz")).status, 200);
    assert.equal(await metric(node, "draining"), 0);
  } finally {
    await node.stop();
  }
});
