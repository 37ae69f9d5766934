// Calls that backends write into a stream of Redis: none is lost, whatever happens to the nodes that read them.

import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import Redis from "ioredis";
import { startOwnBroker } from "../helpers/brokers.js";
import { TRANSPORTS, connect, join, record } from "../helpers/clients.js";
import { stopAll } from "../helpers/cluster.js";
import { until } from "../helpers/deadline.js";
import { ingestUp, ingested } from "../helpers/ingest.js";
import { startGateway } from "../helpers/servers.js";

const STREAM = "roomcast:emit";
const stoppers = [];
afterEach(async () => {
  await stopAll(stoppers);
  stoppers.length = 0;
});

async function start(kind) {
  const broker = await startOwnBroker(kind);
  stoppers.push(broker.stop);
  return broker;
}

async function node(adapter, env = {}) {
  const started = await startGateway({
    adapter,
    env: { ROOMCAST__INGEST__STREAM__ENABLED: "true", ROOMCAST__INGEST__STREAM__CLAIM_AFTER: "1s", ...env },
  });
  stoppers.push(started.stop);
  return started;
}

function backend(broker) {
  const redis = new Redis(broker.url);
  stoppers.push(() => redis.quit());
  return redis;
}

const body = (room, event, ...args) => JSON.stringify({ event, args, to: { rooms: [room] } });
const xadd = (redis, text, key) => redis.xadd(STREAM, "*", "body", text, ...(key ? ["key", key] : []));

async function member(at, room) {
  const socket = await connect(at.url, TRANSPORTS.websocket);
  stoppers.push(() => socket.disconnect());
  await join(socket, room);
  return record(socket);
}

const pendingOf = async (redis) => (await redis.xpending(STREAM, "roomcast"))[0];

test("an entry is carried out by one node for all, acknowledged and deleted", async () => {
  const broker = await start("redis");
  const redis = backend(broker);
  // Before any node is there: it waits.
  await xadd(redis, body("r", "early"));
  const nodes = [await node(broker), await node(broker)];
  await Promise.all(nodes.map((one) => ingestUp(one, "redis_stream")));
  await until(async () => (await redis.xlen(STREAM)) === 0, "an empty stream");
  const received = await Promise.all(nodes.map((one) => member(one, "r")));
  const bin = { $bin: "AQI=" };
  for (let i = 0; i < 200; i++) await xadd(redis, body("r", "e", i, bin));
  for (const events of received) {
    await events.atLeast(200);
    const numbers = events.map(([, number]) => number).sort((a, b) => a - b);
    assert.deepEqual(numbers, Array.from({ length: 200 }, (_, i) => i));
    assert.deepEqual(events[0][2], Buffer.from([1, 2]));
  }
  await until(async () => (await redis.xlen(STREAM)) === 0, "an empty stream");
  assert.equal(await pendingOf(redis), 0);
});

test("of entries with one key, one is carried out", async () => {
  const broker = await start("redis");
  const nodes = [await node(broker), await node(broker)];
  const redis = backend(broker);
  const events = await member(nodes[0], "r");
  await Promise.all(nodes.map((one) => ingestUp(one, "redis_stream")));
  // At once, so that both nodes have some of them at the same time, and once more later.
  await Promise.all(Array.from({ length: 40 }, (_, i) => xadd(redis, body("r", "e", i % 10), `key-${i % 10}`)));
  await until(async () => (await redis.xlen(STREAM)) === 0, "an empty stream");
  for (let i = 0; i < 10; i++) await xadd(redis, body("r", "e", i), `key-${i}`);
  await xadd(redis, body("r", "fence"));
  await until(async () => (await redis.xlen(STREAM)) === 0, "an empty stream");
  await until(() => events.some(([event]) => event === "fence"), "the fence");
  const numbers = events.filter(([event]) => event === "e").map(([, number]) => number);
  assert.deepEqual(numbers.sort((a, b) => a - b), Array.from({ length: 10 }, (_, i) => i));
  const duplicates = await Promise.all(nodes.map((one) => ingested(one, "redis_stream", "duplicate")));
  assert.equal(duplicates[0] + duplicates[1], 40);
});

test("what cannot be carried out goes to the dead ones, with the reason, and its key is free", async () => {
  const broker = await start("redis");
  const one = await node(broker);
  const redis = backend(broker);
  const events = await member(one, "r");
  await xadd(redis, "no json", "k");
  await xadd(redis, JSON.stringify({ event: "e", args: [] }));
  await redis.xadd(STREAM, "*", "other", "field");
  await xadd(redis, JSON.stringify({ event: "e", args: ["x".repeat(2_000_000)], to: "all" }));
  await xadd(redis, body("r", "good"), "k");
  await until(async () => (await redis.xlen(`${STREAM}:dead`)) === 4, "four dead entries");
  await events.atLeast(1);
  assert.deepEqual(events, [["good"]]);
  const dead = (await redis.xrange(`${STREAM}:dead`, "-", "+")).map(([, fields]) => Object.fromEntries(pairs(fields)));
  assert.deepEqual(dead.map(({ reason }) => reason).sort(), ["invalid_request", "invalid_request", "invalid_request", "payload_too_large"]);
  assert.ok(dead.some(({ body, key }) => body === "no json" && key === "k"));
  assert.equal(await ingested(one, "redis_stream", "refused"), 4);
  await until(async () => (await redis.xlen(STREAM)) === 0, "an empty stream");
});

