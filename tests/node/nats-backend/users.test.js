// The users that docs/getting-started/nats.md gives to nodes and backends can do what they have to, and no more.

import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { after, before, test } from "node:test";
import { connect as connectNats } from "nats";
import { startServer } from "../helpers/brokers.js";
import { TRANSPORTS, ask, connect, join, record } from "../helpers/clients.js";
import { stopAll } from "../helpers/cluster.js";
import { until } from "../helpers/deadline.js";
import { ingestUp } from "../helpers/ingest.js";
import { freePort, temporaryDirectory } from "../helpers/processes.js";
import { startNodes } from "../helpers/servers.js";

const page = readFileSync(new URL("../../../docs/getting-started/nats.md", import.meta.url), "utf8");
const [, authorization] = /```\n(authorization \{[^]*?\n\})\n```/.exec(page);

const stoppers = [];
let port;
let nodes;
let orders;

before(async () => {
  port = await freePort();
  const directory = temporaryDirectory();
  const server = path.join(directory, "nats.conf");
  writeFileSync(server, authorization.replace("$GATEWAY", "g").replace("$ORDERS", "o"));
  const broker = await startServer("nats", port, ["-c", server]);
  stoppers.push(broker.stop);
  const file = path.join(directory, "roomcast.json");
  const namespace = [{ name: "/", route: [{ event: "*", mode: "call", to: "orders" }] }];
  writeFileSync(file, JSON.stringify({ backend: { orders: { nats: true } }, namespace }));
  nodes = await startNodes(2, { adapter: { kind: "nats", url: `nats://roomcast:g@127.0.0.1:${port}` }, file });
  nodes.forEach((node) => stoppers.push(node.stop));
  await Promise.all(nodes.map((node) => ingestUp(node, "nats")));
  orders = await connectNats({ port, user: "orders", pass: "o" });
  stoppers.push(() => orders.close());
});
after(() => stopAll(stoppers));

test("a backend emits, and answers events of clients", async () => {
  orders.subscribe("roomcast.in.event.>", { queue: "orders", callback: (_, message) => message.respond('{"ack":["yes"]}') });
  await orders.flush();
  const sockets = await Promise.all(nodes.map((node) => connect(node.url, TRANSPORTS.websocket)));
  const received = sockets.map((socket) => record(socket));
  for (const socket of sockets) await join(socket, "r");
  assert.deepEqual(await ask(sockets[0], "question"), ["yes"]);
  await orders.request("roomcast.emit", '{"event":"e","args":[],"to":{"rooms":["r"]}}', { timeout: 10_000 });
  for (const events of received) await events.atLeast(1);
  sockets.forEach((socket) => socket.disconnect());
});

test("it can do nothing else", async () => {
  const denied = [];
  (async () => {
    for await (const status of orders.status()) if (status.type === "error") denied.push(status.permissionContext?.subject);
  })();
  for (const subject of ["roomcast.disconnect", "roomcast.join", "roomcast.%-.all"]) orders.publish(subject, "{}");
  const listening = orders.subscribe("roomcast.emit");
  (async () => {
    for await (const _ of listening);
  })().catch(() => {});
  await until(() => denied.length >= 4, "four refusals");
  assert.deepEqual(denied.sort(), ["roomcast.%-.all", "roomcast.disconnect", "roomcast.emit", "roomcast.join"]);
});
