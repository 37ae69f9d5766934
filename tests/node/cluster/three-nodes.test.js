// Three nodes, a client of each transport on each: rooms, exceptions, selectors and order across the cluster.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { accepted, emit, roomSize } from "../helpers/api.js";
import { startBroker } from "../helpers/brokers.js";
import { TRANSPORTS, connect, gatewayAsk, join, record } from "../helpers/clients.js";
import { KINDS, stopAll } from "../helpers/cluster.js";
import { next, until } from "../helpers/deadline.js";
import { startNodes } from "../helpers/servers.js";

for (const kind of KINDS) {
  describe(`three nodes over ${kind}`, () => {
    const stoppers = [];
    let nodes;
    let sockets;
    let unique = 0;
    const room = (name) => `${name}-${kind}-${nodes[0].port}-${unique++}`;

    before(async () => {
      const broker = await startBroker(kind);
      stoppers.push(broker.stop);
      nodes = await startNodes(3, { adapter: broker });
      stoppers.push(...nodes.map((node) => node.stop));
      const open = nodes.flatMap((node) => Object.values(TRANSPORTS).map((options) => connect(node.url, options)));
      sockets = await Promise.all(open);
      stoppers.push(() => sockets.forEach((socket) => socket.disconnect()));
    });
    after(() => stopAll(stoppers));

    /** The first socket of each node. */
    const oneEach = () => [sockets[0], sockets[3], sockets[6]];

    /** Joins, and waits until every node counts the members. */
    async function joinAll(members, name) {
      await Promise.all(members.map((socket) => join(socket, name)));
      for (const node of nodes) await counts(node, name, members.length);
    }

    const counts = (node, name, count) =>
      until(async () => (await roomSize(node, name)) === count, `${count} members of ${name}`);

    /**
     * Gives each socket's events of `event`, once all `members` have seen the fence that every node sends behind it to a
     * room where all sockets are.
     */
    async function afterFence(records) {
      const everybody = room("fence");
      const fences = sockets.map((socket) => record(socket, "fence"));
      await joinAll(sockets, everybody);
      for (const node of nodes) await emit(node, { rooms: [everybody] }, "fence");
      await Promise.all(fences.map((fence) => fence.atLeast(nodes.length)));
      sockets.forEach((socket) => socket.offAny());
      return records.map((events) => events.map((event) => event.slice(1)));
    }

    test("each socket's room:emit reaches every other member once", async () => {
      const name = room("all");
      await joinAll(sockets, name);
      const records = sockets.map((socket) => record(socket, "news"));
      for (const [index, socket] of sockets.entries()) {
        await gatewayAsk(socket, "room:emit", name, "news", index, Buffer.from([index]));
      }
      await Promise.all(records.map((events) => events.atLeast(sockets.length - 1)));
      const received = await afterFence(records);
      for (const [index, events] of received.entries()) {
        const others = sockets.map((_, i) => i).filter((i) => i !== index);
        const seen = [...events].sort(([x], [y]) => x - y);
        assert.deepEqual(seen, others.map((i) => [i, Buffer.from([i])]));
      }
    });

    test("an emit to several rooms gives one copy to whoever is in many of them", async () => {
      const [one, two] = [room("one"), room("two")];
      const [x, y, z] = oneEach();
      await joinAll([x, y, z], one);
      await joinAll([x, y], two);
      const records = [x, y, z].map((socket) => record(socket, "multi"));
      for (const node of nodes) await emit(node, { rooms: [one, two] }, "multi", node.port);
      const received = await afterFence(records);
      for (const events of received) {
        assert.deepEqual(events.map(([port]) => port).sort(), nodes.map((node) => node.port).sort());
      }
    });

    test("an exception holds on every node", async () => {
      const [name, banned] = [room("but"), room("banned")];
      const [x, y, z] = oneEach();
      await joinAll([x, y, z], name);
      await joinAll([y], banned);
      const records = [x, y, z].map((socket) => record(socket, "but"));
      for (const node of nodes) {
        await accepted(node, "/v1/emit", { event: "but", args: [], to: { rooms: [name] }, except: { rooms: [banned] } });
        await accepted(node, "/v1/emit", { event: "but", args: [], to: { rooms: [name] }, except: { sockets: [z.id] } });
      }
      const received = await afterFence(records);
      assert.deepEqual(received.map((events) => events.length), [6, 3, 3]);
    });

    test("an emit to a socket finds it on any node", async () => {
      const records = oneEach().map((socket) => record(socket, "direct"));
      for (const node of nodes) {
        for (const socket of oneEach()) await emit(node, { sockets: [socket.id] }, "direct", socket.id);
      }
      const received = await afterFence(records);
      for (const [index, socket] of oneEach().entries()) {
        assert.deepEqual(received[index], [[socket.id], [socket.id], [socket.id]]);
      }
    });

    test("an emit to all reaches all, once", async () => {
      const records = sockets.map((socket) => record(socket, `all-${nodes[0].port}`));
      await emit(nodes[1], "all", `all-${nodes[0].port}`, 1);
      assert.deepEqual(await afterFence(records), sockets.map(() => [[1]]));
    });

    test("who left a room hears nothing more of it", async () => {
      const name = room("left");
      const [x, y, z] = oneEach();
      await joinAll([x, y, z], name);
      await gatewayAsk(y, "room:leave", name);
      for (const node of nodes) await counts(node, name, 2);
      const records = [x, y, z].map((socket) => record(socket, "after"));
      await emit(nodes[0], { rooms: [name] }, "after");
      const received = await afterFence(records);
      assert.deepEqual(received.map((events) => events.length), [1, 0, 1]);
    });

    test("the API joins, leaves and disconnects sockets of other nodes", async () => {
      const name = room("api");
      const [x, y, z] = oneEach();
      await accepted(nodes[0], "/v1/join", { to: { sockets: [x.id, y.id, z.id] }, rooms: [name] });
      for (const node of nodes) await counts(node, name, 3);
      await accepted(nodes[1], "/v1/leave", { to: { sockets: [z.id] }, rooms: [name] });
      for (const node of nodes) await counts(node, name, 2);

      const guest = await connect(nodes[2].url, TRANSPORTS.websocket);
      await join(guest, name);
      for (const node of nodes) await counts(node, name, 3);
      const gone = next(guest, "disconnect");
      await accepted(nodes[0], "/v1/disconnect", { to: { sockets: [guest.id] }, close: true });
      assert.equal((await gone)[0], "io server disconnect");
      for (const node of nodes) await counts(node, name, 2);
    });

    test("order holds per publishing node and room", async () => {
      const name = room("order");
      await joinAll(sockets, name);
      const records = sockets.map((socket) => record(socket, "n"));
      const publishers = oneEach();
      for (let i = 0; i < 100; i++) {
        publishers.forEach((socket, who) => socket.emit("room:emit", name, "n", who, i));
      }
      await Promise.all(
        records.map((events, index) => events.atLeast(publishers.includes(sockets[index]) ? 200 : 300)),
      );
      const received = await afterFence(records);
      for (const [index, events] of received.entries()) {
        for (const [who, publisher] of publishers.entries()) {
          const mine = events.filter(([from]) => from === who).map(([, i]) => i);
          const expected = sockets[index] === publisher ? [] : Array.from({ length: 100 }, (_, i) => i);
          assert.deepEqual(mine, expected);
        }
      }
    });

    test("an emit that follows a confirmed join arrives", async () => {
      // A join is confirmed once the subscription stands, so there is nothing to wait for in between.
      for (let i = 0; i < 20; i++) {
        const name = room("fresh");
        const [x, , z] = oneEach();
        await join(z, name);
        const arrived = next(z, "fresh");
        await gatewayAsk(x, "room:emit", name, "fresh", i);
        assert.deepEqual(await arrived, [i]);
      }
    });
  });
}