const pairs = (fields) => Array.from({ length: fields.length / 2 }, (_, i) => [fields[2 * i], fields[2 * i + 1]]);

test("a node that is killed between reading and acknowledging loses nothing", async () => {
  // The broker of the cluster hangs, so that the node has read entries and cannot get rid of them.
  const [cluster, queue] = [await start("nats"), await start("redis")];
  const env = { ROOMCAST__INGEST__REDIS__URL: queue.url };
  const dying = await node(cluster, env);
  const redis = backend(queue);
  await ingestUp(dying, "redis_stream");
  cluster.hang();
  const count = 100;
  for (let i = 0; i < count; i++) await xadd(redis, body("r", "e", i), `key-${i}`);
  await until(async () => (await pendingOf(redis)) > 0, "entries that were read");
  await dying.child.stop("SIGKILL");
  assert.ok((await pendingOf(redis)) > 0);
  // A few may have been taken before the broker really stood still.
  const left = await redis.xlen(STREAM);
  assert.ok(left > 0);
  cluster.thaw();
  const heir = await node(cluster, env);
  const events = await member(heir, "r");
  await until(async () => (await redis.xlen(STREAM)) === 0, "an empty stream");
  await events.atLeast(1);
  const taken = await ingested(heir, "redis_stream", "done");
  assert.equal(taken, left);
  assert.ok((await ingested(heir, "redis_stream", "claimed")) > 0);
  // Those that the heir carried out before its first member joined are not there to be seen.
  const numbers = events.map(([, number]) => number);
  assert.equal(new Set(numbers).size, numbers.length);
});

test("nodes that are killed under load lose nothing, and a member elsewhere gets everything", async () => {
  const broker = await start("redis");
  const witness = await startGateway({ adapter: broker });
  stoppers.push(witness.stop);
  const events = await member(witness, "r");
  const redis = backend(broker);
  let victim = await node(broker);
  const count = 3000;
  let written = 0;
  const writing = (async () => {
    for (; written < count; written++) await xadd(redis, body("r", "e", written), `key-${written}`);
  })();
  for (const at of [700, 1600]) {
    await until(() => events.length > at, `${at} events`);
    await victim.child.stop("SIGKILL");
    victim = await node(broker);
  }
  await writing;
  const seen = () => new Set(events.map(([, number]) => number));
  await until(async () => (await redis.xlen(STREAM)) === 0, "an empty stream");
  await until(() => seen().size === count, "every event");
  // Again only what was between the broker's word and the acknowledgement when a node died: of one batch each.
  assert.ok(events.length - count <= 2 * 64, `${events.length - count} came twice`);
});

test("a node that stops finishes what it has read", async () => {
  const broker = await start("redis");
  const redis = backend(broker);
  const witness = await startGateway({ adapter: broker });
  stoppers.push(witness.stop);
  const events = await member(witness, "r");
  const first = await node(broker);
  await ingestUp(first, "redis_stream");
  const count = 1000;
  const writing = (async () => {
    for (let i = 0; i < count; i++) await xadd(redis, body("r", "e", i));
  })();
  await until(() => events.length > 100, "some events");
  await first.stop();
  assert.equal(await pendingOf(redis), 0);
  assert.deepEqual(await redis.xinfo("CONSUMERS", STREAM, "roomcast"), []);
  await writing;
  await node(broker);
  await events.atLeast(count);
  assert.deepEqual(events.map(([, number]) => number), Array.from({ length: count }, (_, i) => i));
});

test("an entry that is tried too often is dead", async () => {
  const broker = await start("redis");
  const redis = backend(broker);
  // A consumer that takes an entry and dies, again and again.
  await redis.xgroup("CREATE", STREAM, "roomcast", "0", "MKSTREAM");
  const id = await xadd(redis, body("r", "poison"), "k");
  await redis.xreadgroup("GROUP", "roomcast", "dead", "COUNT", 1, "STREAMS", STREAM, ">");
  for (let i = 0; i < 4; i++) await redis.xclaim(STREAM, "roomcast", "dead", 0, id);
  const one = await node(broker);
  await until(async () => (await redis.xlen(`${STREAM}:dead`)) === 1, "a dead entry");
  const [[, fields]] = await redis.xrange(`${STREAM}:dead`, "-", "+");
  assert.equal(Object.fromEntries(pairs(fields)).reason, "exhausted");
  assert.equal(await ingested(one, "redis_stream", "exhausted"), 1);
  assert.equal(await redis.xlen(STREAM), 0);
});
