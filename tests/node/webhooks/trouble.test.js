// Backends that fail, are away, change or are stormed.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { get, post } from "../helpers/api.js";
import { TRANSPORTS, ask, client, connect, connected } from "../helpers/clients.js";
import { next, until } from "../helpers/deadline.js";
import { SECRET, backendOf, configuration, startReceiver, tellsAll, twice } from "../helpers/receiver.js";
import { startGateway } from "../helpers/servers.js";

const websocket = TRANSPORTS.websocket;

/** A gateway with one backend, `orders`, that gets everything. */
async function withBackend(settings, check, { namespace = {}, receiver: options } = {}) {
  const receiver = await startReceiver(options);
  const all = (further = {}) => ({
    adapter: { directory: { vacate_after: "200ms" } },
    reload: { interval: "0s" },
    backend: { orders: backendOf(receiver, { ...settings, ...further }) },
    namespace: [
      {
        name: "/",
        ...tellsAll("orders"),
        route: [
          { event: "note", mode: "notify" },
          { event: "*", mode: "call" },
        ],
        ...namespace,
      },
    ],
  });
  const { file, write } = configuration(all());
  const gateway = await startGateway({ file });
  try {
    await check({ receiver, gateway, reload: (further) => write(all(further)) || gateway.child.kill("SIGHUP"), write });
  } finally {
    await gateway.stop();
    await receiver.stop();
  }
  assert.deepEqual(receiver.problems, []);
}

async function metric(gateway, name, labels = {}) {
  const response = await fetch(`${gateway.api}/metrics`);
  const lines = (await response.text()).split("\n").filter((line) => line.startsWith(`roomcast_${name}`));
  const line = lines.find((line) => Object.entries(labels).every(([key, value]) => line.includes(`${key}="${value}"`)));
  return line === undefined ? 0 : Number(line.split(" ").at(-1));
}

const letters = async (gateway, query = "") => (await get(gateway, `/v1/dead-letters${query}`)).body;

