// Clients that are one too many: refused early, told when to come again, counted; those who are connected notice nothing.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { get, metric } from "../helpers/api.js";
import { startBroker } from "../helpers/brokers.js";
import { TRANSPORTS, ask, connect } from "../helpers/clients.js";
import { stopAll } from "../helpers/cluster.js";
import { until } from "../helpers/deadline.js";
import { configuration } from "../helpers/receiver.js";
import { startGateway, startNodes } from "../helpers/servers.js";

const handshake = (node) => fetch(`${node.url}/socket.io/?EIO=4&transport=polling`);
const readiness = async (node) => {
  const { status, body } = await get(node, "/readyz");
  return { status, reason: body.reason };
};

/** Polling and WebSocket are both turned away with this code, and when to come again is within these seconds. */
async function refuses(node, code, message, [from, to]) {
  const before = await metric(node, "handshakes_refused_total", { code });
  const response = await handshake(node);
  assert.equal(response.status, 503);
  assert.deepEqual(await response.json(), { code: 503, message });
  const seconds = Number(response.headers.get("retry-after"));
  assert.ok(seconds >= from && seconds <= to, String(seconds));
  await assert.rejects(connect(node.url, { ...TRANSPORTS.websocket, timeout: 5000 }));
  assert.equal(await metric(node, "handshakes_refused_total", { code }), before + 2);
}

describe("a node", () => {
  test("takes so many handshakes per second", async () => {
    const env = { ROOMCAST__ADMISSION__HANDSHAKES_PER_SECOND: "1", ROOMCAST__ADMISSION__HANDSHAKES_BURST: "3" };
    const node = await startGateway({ env });
    try {
      const socket = await connect(node.url, TRANSPORTS.websocket);
      // As fast as they come, until one is refused: a slow machine gains some.
      await until(async () => (await handshake(node)).status === 503, "a refusal");
      assert.ok((await metric(node, "handshakes_refused_total", { code: "rate" })) >= 1);
      assert.ok((await ask(socket, "room:join", "r")).every((answer) => !answer?.error));
      assert.deepEqual(await readiness(node), { status: 200, reason: undefined });
      // It is a rate: those who come later are let in.
      await until(async () => (await handshake(node)).status === 200, "a handshake");
      socket.disconnect();
    } finally {
      await node.stop();
    }
  });

  test("takes so many connections, and stays ready when it is alone", async () => {
    const node = await startGateway({ env: { ROOMCAST__PUBLIC__MAX_CONNECTIONS: "2" } });
    const sockets = [];
    try {
      for (const transport of [TRANSPORTS.websocket, TRANSPORTS.polling]) sockets.push(await connect(node.url, transport));
      await refuses(node, "limit", "Too many connections", [5, 15]);
      await until(async () => (await metric(node, "full", { of: "connections" })) === 1, "a node that is full");
      assert.deepEqual(await readiness(node), { status: 200, reason: undefined });
      for (const socket of sockets) assert.ok((await ask(socket, "room:join", "r")).every((answer) => !answer?.error));
      sockets.pop().disconnect();
      await until(async () => (await handshake(node)).status === 200, "a handshake");
    } finally {
      sockets.forEach((socket) => socket.disconnect());
      await node.stop();
    }
  });

  test("takes nobody while it has too much memory, and may be told otherwise while it runs", { skip: process.platform !== "linux" }, async () => {
    const settings = (max_memory) => ({ admission: { max_memory }, reload: { interval: "100ms" } });
    const file = configuration(settings("100%"));
    const node = await startGateway({ file: file.file });
    const socket = await connect(node.url, TRANSPORTS.websocket);
    try {
      file.write(settings("1MiB"));
      await until(async () => (await metric(node, "full", { of: "memory" })) === 1, "a node without memory");
      await refuses(node, "memory", "Not enough memory", [5, 15]);
      assert.deepEqual(await readiness(node), { status: 200, reason: undefined });
      assert.ok((await ask(socket, "room:join", "r")).every((answer) => !answer?.error));
      file.write(settings("100%"));
      await until(async () => (await handshake(node)).status === 200, "a handshake");
    } finally {
      socket.disconnect();
      await node.stop();
    }
  });
});

describe("a node of a cluster that is full", () => {
  const stoppers = [];
  let nodes;
  before(async () => {
    const broker = await startBroker("redis");
    stoppers.push(broker.stop);
    nodes = await startNodes(2, { adapter: broker, env: { ROOMCAST__PUBLIC__MAX_CONNECTIONS: "2" } });
    stoppers.push(...nodes.map((node) => node.stop));
  });
  after(() => stopAll(stoppers));

  test("is not ready as long as another one is, and the last one stays ready", async () => {
    const knows = async (node, count) => (await get(node, "/v1/nodes")).body.nodes.filter(({ state }) => state === "ready").length === count;
    await until(() => knows(nodes[0], 2), "two ready nodes");
    const fill = (node) => Promise.all([0, 1].map(() => connect(node.url, TRANSPORTS.websocket)));
    const first = await fill(nodes[0]);
    await until(async () => (await readiness(nodes[0])).reason === "full", "a node that is not ready");
    await until(() => knows(nodes[1], 1), "the other node to know");
    const second = await fill(nodes[1]);
    await until(async () => (await metric(nodes[1], "full", { of: "connections" })) === 1, "a node that is full");
    assert.deepEqual(await readiness(nodes[1]), { status: 200, reason: undefined });
    first.concat(second).forEach((socket) => assert.ok(socket.connected));
    first.forEach((socket) => socket.disconnect());
    await until(async () => (await readiness(nodes[0])).status === 200, "a node that is ready again");
    second.forEach((socket) => socket.disconnect());
  });
});
