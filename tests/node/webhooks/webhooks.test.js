// Events of clients to a backend over webhooks, and what the backend does in its replies: one node, stock clients.

import assert from "node:assert/strict";
import { after, before, beforeEach, describe, test } from "node:test";
import { TRANSPORTS, ask, client, connect, connected, record } from "../helpers/clients.js";
import { next, until, within } from "../helpers/deadline.js";
import { backendOf, configuration, problem, startReceiver, tellsAll } from "../helpers/receiver.js";
import { startGateway } from "../helpers/servers.js";

const websocket = TRANSPORTS.websocket;

describe("webhooks", () => {
  let receiver, gateway, sockets;
  before(async () => {
    receiver = await startReceiver();
    const settings = {
      adapter: { directory: { vacate_after: "200ms" } },
      backend: { orders: backendOf(receiver, { headers: ["x-tenant"], timeout: "2s" }) },
      namespace: [
        {
          name: "/",
          ...tellsAll("orders"),
          route: [
            { event: "cart.note", mode: "notify" },
            { event: "cart.*", mode: "call", to: "orders" },
            { event: "draw", mode: "room", to: "board:*" },
            { event: "secret", mode: "drop" },
          ],
          room: [
            { match: "order:{id}", join: "webhook", emit: "members" },
            { match: "board:{id}", emit: "members" },
            { match: "quiet:{id}", emit: "never" },
          ],
        },
        { name: "/plain" },
      ],
    };
    gateway = await startGateway({ file: configuration(settings).file });
  });
  after(async () => {
    await gateway?.stop();
    await receiver?.stop();
    assert.deepEqual(receiver?.problems, []);
  });
  beforeEach((t) => {
    receiver.answer = () => undefined;
    sockets = [];
    t.after?.(() => sockets.forEach((socket) => socket.disconnect()));
  });

  const open = async (options = {}) => {
    const socket = await connect(gateway.url, { ...websocket, ...options });
    sockets.push(socket);
    return socket;
  };
  /** Answers the blocking events of a type. */
  const answers = (type, answer) => {
    receiver.answer = (event, request) => (event.type === `roomcast.${type}` ? answer(event.data, event, request) : undefined);
  };
  const refusedConnect = async (options = {}) => {
    const socket = client(gateway.url, { ...websocket, ...options });
    const [error] = await next(socket, "connect_error");
    socket.disconnect();
    return error;
  };

  test("connect: the backend is told what it may know, and its answer holds", async () => {
    answers("connect", () => ({ user: "u7", join: ["board:1", "private"], state: { cart: 1 }, expires_at: 4102444800 }));
    const socket = await open({ auth: { token: "t" }, query: { v: "2" }, extraHeaders: { "x-tenant": "acme", "x-other": "no" } });
    const [event] = receiver.of("connect", socket.id);
    assert.equal(event.source, "/ns/%2F");
    assert.equal(event.subject, `socket/${socket.id}`);
    const { peer, ...data } = event.data;
    assert.match(peer, /^127\.0\.0\.1:\d+$/);
    assert.deepEqual(data, {
      namespace: "/",
      socket: socket.id,
      auth: { token: "t" },
      headers: { "x-tenant": "acme" },
      query: { v: "2" },
    });
    // It is in the rooms from the start, that of its user among them.
    const heard = record(socket);
    answers("event", () => ({
      emit: [
        { event: "to-user", args: [1], to: { users: ["u7"] } },
        { event: "to-room", args: [], to: { rooms: ["private"] } },
      ],
    }));
    assert.deepEqual(await ask(socket, "cart.get"), []);
    await heard.atLeast(2);
    assert.deepEqual(heard, [["to-user", 1], ["to-room"]]);
    const [call] = receiver.of("event", socket.id);
    assert.equal(call.data.user, "u7");
    assert.deepEqual(call.data.state, { cart: 1 });
    assert.deepEqual([...call.data.rooms].sort(), ["board:1", "private", "user:u7"]);
  });

  test("connect: a refusal becomes connect_error", async () => {
    answers("connect", () => problem(403, "banned", "You are banned"));
    let error = await refusedConnect();
    assert.equal(error.message, "You are banned");
    assert.equal(error.data.code, "banned");
    assert.equal(error.data.status, 403);
    answers("connect", () => ({ status: 401 }));
    error = await refusedConnect();
    assert.deepEqual([error.message, error.data], ["unauthorized", { code: "unauthorized", status: 401 }]);
    answers("connect", () => ({ status: 500 }));
    error = await refusedConnect();
    assert.deepEqual(error.data, { code: "backend_failed", status: 502 });
    answers("connect", () => ({ body: "no JSON" }));
    assert.deepEqual((await refusedConnect()).data, { code: "backend_invalid_reply", status: 502 });
    // A namespace without a backend is another door.
    const plain = await connect(`${gateway.url}/plain`, websocket);
    plain.disconnect();
  });

  test("call: the reply is the ack, and binary goes both ways", async () => {
    const socket = await open();
    answers("event", ({ args }) => ({ ack: [{ $bin: Buffer.from("pong").toString("base64") }, args.length] }));
    const [binary, count] = await ask(socket, "cart.add", { sku: 9, image: Buffer.from("ping") }, "x");
    assert.deepEqual([Buffer.from(binary).toString(), count], ["pong", 2]);
    const event = receiver.of("event", socket.id).at(-1);
    assert.deepEqual(event.data.args, [{ sku: 9, image: { $bin: Buffer.from("ping").toString("base64") } }, "x"]);
    assert.deepEqual([event.data.event, event.data.wants_ack, event.data.namespace], ["cart.add", true, "/"]);
    socket.emit("cart.add", 1);
    await until(() => receiver.of("event", socket.id).some((event) => event.data.wants_ack === false), "event without ack");
  });

  test("call: every key of a reply acts", async () => {
    const [socket, other] = [await open(), await open()];
    answers("event", () => ({ join: ["a", "b"], state: { n: 1 } }));
    await ask(socket, "cart.1");
    answers("event", () => ({ leave: ["a"], state: { n: 2 }, ack: ["left"] }));
    assert.deepEqual(await ask(socket, "cart.2"), ["left"]);
    answers("event", () => ({ state: null }));
    await ask(socket, "cart.3");
    answers("event", () => ({}));
    await ask(socket, "cart.4");
    const seen = receiver.of("event", socket.id).map(({ data }) => [data.event, [...data.rooms].sort(), data.state]);
    assert.deepEqual(seen, [
      ["cart.1", [], undefined],
      ["cart.2", ["a", "b"], { n: 1 }],
      ["cart.3", ["b"], { n: 2 }],
      ["cart.4", ["b"], undefined],
    ]);
    // What is emitted comes before the ack; an emit that cannot be done stops nothing.
    const [heard, elsewhere] = [record(socket), record(other)];
    answers("event", () => ({
      ack: ["done"],
      emit: [
        { event: "all", args: [1], to: "all", except: { sockets: [other.id] } },
        { event: "nobody", args: [1], to: {} },
        { event: "foreign", args: [1], to: "all", namespace: "/plain" },
        { event: "one", to: { sockets: [other.id] } },
      ],
    }));
    const order = [];
    socket.onAny((event) => order.push(event));
    await within(new Promise((resolve) => socket.emit("cart.5", () => resolve(order.push("ack")))), "ack");
    await elsewhere.atLeast(1);
    assert.deepEqual(order, ["all", "ack"]);
    assert.deepEqual([heard[0], elsewhere[0]], [["all", 1], ["one"]]);
    // The socket ends after its ack.
    const gone = next(socket, "disconnect");
    answers("event", () => ({ ack: ["bye"], disconnect: true }));
    assert.deepEqual(await ask(socket, "cart.6"), ["bye"]);
    assert.equal((await gone)[0], "io server disconnect");
    const closed = next(other, "disconnect");
    answers("event", () => ({ disconnect: { close: true } }));
    other.emit("cart.7");
    await closed;
  });

  test("call: every failure is an ack, and the socket stays", async () => {
    const socket = await open();
    const cases = [
      [() => problem(409, "sold_out", "gone"), { code: "sold_out", status: 409 }],
      [() => ({ status: 404 }), { code: "not_found", status: 404 }],
      [() => ({ status: 500 }), { code: "backend_failed", status: 502 }],
      [() => ({ status: 307, headers: { location: receiver.url } }), { code: "backend_failed", status: 502 }],
      [() => ({ body: { akc: [] } }), { code: "backend_invalid_reply", status: 502 }],
      [() => new Promise(() => {}), { code: "backend_timeout", status: 504 }],
    ];
    for (const [answer, error] of cases) {
      answers("event", answer);
      assert.deepEqual(await ask(socket, "cart.fail"), [{ error }]);
    }
    assert.deepEqual(await ask(socket, "unknown"), [{ error: { code: "not_found", status: 404 } }]);
    assert.deepEqual(await ask(socket, "secret"), [{ error: { code: "forbidden", status: 403 } }]);
    assert.ok(socket.connected);
  });

  test("notify: events come in batches and in order, and calls keep their place among them", async () => {
    const socket = await open();
    const start = receiver.requests.length;
    for (let number = 0; number < 150; number++) socket.emit("cart.note", number);
    assert.deepEqual(await ask(socket, "cart.note", 150), [{ ok: true }]);
    answers("event", ({ event }) => (event === "cart.call" ? { ack: ["called"] } : undefined));
    assert.deepEqual(await ask(socket, "cart.call", 151), ["called"]);
    socket.emit("cart.note", 152);
    await until(() => receiver.of("event", socket.id).length >= 153, "153 events");
    const events = receiver.of("event", socket.id);
    assert.deepEqual(events.map(({ data }) => data.args[0]), Array.from({ length: 153 }, (_, number) => number));
    const sequences = events.map((event) => Number(event.sequence));
    assert.ok(sequences.every((number, index) => index === 0 || number === sequences[index - 1] + 1), "no gap in the sequence");
    const batches = receiver.requests.slice(start).filter((request) => request.batch);
    assert.ok(batches.length < 12, `${batches.length} batches`);
    assert.ok(batches.every((request) => request.events.length <= 100));
  });

  test("join: the backend decides about rooms whose rule is webhook", async () => {
    const socket = await open();
    answers("join", ({ room }) => (room === "order:1" ? { state: { orders: 1 } } : problem(403, "not_yours", "no")));
    assert.deepEqual(await ask(socket, "room:join", "order:1"), [{ ok: true }]);
    assert.deepEqual(await ask(socket, "room:join", "order:2"), [{ error: { code: "not_yours", status: 403 } }]);
    answers("join", () => ({ ack: ["welcome"], join: ["lobby"] }));
    assert.deepEqual(await ask(socket, "room:join", "order:3"), ["welcome"]);
    answers("event", () => ({}));
    await ask(socket, "cart.get");
    const { data } = receiver.of("event", socket.id).at(-1);
    assert.deepEqual([...data.rooms].sort(), ["lobby", "order:1", "order:3"]);
    assert.deepEqual(data.state, { orders: 1 });
  });

  test("room: events go to the rooms of the client that the route and the rules allow", async () => {
    const [a, b, c] = [await open(), await open(), await open()];
    answers("event", () => ({ join: ["board:7", "quiet:7", "other"] }));
    for (const socket of [a, b]) await ask(socket, "cart.join");
    const [self, member, stranger] = [record(a), record(b), record(c)];
    assert.deepEqual(await ask(a, "draw", [1, 2], Buffer.from("x")), [{ ok: true }]);
    await member.atLeast(1);
    assert.deepEqual(member, [["draw", [1, 2], Buffer.from("x")]]);
    assert.deepEqual(await ask(c, "draw", 1), [{ error: { code: "forbidden", status: 403 } }]);
    assert.deepEqual([self.length, stranger.length], [0, 0]);
  });

  test("connected and disconnected: once for each socket, in order, with the reason", async () => {
    answers("connect", () => ({ user: "u1", join: ["r1"] }));
    const [socket, polling] = [await open(), await open(TRANSPORTS.polling)];
    const ids = [socket.id, polling.id];
    socket.disconnect();
    polling.io.engine.close();
    for (const id of ids) await receiver.atLeast(1, "disconnected", id);
    for (const id of ids) {
      const events = receiver.events.filter((event) => event.data.socket === id);
      assert.deepEqual(events.map((event) => event.type), ["roomcast.connect", "roomcast.connected", "roomcast.disconnected"]);
      assert.deepEqual(events.map((event) => event.sequence), ["1", "2", "3"]);
      assert.equal(new Set(events.map((event) => event.id)).size, 3);
      assert.deepEqual(events[2].data.user, "u1");
      assert.deepEqual([...events[2].data.rooms].sort(), ["r1", "user:u1"]);
    }
    const reasons = ids.map((id) => receiver.of("disconnected", id)[0].data.reason);
    assert.deepEqual(reasons, ["client namespace disconnect", "transport close"]);
  });

  test("occupied and vacated: the first and the last member", async () => {
    const about = (type) => receiver.of(`room.${type}`).filter((event) => event.data.room === "board:42");
    const [a, b] = [await open(), await open()];
    await ask(a, "room:join", "board:42");
    await until(() => about("occupied").length === 1, "occupied");
    await ask(b, "room:join", "board:42");
    // The room was left for less than the wait: nobody is told.
    await ask(a, "room:leave", "board:42");
    a.disconnect();
    b.disconnect();
    await until(() => about("vacated").length === 1, "vacated");
    const [occupied, vacated] = [about("occupied"), about("vacated")];
    assert.equal(occupied.length, 1);
    assert.deepEqual(vacated[0].data, { namespace: "/", room: "board:42" });
    assert.equal(vacated[0].subject, "room/board:42");
    const again = await open();
    await ask(again, "room:join", "board:42");
    await until(() => about("occupied").length === 2, "occupied again");
    assert.notEqual(about("occupied")[0].id, about("occupied")[1].id);
  });

  test("a client that was let in by the gateway alone is unknown to the backend", async () => {
    const before = receiver.requests.length;
    const socket = await connect(`${gateway.url}/plain`, websocket);
    assert.deepEqual(await ask(socket, "cart.add"), [{ error: { code: "not_found", status: 404 } }]);
    socket.disconnect();
    assert.ok(receiver.requests.slice(before).every((request) => request.events.every((event) => event.data.namespace === "/")));
  });

  test("a trace of the handshake goes on", async () => {
    const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const socket = await open({ extraHeaders: { traceparent } });
    const request = receiver.requests.find(({ events }) => events[0].type === "roomcast.connect" && events[0].data.socket === socket.id);
    assert.equal(request.headers.traceparent, traceparent);
    assert.equal(request.events[0].traceparent, traceparent);
  });
});
