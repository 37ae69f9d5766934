// A backend in Node that speaks NATS, without any SDK: it calls the gateway as a service, and listens to what clients do.

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import path from "node:path";
import { after, afterEach, before, describe, test } from "node:test";
import { connect as connectNats, headers as newHeaders } from "nats";
import { startServer } from "../helpers/brokers.js";
import { TRANSPORTS, ask, client, connect, join, record } from "../helpers/clients.js";
import { stopAll } from "../helpers/cluster.js";
import { next, until } from "../helpers/deadline.js";
import { ingestUp, ingested } from "../helpers/ingest.js";
import { freePort, temporaryDirectory } from "../helpers/processes.js";
import { startNodes } from "../helpers/servers.js";

const stoppers = [];
let broker;
let nodes;
let nc;
let unique = 0;
const room = () => `nats:${unique++}`;

const config = {
  backend: { orders: { nats: true, timeout: "1s" } },
  namespace: [
    {
      name: "/",
      connected: "orders",
      disconnected: "orders",
      occupied: "orders",
      vacated: "orders",
      room: [
        { match: "asked:*", join: "webhook", emit: "members" },
        { match: "*", join: "open", emit: "members" },
      ],
      route: [
        { event: "told.*", mode: "notify", to: "orders" },
        { event: "*", mode: "call", to: "orders" },
      ],
    },
    { name: "/guarded", connect: "orders", route: [{ event: "*", mode: "call", to: "orders" }] },
  ],
};

before(async () => {
  const port = await freePort();
  const server = await startServer("nats", port, ["-js", "-sd", temporaryDirectory()]);
  broker = { kind: "nats", url: `nats://127.0.0.1:${port}`, ...server };
  stoppers.push(broker.stop);
  const file = path.join(temporaryDirectory(), "roomcast.json");
  writeFileSync(file, JSON.stringify(config));
  nodes = await startNodes(2, { adapter: broker, file });
  nodes.forEach((node) => stoppers.push(node.stop));
  await Promise.all(nodes.map((node) => ingestUp(node, "nats")));
  nc = await connectNats({ servers: broker.url, maxReconnectAttempts: -1, reconnectTimeWait: 100 });
  stoppers.push(() => nc.close());
});
after(() => stopAll(stoppers));

const subscriptions = [];
afterEach(() => subscriptions.splice(0).forEach((subscription) => subscription.unsubscribe()));

/** Listens like a backend: a member of a queue group. */
async function listen(subject, callback) {
  const heard = [];
  const handle = (error, message) => {
    assert.equal(error, null);
    const event = { subject: message.subject, headers: message.headers, reply: message.reply, body: message.json() };
    heard.push(event);
    const answer = callback?.(event);
    if (answer !== undefined) message.respond(typeof answer === "string" ? answer : JSON.stringify(answer));
  };
  const subscription = nc.subscribe(subject, { queue: "orders", callback: handle });
  subscriptions.push(subscription);
  await nc.flush();
  heard.subscription = subscription;
  return heard;
}

const openOn = (index = 0, namespace = "", options = {}) =>
  connect(nodes[index].url + namespace, { ...TRANSPORTS.websocket, ...options });

/** A call, as `{status, body}`; an error of the service has the status in a header, and a problem as its body. */
async function call(name, body, headers = {}) {
  const all = newHeaders();
  for (const [key, value] of Object.entries(headers)) all.set(key, value);
  const payload = typeof body === "string" ? body : JSON.stringify(body);
  const message = await nc.request(`roomcast.${name}`, payload, { timeout: 10_000, headers: all });
  const code = message.headers?.get("Nats-Service-Error-Code");
  return { code: code ? Number(code) : undefined, error: message.headers?.get("Nats-Service-Error"), body: message.json() };
}