describe("a backend in trouble", () => {
  test("deliveries are tried again with the same ids, and then no more is lost than was", () =>
    withBackend({}, async ({ receiver, gateway }) => {
      let failures = 3;
      receiver.answer = (event) => (event.data.event === "note" && failures-- > 0 ? { status: 503 } : undefined);
      const socket = await connect(gateway.url, websocket);
      await receiver.atLeast(1, "connected");
      for (let number = 0; number < 5; number++) socket.emit("note", number);
      await receiver.atLeast(5, "event");
      assert.deepEqual(receiver.of("event").map(({ data }) => data.args[0]), [0, 1, 2, 3, 4]);
      const tries = receiver.requests.filter(({ events }) => events[0].data.event === "note");
      assert.equal(tries.length, 4);
      assert.equal(new Set(tries.map(({ headers }) => headers["webhook-id"])).size, 1);
      assert.equal(new Set(tries.map(({ body }) => body)).size, 1);
      assert.equal(await metric(gateway, "backend_retries_total", { backend: "orders" }), 3);
      // A call does not wait for them.
      failures = 1e9;
      socket.emit("note", 5);
      await until(() => receiver.requests.some(({ events }) => events[0].data.args?.[0] === 5), "attempt");
      assert.deepEqual(await ask(socket, "quick"), []);
      socket.disconnect();
    }));

  test("what cannot be delivered can be read and replayed", () =>
    withBackend({}, async ({ receiver, gateway, reload }) => {
      const socket = await connect(gateway.url, websocket);
      await receiver.atLeast(1, "connected");
      receiver.answer = (event) => (event.type === "roomcast.event" ? { status: 503, headers: { "retry-after": "400" } } : undefined);
      for (let number = 0; number < 3; number++) socket.emit("note", number);
      const dead = await until(async () => {
        const answer = await letters(gateway);
        return answer.total === 3 && answer;
      }, "dead letters");
      assert.deepEqual(dead.letters.map(({ reason, attempts, backend }) => [reason, attempts, backend]), Array(3).fill(["exhausted", 1, "orders"]));
      assert.deepEqual(dead.letters.map(({ event }) => event.data.args), [[0], [1], [2]]);
      assert.equal(await metric(gateway, "backend_dead_letters", { backend: "orders" }), 3);
      assert.equal((await letters(gateway, "?backend=other")).total, 0);
      assert.equal((await letters(gateway, "?limit=1&offset=2")).letters[0].event.data.args[0], 2);

      receiver.answer = () => undefined;
      const ids = [dead.letters[1].event.id];
      let answer = await post(gateway, "/v1/dead-letters/replay", { backend: "orders", ids });
      assert.deepEqual([answer.status, answer.body.replayed, answer.body.kept], [200, ids, 0]);
      await receiver.atLeast(1, "event");
      assert.equal((await letters(gateway)).total, 2);
      answer = await post(gateway, "/v1/dead-letters/replay", {});
      assert.equal(answer.body.replayed.length, 2);
      await receiver.atLeast(3, "event");
      assert.deepEqual(receiver.of("event").map(({ data }) => data.args[0]), [1, 0, 2]);
      assert.deepEqual(twice(receiver.of("event")), []);
      assert.equal((await letters(gateway)).total, 0);

      // 410 ends deliveries, until the configuration is loaded again.
      receiver.answer = (event) => (event.type === "roomcast.event" && !event.data.wants_ack ? { status: 410 } : undefined);
      socket.emit("note", 3);
      await until(async () => (await letters(gateway)).letters[0]?.reason === "gone", "letter of the gone");
      assert.deepEqual(await ask(socket, "note", 4), [{ error: { code: "backend_unavailable", status: 503 } }]);
      receiver.answer = () => undefined;
      assert.deepEqual(await ask(socket, "call"), []);
      assert.equal((await post(gateway, "/v1/dead-letters/replay", {})).body.kept, 1);
      reload({ batch_delay: "20ms" });
      await until(async () => (await post(gateway, "/v1/dead-letters/replay", {})).body.replayed.length === 1, "replay");
      await until(() => receiver.of("event").some(({ data }) => data.args[0] === 3), "replayed event");
      socket.disconnect();
    }));

  test("a backend that is away: acks at once, the breaker opens, and nothing that happened is forgotten", () =>
    withBackend({ breaker_failures: 3, breaker_pause: "1s" }, async ({ receiver, gateway }) => {
      const sockets = [await connect(gateway.url, websocket), await connect(gateway.url, websocket)];
      await receiver.atLeast(2, "connected");
      await receiver.stop();
      const error = { code: "backend_unavailable", status: 503 };
      for (let number = 0; number < 6; number++) assert.deepEqual(await ask(sockets[0], "call"), [{ error }]);
      assert.equal(await metric(gateway, "backend_breaker", { backend: "orders" }), 2);
      assert.ok((await metric(gateway, "backend_dropped_total", { reason: "breaker" })) > 0);
      const refused = client(gateway.url, websocket);
      assert.deepEqual((await next(refused, "connect_error"))[0].data, error);
      refused.disconnect();
      assert.ok(sockets.every((socket) => socket.connected));
      const ids = sockets.map((socket) => socket.id);
      assert.deepEqual(await ask(sockets[0], "note", 1), [{ ok: true }]);
      sockets.forEach((socket) => socket.disconnect());
      await receiver.start();
      await receiver.atLeast(2, "disconnected");
      assert.deepEqual(new Set(receiver.of("disconnected").map(({ data }) => data.socket)), new Set(ids));
      const own = receiver.events.filter(({ data }) => data.socket === ids[0]).map((event) => Number(event.sequence));
      assert.deepEqual(own, [...own].sort((a, b) => a - b));
      const back = await connect(gateway.url, websocket);
      assert.deepEqual(await ask(back, "call"), []);
      assert.equal(await metric(gateway, "backend_breaker", { backend: "orders" }), 0);
      back.disconnect();
    }));

  test("a storm of clients that ask the same is one question", () =>
    withBackend({ share_connects: "10s" }, async ({ receiver, gateway }) => {
      receiver.answer = (event) =>
        event.type === "roomcast.connect" ? (event.data.auth.token === "bad" ? { status: 403 } : { user: event.data.auth.token }) : undefined;
      const storm = (token, count) => Array.from({ length: count }, () => client(gateway.url, { ...websocket, auth: { token } }));
      const [good, other, bad] = [storm("a", 60), storm("b", 20), storm("bad", 20)];
      await Promise.all([...good, ...other].map(connected));
      await Promise.all(bad.map((socket) => socket.active && next(socket, "connect_error").catch(() => {})));
      assert.ok(bad.every((socket) => !socket.connected));
      const asked = receiver.requests.filter(({ events }) => events[0].type === "roomcast.connect").map(({ events }) => events[0].data.auth.token);
      assert.deepEqual(asked.sort(), ["a", "b", "bad"]);
      // Each is a socket of its own all the same.
      await receiver.atLeast(80, "connected");
      assert.equal(new Set(receiver.of("connected").map(({ data }) => data.socket)).size, 80);
      assert.ok(receiver.of("connected").every(({ data }) => ["a", "b"].includes(data.user)));
      [...good, ...other, ...bad].forEach((socket) => socket.disconnect());
    }));

  test("without sharing each client is asked for", () =>
    withBackend({}, async ({ receiver, gateway }) => {
      const sockets = await Promise.all(Array.from({ length: 5 }, () => connect(gateway.url, websocket)));
      assert.equal(receiver.of("connect").length, 5);
      sockets.forEach((socket) => socket.disconnect());
    }));

  test("a secret can be replaced without a gap", async () => {
    const old = `whsec_${Buffer.from("an older secret of at least 24 bytes").toString("base64")}`;
    await withBackend({ secrets: [SECRET, old] }, async ({ receiver, gateway, reload }) => {
      const second = await startReceiver({ secret: old });
      const socket = await connect(gateway.url, websocket);
      assert.deepEqual(await ask(socket, "one"), []);
      // Another receiver, which knows the older secret only, takes over while clients are connected.
      reload({ webhook: second.url });
      await until(async () => (await ask(socket, "two")) && second.of("event").length > 0, "event at the second receiver");
      assert.ok(socket.connected);
      assert.deepEqual(second.problems, []);
      socket.disconnect();
      await second.atLeast(1, "disconnected");
      await second.stop();
    });
  });

  test("a node that ends tells of its sockets first", () =>
    withBackend({ batch_delay: "1h" }, async ({ receiver, gateway }) => {
      const sockets = await Promise.all(Array.from({ length: 10 }, () => connect(gateway.url, websocket)));
      const ids = sockets.map((socket) => socket.id);
      await gateway.stop();
      const gone = receiver.of("disconnected");
      assert.deepEqual(new Set(gone.map(({ data }) => data.socket)), new Set(ids));
      assert.ok(gone.every(({ data }) => data.reason === "server shutting down"));
      assert.equal(receiver.of("connected").length, 10);
      sockets.forEach((socket) => socket.disconnect());
    }));
});
