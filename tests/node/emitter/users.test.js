// The users that docs/getting-started/redis.md gives to nodes and backends can do what they have to, and no more.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { Emitter } from "@socket.io/redis-emitter";
import Redis from "ioredis";
import { startOwnBroker } from "../helpers/brokers.js";
import { TRANSPORTS, connect, record } from "../helpers/clients.js";
import { stopAll } from "../helpers/cluster.js";
import { until } from "../helpers/deadline.js";
import { ingestUp } from "../helpers/ingest.js";
import { startNodes } from "../helpers/servers.js";

const page = readFileSync(new URL("../../../docs/getting-started/redis.md", import.meta.url), "utf8");
const users = [...page.matchAll(/^user (\S+ on .*)$/gm)].map(([, rules]) => rules.split(/\s+/));

const stoppers = [];
let broker;
let nodes;
const as = (user, password) => {
  const url = broker.url.replace("redis://", `redis://${user}:${password}@`);
  // It would ask for INFO, which they may not.
  const client = new Redis(url, { enableReadyCheck: false });
  stoppers.push(() => client.quit());
  return client;
};

before(async () => {
  broker = await startOwnBroker("redis");
  stoppers.push(broker.stop);
  const admin = new Redis(broker.url);
  stoppers.push(() => admin.quit());
  assert.equal(users.length, 3);
  for (const rules of users) await admin.call("ACL", "SETUSER", ...rules);
  const adapter = { kind: "redis", url: broker.url.replace("redis://", "redis://roomcast:SECRET1@") };
  const env = { ROOMCAST__INGEST__STREAM__ENABLED: "true", ROOMCAST__INGEST__STREAM__CLAIM_AFTER: "1s" };
  nodes = await startNodes(2, { adapter, env });
  nodes.forEach((node) => stoppers.push(node.stop));
  for (const node of nodes) for (const source of ["redis_emitter", "redis_stream"]) await ingestUp(node, source);
});
after(() => stopAll(stoppers));

test("everything works", async () => {
  const [emitter, orders] = [as("emitter", "SECRET2"), as("orders", "SECRET3")];
  const sockets = await Promise.all(nodes.map((node) => connect(node.url, TRANSPORTS.websocket)));
  const received = sockets.map((socket) => record(socket));
  new Emitter(emitter).emit("emitted");
  const body = JSON.stringify({ event: "written", args: [], to: "all" });
  await orders.xadd("roomcast:emit", "*", "body", body, "key", "k");
  await orders.xadd("roomcast:emit", "*", "body", body, "key", "k");
  await orders.xadd("roomcast:emit", "*", "body", "nonsense", "key", "other");
  await until(async () => (await orders.xrange("roomcast:emit:dead", "-", "+")).length === 1, "a dead entry");
  await until(async () => (await orders.xrange("roomcast:emit", "-", "+")).length === 0, "an empty stream");
  for (const events of received) {
    await events.atLeast(2);
    assert.deepEqual(events.map(([event]) => event).sort(), ["emitted", "written"]);
  }
  sockets.forEach((socket) => socket.disconnect());
});

test("backends can do nothing else", async () => {
  const [emitter, orders] = [as("emitter", "SECRET2"), as("orders", "SECRET3")];
  for (const [client, ...command] of [
    [emitter, "PUBLISH", "roomcast:all", "x"],
    [emitter, "PSUBSCRIBE", "socket.io*"],
    [emitter, "XADD", "roomcast:emit", "*", "body", "{}"],
    [orders, "PUBLISH", "socket.io#/#", "x"],
    [orders, "XREAD", "STREAMS", "roomcast:emit", "0"],
    [orders, "XDEL", "roomcast:emit", "1-0"],
    [orders, "SET", "anything", "x"],
  ]) {
    await assert.rejects(client.call(...command), /NOPERM/, command.join(" "));
  }
});