describe("calls", () => {
  test("emit reaches clients of all nodes, with text and binary", async () => {
    const [sockets, name] = [[await openOn(0), await openOn(1)], room()];
    for (const socket of sockets) await join(socket, name);
    const received = sockets.map((socket) => record(socket));
    const { code, body } = await call("emit", { event: "e", args: [1, { $bin: "AQI=" }], to: { rooms: [name] } });
    assert.equal(code, undefined);
    assert.equal(typeof body.id, "string");
    for (const events of received) {
      await events.atLeast(1);
      assert.deepEqual(events, [["e", 1, Buffer.from([1, 2])]]);
    }
    sockets.forEach((socket) => socket.disconnect());
  });

  test("a plain publish is carried out too, in order", async () => {
    const [socket, name] = [await openOn(1), room()];
    await join(socket, name);
    const events = record(socket);
    // One subject, one queue group: a node gets all that one of them gets, so look at what each delivers.
    for (let i = 0; i < 500; i++) nc.publish("roomcast.emit", JSON.stringify({ event: "e", args: [i], to: { rooms: [name] } }));
    await events.atLeast(500);
    const numbers = events.map(([, number]) => number).sort((a, b) => a - b);
    assert.deepEqual(numbers, Array.from({ length: 500 }, (_, i) => i));
    socket.disconnect();
  });

  test("request collects the acks of clients on all nodes", async () => {
    const [sockets, name] = [[await openOn(0), await openOn(1)], room()];
    for (const [index, socket] of sockets.entries()) {
      await join(socket, name);
      socket.on("question", (number, ack) => ack(number + index));
    }
    const { body } = await call("request", { event: "question", args: [40], to: { rooms: [name] }, timeout: 5000 });
    assert.deepEqual(body.acks.map(({ args: [answer] }) => answer).sort(), [40, 41]);
    assert.equal(body.received, 2);
    assert.deepEqual(body.lost_nodes, []);
    sockets.forEach((socket) => socket.disconnect());
  });

  test("join, get.room, get.socket, leave and disconnect", async () => {
    const [socket, name] = [await openOn(0), room()];
    assert.equal((await call("join", { to: { sockets: [socket.id] }, rooms: [name] })).code, undefined);
    await until(async () => (await call("get.room", { room: name })).body.sockets === 1, "a member");
    const { body } = await call("get.socket", { socket: socket.id });
    assert.ok(JSON.stringify(body).includes(name), JSON.stringify(body));
    assert.equal((await call("leave", { to: { rooms: [name] }, rooms: [name] })).code, undefined);
    await until(async () => (await call("get.room", { room: name })).body.sockets === 0, "an empty room");
    const [gone, { id }] = [next(socket, "disconnect"), socket];
    await call("disconnect", { to: { sockets: [id] }, close: true });
    assert.equal((await gone)[0], "io server disconnect");
    assert.equal((await call("get.socket", { socket: id })).body.code, "not_found");
    const user = await call("get.user", { user: "u7" });
    assert.equal(user.code, undefined, JSON.stringify(user.body));
  });

  test("problems are those of the HTTP API, and known to clients of services", async () => {
    for (const [name, body, code, error] of [
      ["emit", "no json", 400, "invalid_request"],
      ["emit", { event: "e", args: [] }, 422, "invalid_request"],
      ["emit", { event: "e\r\nX: y", args: [], to: {} }, 422, "invalid_request"],
      ["emit", { event: "e", args: [], to: "all", namespace: "/none" }, 404, "not_found"],
      ["join", { to: "all", rooms: [] }, 422, "invalid_request"],
      ["get.room", "", 400, "invalid_request"],
    ]) {
      const answer = await call(name, body);
      assert.deepEqual([answer.code, answer.error], [code, error], JSON.stringify(answer));
      assert.equal(answer.body.status, code);
      assert.equal(answer.body.code, error);
    }
    const refused = await Promise.all(nodes.map((node) => ingested(node, "nats", "refused")));
    assert.ok(refused[0] + refused[1] >= 6);
  });

  test("the service can be discovered", async () => {
    const infos = [];
    for await (const info of await nc.services.client().info("roomcast")) infos.push(info);
    assert.equal(infos.length, nodes.length);
    const subjects = infos[0].endpoints.map(({ subject }) => subject).sort();
    const names = ["disconnect", "emit", "get.room", "get.socket", "get.user", "join", "leave", "request"];
    assert.deepEqual(subjects, names.map((name) => `roomcast.${name}`));
    for (const { queue_group: group } of infos[0].endpoints) assert.equal(group, "roomcast");
    let requests = 0;
    for await (const stats of await nc.services.client().stats("roomcast")) {
      requests += stats.endpoints.reduce((sum, endpoint) => sum + endpoint.num_requests, 0);
    }
    assert.ok(requests > 10);
  });
});

