// What backends publish with @socket.io/redis-emitter, unmodified, for clients of two nodes: every call of it, text and
// binary, one copy each.

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { Emitter } from "@socket.io/redis-emitter";
import Redis from "ioredis";
import { startOwnBroker } from "../helpers/brokers.js";
import { TRANSPORTS, connect, join, record } from "../helpers/clients.js";
import { stopAll } from "../helpers/cluster.js";
import { next, until } from "../helpers/deadline.js";
import { ingested, ingestUp } from "../helpers/ingest.js";
import { temporaryDirectory } from "../helpers/processes.js";
import { startNodes } from "../helpers/servers.js";

const stoppers = [];
let broker;
let nodes;
let redis;
let emitter;
let unique = 0;
const room = () => `emitter:${unique++}`;

before(async () => {
  broker = await startOwnBroker("redis");
  stoppers.push(broker.stop);
  const file = path.join(temporaryDirectory(), "roomcast.json");
  writeFileSync(file, JSON.stringify({ namespace: [{ name: "/" }, { name: "/chat" }] }));
  nodes = await startNodes(2, { adapter: broker, file });
  nodes.forEach((node) => stoppers.push(node.stop));
  await Promise.all(nodes.map((node) => ingestUp(node, "redis_emitter")));
  redis = new Redis(broker.url);
  stoppers.push(() => redis.quit());
  emitter = new Emitter(redis);
});
after(() => stopAll(stoppers));

/** A client of each node, in the rooms, and what each has got. */
async function clients(...rooms) {
  const sockets = await Promise.all(nodes.map((node) => connect(node.url, TRANSPORTS.websocket)));
  for (const socket of sockets) for (const name of rooms) await join(socket, name);
  return { sockets, received: sockets.map((socket) => record(socket)), close: () => sockets.forEach((socket) => socket.disconnect()) };
}

/** Whatever came, it came before the fence: what is published on one connection stays in order. */
async function settled({ received }) {
  const fence = `fence:${unique++}`;
  emitter.emit(fence);
  await Promise.all(received.map((events) => until(() => events.some(([event]) => event === fence), "fence")));
  return received.map((events) => events.filter(([event]) => !event.startsWith("fence:")));
}

describe("emit", () => {
  test("to everybody", async () => {
    const group = await clients();
    emitter.emit("news", "text", 1, 1.5, -7, true, null, { a: ["\u{1f600}"] });
    const expected = [["news", "text", 1, 1.5, -7, true, null, { a: ["\u{1f600}"] }]];
    assert.deepEqual(await settled(group), [expected, expected]);
    group.close();
  });

  test("binary, dates and undefined, as a server in JavaScript would send them", async () => {
    const name = room();
    const group = await clients(name);
    emitter.to(name).emit("bin", Buffer.from([1, 2]), { deep: [Buffer.from([3])] }, new Date(960_854_400_123), undefined, { k: undefined });
    const expected = ["bin", Buffer.from([1, 2]), { deep: [Buffer.from([3])] }, "2000-06-13T00:00:00.123Z", null, {}];
    assert.deepEqual(await settled(group), [[expected], [expected]]);
    group.close();
  });

  test("a socket in several of the rooms gets one copy", async () => {
    const [one, two] = [room(), room()];
    const group = await clients(one, two);
    emitter.to(one).to(two).in([one, two]).emit("once");
    assert.deepEqual(await settled(group), [[["once"]], [["once"]]]);
    group.close();
  });

  test("to one socket, and to all but one", async () => {
    const group = await clients();
    const [a, b] = group.sockets;
    emitter.to(b.id).emit("to b");
    emitter.except(b.id).emit("not to b");
    emitter.in(a.id).except([b.id]).emit("to a");
    assert.deepEqual(await settled(group), [[["not to b"], ["to a"]], [["to b"]]]);
    group.close();
  });

  test("a room without the members of another", async () => {
    const [all, some] = [room(), room()];
    const group = await clients(all);
    await join(group.sockets[0], some);
    emitter.to(all).except(some).emit("some");
    assert.deepEqual(await settled(group), [[], [["some"]]]);
    group.close();
  });

  test("volatile and compress", async () => {
    const name = room();
    const group = await clients(name);
    emitter.volatile.emit("volatile");
    emitter.to(name).volatile.compress(false).emit("both");
    emitter.compress(true).emit("compressed");
    const expected = [["volatile"], ["both"], ["compressed"]];
    assert.deepEqual(await settled(group), [expected, expected]);
    group.close();
  });

  test("rooms whose names mean something to Redis, or are numbers", async () => {
    for (const name of ["a*[b]?\\", "with#hash#", "7"]) {
      const group = await clients(name);
      emitter.to(name).emit("odd");
      assert.deepEqual(await settled(group), [[["odd"]], [["odd"]]], name);
      group.close();
    }
    const group = await clients("7");
    emitter.to(7).emit("number");
    assert.deepEqual(await settled(group), [[["number"]], [["number"]]]);
    group.close();
  });

  test("in another namespace, and not in this one", async () => {
    const group = await clients();
    const others = await Promise.all(nodes.map((node) => connect(`${node.url}/chat`, TRANSPORTS.websocket)));
    const arrived = others.map((socket) => next(socket, "chat"));
    emitter.of("/chat").emit("chat", "there");
    assert.deepEqual(await Promise.all(arrived), [["there"], ["there"]]);
    emitter.of("chat").to(others[0].id).emit("chat", "again");
    assert.deepEqual(await settled(group), [[], []]);
    group.close();
    others.forEach((socket) => socket.disconnect());
  });

  test("two thousand in a row, in order, one copy each", async () => {
    const name = room();
    const group = await clients(name);
    const count = 2000;
    for (let i = 0; i < count; i++) emitter.to(name).emit("row", i);
    const expected = Array.from({ length: count }, (_, i) => ["row", i]);
    for (const events of await settled(group)) assert.deepEqual(events, expected);
    group.close();
  });
});

