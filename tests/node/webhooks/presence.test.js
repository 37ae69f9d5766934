// Presence that survives the death of a node: what it can no longer tell, the others tell, once each by id.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { roomSize } from "../helpers/api.js";
import { TRANSPORTS, ask, connect } from "../helpers/clients.js";
import { KINDS, stopAll } from "../helpers/cluster.js";
import { startOwnBroker } from "../helpers/brokers.js";
import { until } from "../helpers/deadline.js";
import { backendOf, configuration, startReceiver, tellsAll } from "../helpers/receiver.js";
import { startNodes } from "../helpers/servers.js";

const websocket = TRANSPORTS.websocket;

for (const kind of KINDS) {
  describe(`presence over ${kind}`, () => {
    const stoppers = [];
    let receiver, nodes;
    before(async () => {
      receiver = await startReceiver();
      stoppers.push(receiver.stop);
      const broker = await startOwnBroker(kind);
      stoppers.push(broker.stop);
      const settings = {
        adapter: {
          kind,
          url: broker.url,
          heartbeat: "250ms",
          expiry: "2s",
          lease: "4s",
          directory: { vacate_after: "500ms" },
        },
        backend: { presence: backendOf(receiver) },
        namespace: [{ name: "/", ...tellsAll("presence"), connect: undefined }],
      };
      nodes = await startNodes(3, { adapter: broker, file: configuration(settings).file });
      stoppers.push(...nodes.map((node) => node.stop));
    });
    after(() => stopAll(stoppers));

    const told = (type, room) => receiver.of(`room.${type}`).filter(({ data }) => data.room === room);

    test("a room is occupied and vacated once in the whole cluster", async () => {
      const sockets = await Promise.all(nodes.map((node) => connect(node.url, websocket)));
      for (const socket of sockets) await ask(socket, "room:join", "shared");
      await until(() => told("occupied", "shared").length > 0, "occupied");
      await until(async () => (await roomSize(nodes[0], "shared")) === 3, "three members");
      sockets.forEach((socket) => socket.disconnect());
      await until(() => told("vacated", "shared").length > 0, "vacated");
      for (const type of ["occupied", "vacated"]) {
        assert.equal(new Set(told(type, "shared").map(({ id }) => id)).size, 1);
      }
    });

    test("a node is killed: its sockets are disconnected and their rooms vacated, once each by id", async () => {
      const killed = nodes[2];
      const theirs = await Promise.all(Array.from({ length: 20 }, () => connect(killed.url, websocket)));
      const other = await connect(nodes[0].url, websocket);
      const [ids, otherId] = [theirs.map((socket) => socket.id), other.id];
      for (const [index, socket] of theirs.entries()) await ask(socket, "room:join", `only:${index}`);
      await ask(theirs[0], "room:join", "both");
      await ask(other, "room:join", "both");
      await until(() => ids.every((id) => receiver.of("connected", id).length > 0), "connected");
      await until(() => ids.every((_, index) => told("occupied", `only:${index}`).length > 0), "occupied");
      // The counts are with their owners.
      await until(async () => (await roomSize(nodes[0], "only:19")) === 1, "count");

      killed.child.kill("SIGKILL");
      await until(() => ids.every((id) => receiver.of("disconnected", id).length > 0), "disconnected");
      await until(() => ids.every((_, index) => told("vacated", `only:${index}`).length > 0), "vacated");
      for (const id of ids) {
        const events = receiver.of("disconnected", id);
        assert.equal(new Set(events.map((event) => event.id)).size, 1);
        assert.ok(events.every(({ data }) => data.reason === "node lost"));
        // Behind everything that the node itself said.
        const last = Math.max(...receiver.of("connected", id).map((event) => Number(event.sequence)));
        assert.ok(events.every((event) => Number(event.sequence) > last));
      }
      for (let index = 0; index < 20; index++) {
        assert.equal(new Set(told("vacated", `only:${index}`).map(({ id }) => id)).size, 1);
      }
      assert.equal(told("vacated", "both").length, 0);
      assert.equal(receiver.of("disconnected", otherId).length, 0);

      other.disconnect();
      await until(() => told("vacated", "both").length > 0, "vacated");
      assert.deepEqual(receiver.of("disconnected", otherId).map(({ data }) => data.reason), ["client namespace disconnect"]);
      assert.deepEqual(receiver.problems, []);
      theirs.forEach((socket) => socket.disconnect());
    });
  });
}