describe("events of clients", () => {
  test("a call is answered by the backend, which acts in the reply", async () => {
    const [socket, other, name] = [await openOn(0), await openOn(1), room()];
    await join(other, name);
    const events = record(other);
    const heard = await listen("roomcast.in.event.>", () => ({
      ack: [{ total: 3 }, { $bin: "AQ==" }],
      emit: [{ event: "cart.changed", args: [1], to: { rooms: [name] } }],
      join: [name],
    }));
    assert.deepEqual(await ask(socket, "cart.add", { sku: 9 }, Buffer.from([7])), [{ total: 3 }, Buffer.from([1])]);
    await events.atLeast(1);
    assert.deepEqual(events, [["cart.changed", 1]]);
    await until(async () => (await call("get.room", { room: name })).body.sockets === 2, "the socket in the room");
    const [{ subject, headers, body, reply }] = heard;
    assert.equal(subject, "roomcast.in.event./.cart%2Eadd");
    assert.ok(reply);
    assert.equal(headers.get("Roomcast-Socket"), socket.id);
    assert.equal(headers.get("Roomcast-Namespace"), "/");
    assert.ok(headers.get("Nats-Msg-Id"));
    assert.equal(body.type, "roomcast.event");
    assert.deepEqual([body.data.event, body.data.args, body.data.wants_ack], ["cart.add", [{ sku: 9 }, { $bin: "Bw==" }], true]);
    socket.disconnect();
    other.disconnect();
  });

  test("nobody listens: an ack error at once, not a timeout", async () => {
    const socket = await openOn(0);
    const began = Date.now();
    const [answer] = await ask(socket, "nobody");
    assert.deepEqual(answer, { error: { code: "no_backend", status: 503 } });
    assert.ok(Date.now() - began < 900, `${Date.now() - began} ms`);
    socket.disconnect();
  });

  test("a backend that does not answer, refuses, or answers nonsense", async () => {
    const socket = await openOn(1);
    await listen("roomcast.in.event.*.>", ({ body }) => {
      if (body.data.event === "silent") return undefined;
      if (body.data.event === "refused") return { error: { status: 403, code: "not_yours", detail: "no" } };
      return "nonsense";
    });
    assert.deepEqual(await ask(socket, "silent"), [{ error: { code: "backend_timeout", status: 504 } }]);
    assert.deepEqual(await ask(socket, "refused"), [{ error: { code: "not_yours", status: 403 } }]);
    assert.deepEqual(await ask(socket, "nonsense"), [{ error: { code: "backend_invalid_reply", status: 502 } }]);
    assert.ok(socket.connected);
    socket.disconnect();
  });

  test("names of events that mean something to NATS are one token", async () => {
    const socket = await openOn(0);
    const heard = await listen("roomcast.in.event.*.*", () => ({}));
    const names = ["a.b", "*", ">", "two words", "\u00e4", "100%", "line\nbreak"];
    for (const name of names) await ask(socket, name);
    const tokens = ["a%2Eb", "%2A", "%3E", "two%20words", "%C3%A4", "100%25", "line%0Abreak"];
    assert.deepEqual(heard.map(({ subject }) => subject), tokens.map((token) => `roomcast.in.event./.${token}`));
    assert.deepEqual(heard.map(({ body }) => body.data.event), names);
    await ask(socket, "x".repeat(5000));
    assert.ok(heard.at(-1).subject.length < 250);
    socket.disconnect();
  });

  test("what is only told has no reply subject and comes in order", async () => {
    const socket = await openOn(1);
    const heard = await listen("roomcast.in.event./.*");
    for (let i = 0; i < 300; i++) socket.emit("told.once", i);
    await until(() => heard.length === 300, "300 events");
    assert.deepEqual(heard.map(({ body }) => body.data.args[0]), Array.from({ length: 300 }, (_, i) => i));
    assert.ok(heard.every(({ reply }) => !reply));
    assert.equal(new Set(heard.map(({ headers }) => headers.get("Nats-Msg-Id"))).size, 300);
    socket.disconnect();
  });

  test("of several backends in a group one gets an event", async () => {
    const socket = await openOn(0);
    const groups = [await listen("roomcast.in.event.>", () => ({ ack: [1] })), await listen("roomcast.in.event.>", () => ({ ack: [2] }))];
    for (let i = 0; i < 50; i++) await ask(socket, "shared");
    assert.equal(groups[0].length + groups[1].length, 50);
    socket.disconnect();
  });
});