describe("sockets", () => {
  test("socketsJoin and socketsLeave, with and without a selection", async () => {
    const [members, added, everybody] = [room(), room(), room()];
    const group = await clients();
    await join(group.sockets[1], members);
    emitter.in(members).socketsJoin([added, "more"]);
    emitter.to(added).emit("joined");
    emitter.socketsJoin(everybody);
    emitter.to(everybody).emit("all");
    emitter.except(members).socketsLeave(everybody);
    emitter.to(everybody).emit("but one");
    emitter.in(members).socketsLeave([added]);
    emitter.to(added).emit("lost");
    assert.deepEqual(await settled(group), [[["all"]], [["joined"], ["all"], ["but one"]]]);
    group.close();
  });

  test("who joined so is reached by the gateway's own emits from the other node", async () => {
    const name = room();
    const group = await clients();
    emitter.in(group.sockets[1].id).socketsJoin(name);
    const arrived = next(group.sockets[1], "own");
    await until(async () => {
      const body = JSON.stringify({ event: "own", args: [1], to: { rooms: [name] } });
      await fetch(`${nodes[0].api}/v1/emit`, { method: "POST", headers: { "content-type": "application/json" }, body });
      return Promise.race([arrived, new Promise((resolve) => setTimeout(resolve, 100))]);
    }, "event over the gateway's own bus");
    group.close();
  });

  test("disconnectSockets, of the namespace and with the connection", async () => {
    for (const close of [undefined, false, true]) {
      const [name, group] = [room(), await clients()];
      await join(group.sockets[0], name);
      const gone = next(group.sockets[0], "disconnect");
      emitter.in(name).disconnectSockets(close);
      assert.equal((await gone)[0], "io server disconnect");
      assert.ok(group.sockets[1].connected);
      group.close();
    }
    const group = await clients();
    const gone = group.sockets.map((socket) => next(socket, "disconnect"));
    emitter.disconnectSockets();
    for (const [reason] of await Promise.all(gone)) assert.equal(reason, "io server disconnect");
  });
});

test("serverSideEmit is taken by each node", async () => {
  const before = await Promise.all(nodes.map((node) => ingested(node, "redis_emitter", "done")));
  emitter.serverSideEmit("hello", "servers", 1);
  await until(async () => {
    const now = await Promise.all(nodes.map((node) => ingested(node, "redis_emitter", "done")));
    return now.every((count, index) => count === before[index] + 1);
  }, "the event at both nodes");
});

test("nodes are no peers that servers of Socket.IO would wait for", async () => {
  for (const channel of ["socket.io-request#/#", "socket.io#/#", "socket.io-response#/#"]) {
    assert.deepEqual(await redis.pubsub("NUMSUB", channel), [channel, 0]);
  }
});

test("nonsense is counted, and the nodes live", async () => {
  const group = await clients();
  const before = await Promise.all(nodes.map((node) => ingested(node, "redis_emitter", "malformed")));
  const nonsense = ["", "{", "{}", "[]", '{"type":2}', '{"type":4,"opts":7}', Buffer.from([0xdd, 0xff, 0xff, 0xff, 0xff]), Buffer.alloc(100_000, 0x91)];
  for (const payload of nonsense) {
    await redis.publish("socket.io#/#", payload);
    await redis.publish("socket.io-request#/#", payload);
  }
  assert.deepEqual(await settled(group), [[], []]);
  for (const [index, node] of nodes.entries()) {
    assert.equal(await ingested(node, "redis_emitter", "malformed"), before[index] + 2 * nonsense.length);
  }
  group.close();
});

test("a Redis that was away is listened to again", async () => {
  const group = await clients();
  await broker.kill();
  await Promise.all(nodes.map((node) => ingestUp(node, "redis_emitter", 0)));
  await broker.restart();
  await Promise.all(nodes.map((node) => ingestUp(node, "redis_emitter")));
  await until(() => redis.status === "ready", "the backend's own connection");
  emitter.emit("back");
  assert.deepEqual(await settled(group), [[["back"]], [["back"]]]);
  group.close();
});