describe("connections", () => {
  test("a backend lets clients in, says who they are, and refuses others", async () => {
    const heard = await listen("roomcast.in.connect", ({ body }) =>
      body.data.auth?.token === "good"
        ? { user: "u.7 x", join: ["vip"], state: { n: 1 } }
        : { error: { status: 401, code: "unauthorized", detail: "no such token" } },
    );
    const socket = await openOn(0, "/guarded", { auth: { token: "good" } });
    assert.equal((await call("get.user", { user: "u.7 x", namespace: "/guarded" })).code, undefined);
    const vip = { room: "vip", namespace: "/guarded" };
    await until(async () => (await call("get.room", vip)).body.sockets === 1, "the socket in the room");
    assert.equal(heard[0].body.type, "roomcast.connect");
    const refused = client(`${nodes[0].url}/guarded`, { ...TRANSPORTS.websocket, auth: { token: "bad" } });
    const [error] = await next(refused, "connect_error");
    assert.equal(error.data.code, "unauthorized");
    const events = await listen("roomcast.in.event./guarded.*", () => ({}));
    await ask(socket, "hello");
    assert.equal(events[0].headers.get("Roomcast-User"), "u%2E7%20x");
    assert.deepEqual([events[0].body.data.user, events[0].body.data.state], ["u.7 x", { n: 1 }]);
    socket.disconnect();
    refused.disconnect();
  });

  test("a backend decides who joins a room", async () => {
    const socket = await openOn(0);
    await listen("roomcast.in.join", ({ body }) =>
      body.data.room === "asked:yes" ? {} : { error: { status: 403, code: "members_only" } },
    );
    assert.deepEqual(await ask(socket, "room:join", "asked:yes"), [{ ok: true }]);
    assert.deepEqual(await ask(socket, "room:join", "asked:no"), [{ error: { code: "members_only", status: 403 } }]);
    socket.disconnect();
  });

  test("sockets and rooms that come and go", async () => {
    const heard = await listen("roomcast.in.sys.>");
    const socket = await openOn(1);
    const { id } = socket;
    await until(() => heard.some(({ body }) => body.subject === `socket/${id}`), "connected");
    socket.disconnect();
    await until(() => heard.filter(({ body }) => body.subject === `socket/${id}`).length === 2, "disconnected");
    const ours = heard.filter(({ body }) => body.subject === `socket/${id}`);
    assert.deepEqual(ours.map(({ subject }) => subject), ["roomcast.in.sys.connected", "roomcast.in.sys.disconnected"]);
    assert.ok(Number(ours[0].body.sequence) < Number(ours[1].body.sequence));
    const [member, name] = [await openOn(0), room()];
    const ofRoom = () => heard.filter(({ body }) => body.subject === `room/${name}`).map(({ subject }) => subject);
    await join(member, name);
    await until(() => ofRoom().length === 1, "occupied");
    member.disconnect();
    await until(() => ofRoom().length === 2, "vacated");
    assert.deepEqual(ofRoom(), ["roomcast.in.sys.occupied", "roomcast.in.sys.vacated"]);
  });
});

test("a NATS that was away: clients stay, calls fail at once, and what was told arrives later", async () => {
  const socket = await openOn(0);
  // Core NATS forgets what nobody listens for at the moment; a stream keeps it.
  const streams = await nc.jetstreamManager();
  await streams.streams.add({ name: "told", subjects: ["roomcast.in.event.*.told%2Elater"] });
  await listen("roomcast.in.event./.cart%2Eadd", () => ({ ack: ["back"] }));
  await broker.kill();
  await Promise.all(nodes.map((node) => ingestUp(node, "nats", 0)));
  const [answer] = await ask(socket, "cart.add");
  assert.deepEqual(answer, { error: { code: "backend_unavailable", status: 503 } });
  for (let i = 0; i < 10; i++) socket.emit("told.later", i);
  await ask(socket, "fence");
  assert.ok(socket.connected);
  await broker.restart();
  await Promise.all(nodes.map((node) => ingestUp(node, "nats")));
  await until(async () => (await streams.streams.info("told")).state.messages === 10, "what was told meanwhile");
  await until(async () => (await ask(socket, "cart.add"))[0] === "back", "the backend's answer");
  socket.disconnect();
});
