// A node that is told to end by a signal: what stock clients see of it, and what is finished first.

import assert from "node:assert/strict";
import { once } from "node:events";
import http from "node:http";
import net from "node:net";
import { after, before, describe, test } from "node:test";
import { emit, get, metric, post, roomSize } from "../helpers/api.js";
import { startBroker, startHaproxy } from "../helpers/brokers.js";
import { TRANSPORTS, ask, client, connect, connected, join, record, upgraded } from "../helpers/clients.js";
import { stopAll } from "../helpers/cluster.js";
import { next, pause, until, within } from "../helpers/deadline.js";
import { underWay } from "../helpers/forwards.js";
import { Child } from "../helpers/processes.js";
import { Poll, SOCKET_IO, Ws, wsUrl } from "../helpers/raw.js";
import { backendOf, configuration, startReceiver, tellsAll } from "../helpers/receiver.js";
import { startGateway, startNodes } from "../helpers/servers.js";

/** As stock clients come, only sooner. */
const stock = { reconnection: true, reconnectionDelay: 100, reconnectionDelayMax: 500 };
const drain = (settings) => Object.fromEntries(Object.entries(settings).map(([key, value]) => [`ROOMCAST__DRAIN__${key.toUpperCase()}`, value]));
const readiness = async (node) => (await get(node, "/readyz")).body;
const handshake = (node) => fetch(`${node.url}/socket.io/?EIO=4&transport=polling`);

async function endsWith(node, code) {
  const end = await within(node.child.ended, "end of the node");
  assert.deepEqual(end, { code, signal: null }, node.child.output);
}

/** A proxy that asks for each request which node gets it. */
async function startBetween(nodeOf) {
  const server = http.createServer((request, response) => {
    const { url, method, headers } = request;
    const onward = http.request({ host: "127.0.0.1", port: nodeOf(url).port, path: url, method, headers, agent: false }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    onward.on("error", () => response.destroy());
    response.on("close", () => onward.destroy());
    request.pipe(onward);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return { url: `http://127.0.0.1:${server.address().port}`, stop: () => void server.close().closeAllConnections() };
}

describe("SIGTERM in a cluster", () => {
  const stoppers = [];
  let broker, nodes;
  before(async () => {
    broker = await startBroker("redis");
    stoppers.push(broker.stop);
    nodes = await startNodes(2, { adapter: broker, env: drain({ delay: "1500ms", period: "1s", grace: "1s" }) });
    stoppers.push(() => Promise.all(nodes.map((node) => node.stop())));
  });
  after(() => stopAll(stoppers));

  test("every client sees a transport close and comes back elsewhere by itself, in all its namespaces", async () => {
    const toml = '[[namespace]]\nname = "/"\n[[namespace]]\nname = "/more"\n';
    const env = drain({ delay: "1500ms", period: "1s" });
    const [leaves, stays] = await Promise.all([0, 1].map(() => startGateway({ adapter: broker, toml, env })));
    const between = await startHaproxy([leaves, stays]);
    const clients = [];
    try {
      // Sticky, so that half of each kind is on either node.
      for (const [name, transport] of Object.entries(TRANSPORTS)) {
        for (let i = 0; i < 4; i++) {
          const socket = client(between.url, { ...stock, ...transport, withCredentials: true });
          await connected(socket);
          if (name === "upgrade") await upgraded(socket);
          const more = socket.io.socket("/more");
          await connected(more);
          clients.push({ name, socket, more });
        }
      }
      const { body } = await get(leaves, "/v1/nodes");
      const onLeaver = clients.filter(({ socket }) => socket.id.startsWith(body.node));
      assert.deepEqual([...new Set(onLeaver.map(({ name }) => name))].sort(), ["polling", "upgrade", "websocket"]);
      const reasons = onLeaver.flatMap(({ name, socket, more }) =>
        [socket, more].map(async (each) => {
          const [reason, details] = await next(each, "disconnect");
          return { name, reason, code: details?.context?.code };
        }),
      );
      const others = clients.filter((each) => !onLeaver.includes(each));
      const disturbed = [];
      others.forEach(({ socket }) => socket.on("disconnect", (reason) => disturbed.push(reason)));
      leaves.child.kill("SIGTERM");
      for (const { name, reason, code } of await Promise.all(reasons)) {
        // Once the balancer knows, it sends polls elsewhere: those clients learn it by an error.
        const expected = name === "polling" ? ["transport close", "transport error"] : ["transport close"];
        assert.ok(expected.includes(reason), `${name}: ${reason}`);
        if (name !== "polling") assert.equal(code, 1001, name);
      }
      await endsWith(leaves, 0);
      for (const { socket, more } of onLeaver) {
        await until(() => socket.connected && more.connected, "a client that came back");
        assert.ok(!socket.id.startsWith(body.node));
      }
      assert.deepEqual(disturbed, []);
    } finally {
      // Each of them: a client goes on trying for as long as one of its namespaces is wanted.
      clients.forEach(({ socket, more }) => [socket, more].forEach((each) => each.disconnect()));
      await stopAll([leaves.stop, stays.stop, between.stop]);
    }
  });

  test("a polling client whose requests come through a node that drains keeps its session, and what is emitted", async () => {
    const env = { ...drain({ delay: "500ms", period: "500ms", grace: "2s" }), ROOMCAST__ADAPTER__PREFIX: "given-back" };
    const [owner, entry] = await startNodes(2, { adapter: broker, env });
    // Sends new sessions to the one and their requests to the other, while that one is ready.
    let isReady = true;
    const between = await startBetween((url) => (isReady && url.includes("sid=") ? entry : owner));
    const socket = await connect(between.url, TRANSPORTS.polling);
    try {
      const ends = [];
      socket.on("disconnect", (reason) => ends.push(reason));
      const { id, io } = socket;
      const sid = io.engine.id;
      const seen = record(socket, "news");
      await emit(owner, "all", "news", 1);
      await seen.atLeast(1);
      await underWay(entry, 1);
      entry.child.kill("SIGTERM");
      await until(async () => (await readiness(entry)).reason === "draining", "a node that drains");
      isReady = false;
      await endsWith(entry, 0);
      assert.doesNotMatch(entry.child.output, /cut off/);
      await emit(owner, "all", "news", 2);
      await seen.atLeast(2);
      assert.deepEqual([...seen], [["news", 1], ["news", 2]]);
      assert.deepEqual({ ends, id: socket.id, sid: io.engine.id }, { ends: [], id, sid });
    } finally {
      socket.disconnect();
      await stopAll([owner.stop, entry.stop, between.stop]);
    }
  });

  test("when all nodes end at the same time, backends are told that the rooms are vacated", async () => {
    const receiver = await startReceiver();
    const settings = {
      adapter: { kind: "redis", url: broker.url, prefix: "all-end", heartbeat: "250ms", directory: { vacate_after: "1h" } },
      backend: { shop: backendOf(receiver) },
      namespace: [{ name: "/", ...tellsAll("shop"), connect: undefined }],
    };
    const nodes = await startNodes(2, { adapter: broker, file: configuration(settings).file, env: drain({ delay: "1s", period: "500ms" }) });
    const sockets = [];
    const told = (type) => [...new Set(receiver.of(`room.${type}`).map(({ id }) => id))];
    try {
      for (const [index, node] of nodes.entries()) {
        const socket = await connect(node.url, TRANSPORTS.websocket);
        sockets.push(socket);
        for (const room of ["both", `only-${index}`]) await join(socket, room);
      }
      await until(() => told("occupied").length === 3, "occupied");
      await until(async () => (await roomSize(nodes[0], "both")) === 2, "two members");
      nodes.forEach((node) => node.child.kill("SIGTERM"));
      for (const node of nodes) await endsWith(node, 0);
      const rooms = new Set(receiver.of("room.vacated").map(({ data }) => data.room));
      assert.deepEqual([...rooms].sort(), ["both", "only-0", "only-1"]);
      assert.equal(told("vacated").length, 3);
      assert.deepEqual(receiver.problems, []);
    } finally {
      sockets.forEach((socket) => socket.disconnect());
      await stopAll([receiver.stop, ...nodes.map((node) => node.stop)]);
    }
  });

  test("a node without clients stays for those who do not know yet, and ends soon after a second signal", async () => {
    const node = await startGateway({ adapter: broker, env: drain({ delay: "1h", grace: "1h" }) });
    try {
      await until(async () => (await get(node, "/v1/nodes")).body.nodes.length > 1, "a cluster");
      node.child.kill("SIGTERM");
      await until(async () => (await readiness(node)).reason === "draining", "a node that drains");
      assert.equal((await handshake(node)).status, 200);
      await emit(node, "all", "still heard", 1);
      node.child.kill("SIGTERM");
      await endsWith(node, 1);
    } finally {
      await node.stop();
    }
  });

  test("not ready first, then no new clients, while those who are there go on", async () => {
    const socket = await connect(nodes[0].url, TRANSPORTS.websocket);
    const poller = await connect(nodes[0].url, TRANSPORTS.polling);
    try {
      await Promise.all([join(socket, "going on"), join(poller, "going on")]);
      const ready = await readiness(nodes[0]);
      assert.equal(ready.ready, true);
      nodes[0].child.kill("SIGTERM");
      const unready = await until(async () => {
        const answer = await readiness(nodes[0]);
        return answer.ready ? undefined : answer;
      }, "a node that is not ready");
      assert.deepEqual({ ...unready, connections: unready.connections >= 2 }, { ready: false, reason: "draining", node: ready.node, connections: true });
      assert.equal(await metric(nodes[0], "draining"), 1);
      // Balancers have not heard of it yet: nobody is turned away.
      assert.equal((await handshake(nodes[0])).status, 200);
      const states = async () => Object.fromEntries((await get(nodes[1], "/v1/nodes")).body.nodes.map(({ id, state }) => [id, state]));
      await until(async () => (await states())[ready.node] === "draining", "the other node to know");
      const refused = await until(async () => {
        const response = await handshake(nodes[0]);
        return response.ok ? undefined : response;
      }, "a refusal");
      assert.equal(refused.status, 503);
      assert.match(refused.headers.get("retry-after"), /^[123]$/);
      // On a connection that is kept the client would come here again.
      assert.equal(refused.headers.get("connection"), "close");
      assert.ok((await metric(nodes[0], "handshakes_refused_total", { code: "draining" })) >= 1);
      await endsWith(nodes[0], 0);
      assert.ok(!socket.connected && !poller.connected);
    } finally {
      socket.disconnect();
      poller.disconnect();
    }
  });
});

describe("a single node", () => {
  test("finishes acks that are under way, tells its backends everything, and exits with 0", async () => {
    let answer;
    const answered = new Promise((resolve) => (answer = resolve));
    const receiver = await startReceiver({ answer: async (event) => (event.type === "roomcast.event" ? answered : undefined) });
    const settings = {
      backend: { shop: backendOf(receiver, { timeout: "30s" }) },
      namespace: [{ name: "/", ...tellsAll("shop"), route: [{ event: "order", mode: "call", to: "shop" }] }],
    };
    const node = await startGateway({ file: configuration(settings).file, env: drain({ grace: "30s" }) });
    const sockets = [];
    try {
      for (const transport of Object.values(TRANSPORTS)) sockets.push(await connect(node.url, transport));
      await join(sockets[0], "theirs");
      await until(() => receiver.of("room.occupied").some(({ data }) => data.room === "theirs"), "occupied");
      const idle = await connect(node.url, TRANSPORTS.websocket);
      const acks = sockets.map((socket) => ask(socket, "order", 42));
      const ends = sockets.map((socket) => next(socket, "disconnect"));
      const received = sockets.map((socket) => record(socket, "last words"));
      await until(() => receiver.requests.filter(({ events }) => events[0].type === "roomcast.event").length === 3, "the calls");
      const idleEnd = next(idle, "disconnect");
      node.child.kill("SIGTERM");
      // It is told at the same time as the others: they could be gone, too.
      assert.equal((await idleEnd)[0], "transport close");
      assert.ok(sockets.every((socket) => socket.connected));
      await emit(node, "all", "last words", 1);
      for (const events of received) await events.atLeast(1);
      answer({ ack: [{ accepted: true }] });
      for (const ack of acks) assert.deepEqual(await ack, [{ accepted: true }]);
      for (const [reason] of await Promise.all(ends)) assert.equal(reason, "transport close");
      await endsWith(node, 0);
      assert.equal(receiver.of("disconnected").length, 4);
      for (const { data } of receiver.of("disconnected")) assert.equal(data.reason, "server shutting down");
      // Nobody waits any more whether somebody comes back to the room.
      assert.equal(receiver.of("room.vacated").filter(({ data }) => data.room === "theirs").length, 1);
      assert.deepEqual(receiver.problems, []);
    } finally {
      sockets.forEach((socket) => socket.disconnect());
      await node.stop();
      await receiver.stop();
    }
  });

  test("a client that always has an ack under way leaves when those are written that it waited for", async () => {
    // Slow, so that there are several at any time.
    const answer = (event) => (event.type === "roomcast.event" ? pause(200).then(() => ({ ack: [true] })) : undefined);
    const receiver = await startReceiver({ answer });
    const settings = {
      backend: { shop: backendOf(receiver, { timeout: "1h" }) },
      namespace: [{ name: "/", route: [{ event: "order", mode: "call", to: "shop" }] }],
    };
    const node = await startGateway({ file: configuration(settings).file, env: drain({ grace: "1h" }) });
    const sockets = [];
    try {
      for (const transport of [TRANSPORTS.websocket, TRANSPORTS.polling]) sockets.push(await connect(node.url, transport));
      let heard = 0;
      const orders = setInterval(() => sockets.forEach((socket) => socket.connected && socket.emit("order", 42, () => heard++)), 100);
      try {
        await until(() => heard > 10, "acks");
        const ends = sockets.map((socket) => next(socket, "disconnect"));
        node.child.kill("SIGTERM");
        for (const [reason] of await Promise.all(ends)) assert.equal(reason, "transport close");
      } finally {
        clearInterval(orders);
      }
      await endsWith(node, 0);
    } finally {
      sockets.forEach((socket) => socket.disconnect());
      await node.stop();
      await receiver.stop();
    }
  });

  test("clients whose acks do not come in time go one after the other, too", async () => {
    const receiver = await startReceiver({ answer: (event) => (event.type === "roomcast.event" ? new Promise(() => {}) : undefined) });
    const settings = {
      backend: { shop: backendOf(receiver, { timeout: "1h" }) },
      namespace: [{ name: "/", route: [{ event: "order", mode: "call", to: "shop" }] }],
    };
    const node = await startGateway({ file: configuration(settings).file, env: drain({ period: "3s", rate: "1", grace: "1s" }) });
    const sockets = await Promise.all(Array.from({ length: 20 }, () => connect(node.url, TRANSPORTS.websocket)));
    try {
      sockets.forEach((socket) => socket.emit("order", 42, () => assert.fail("nobody answered")));
      await until(() => receiver.requests.length === 20, "the calls");
      const ends = sockets.map(async (socket) => {
        assert.equal((await next(socket, "disconnect"))[0], "transport close");
        return performance.now();
      });
      node.child.kill("SIGTERM");
      const times = await Promise.all(ends);
      assert.ok(Math.max(...times) - Math.min(...times) > 1000, "all at once");
      await endsWith(node, 0);
    } finally {
      sockets.forEach((socket) => socket.disconnect());
      await node.stop();
      await receiver.stop();
    }
  });

  test("answers that clients owe are waited for", async () => {
    const node = await startGateway({ env: drain({ grace: "1h" }) });
    const sockets = [];
    try {
      for (const transport of Object.values(TRANSPORTS)) sockets.push(await connect(node.url, transport));
      const asked = sockets.map((socket) => next(socket, "question"));
      const ends = sockets.map((socket) => next(socket, "disconnect"));
      const idle = await connect(node.url, TRANSPORTS.websocket);
      const idleEnd = next(idle, "disconnect");
      const ids = sockets.map((socket) => socket.id);
      const request = post(node, "/v1/request", { event: "question", args: [], to: { sockets: ids }, timeout: 60_000 });
      const answers = await Promise.all(asked);
      node.child.kill("SIGTERM");
      assert.equal((await idleEnd)[0], "transport close");
      assert.ok(sockets.every((socket) => socket.connected));
      answers.forEach((args) => args.at(-1)("yes"));
      const { status, body } = await request;
      assert.equal(status, 200, JSON.stringify(body));
      assert.equal(body.acks.length, 3, JSON.stringify(body));
      for (const [reason] of await Promise.all(ends)) assert.equal(reason, "transport close");
      await endsWith(node, 0);
    } finally {
      sockets.forEach((socket) => socket.disconnect());
      await node.stop();
    }
  });

  test("a client that changes its transport has changed it before it is sent away", async () => {
    const node = await startGateway({ env: drain({ period: "1ms" }) });
    try {
      const poll = await Poll.open(node);
      assert.equal((await poll.post("40")).text, "ok");
      assert.match((await poll.receiveAll(1))[0], /^40/);
      const ws = new Ws(wsUrl(node, SOCKET_IO, `EIO=4&transport=websocket&sid=${poll.sid}`));
      await within(ws.opened, "opening of the WebSocket");
      ws.send("2probe");
      assert.equal(await ws.receive(), "3probe");
      node.child.kill("SIGTERM");
      await until(() => node.child.output.includes("closing the connections"), "its turn");
      await pause(300);
      ws.send("5");
      assert.equal(await ws.closeCode(), 1001);
      await endsWith(node, 0);
    } finally {
      await node.stop();
    }
  });

  test("gives up acks after the grace", async () => {
    const receiver = await startReceiver({ answer: (event) => (event.type === "roomcast.event" ? new Promise(() => {}) : undefined) });
    const settings = {
      backend: { shop: backendOf(receiver, { timeout: "1h" }) },
      namespace: [{ name: "/", route: [{ event: "order", mode: "call", to: "shop" }] }],
    };
    const node = await startGateway({ file: configuration(settings).file, env: drain({ grace: "500ms" }) });
    const socket = await connect(node.url, TRANSPORTS.websocket);
    try {
      socket.emit("order", 42, () => assert.fail("nobody answered"));
      await until(() => receiver.requests.length === 1, "the call");
      const gone = next(socket, "disconnect");
      node.child.kill("SIGTERM");
      assert.equal((await gone)[0], "transport close");
      await endsWith(node, 0);
    } finally {
      socket.disconnect();
      await node.stop();
      await receiver.stop();
    }
  });

  for (const [first, second] of [["SIGTERM", "SIGTERM"], ["SIGTERM", "SIGINT"], ["SIGINT", "SIGINT"]]) {
    test(`${first} and then ${second} end it at once`, async () => {
      const receiver = await startReceiver({ answer: () => new Promise(() => {}) });
      const settings = {
        backend: { shop: backendOf(receiver, { timeout: "1h" }) },
        namespace: [{ name: "/", route: [{ event: "order", mode: "call", to: "shop" }] }],
        };
      const node = await startGateway({ file: configuration(settings).file, env: drain({ grace: "1h" }) });
      const socket = await connect(node.url, TRANSPORTS.websocket);
      try {
        socket.emit("order", 42, () => {});
        await until(() => receiver.requests.length === 1, "the call");
        node.child.kill(first);
        await until(async () => (await readiness(node)).reason === "draining", "a node that drains");
        assert.ok(socket.connected);
        const gone = next(socket, "disconnect");
        node.child.kill(second);
        assert.equal((await gone)[0], "transport close");
        await endsWith(node, 1);
      } finally {
        socket.disconnect();
        await node.stop();
        await receiver.stop();
      }
    });
  }

  test("SIGINT waits for no balancer and closes all at once", async () => {
    const node = await startGateway({ env: drain({ delay: "1h", period: "1h" }) });
    const sockets = await Promise.all(Array.from({ length: 20 }, () => connect(node.url, TRANSPORTS.websocket)));
    const ends = sockets.map((socket) => next(socket, "disconnect"));
    node.child.kill("SIGINT");
    for (const [reason] of await Promise.all(ends)) assert.equal(reason, "transport close");
    await endsWith(node, 0);
  });

  test("without connections nothing is waited for", async () => {
    const node = await startGateway({ env: drain({ delay: "1h", period: "1h" }) });
    assert.equal(await roomSize(node, "nobody"), 0);
    node.child.kill("SIGTERM");
    await endsWith(node, 0);
  });
});

describe("a node that has not started yet", () => {
  const waits = {
    "the adapter's Redis": (port) => ({ ROOMCAST__ADAPTER__KIND: "redis", ROOMCAST__ADAPTER__URL: `redis://127.0.0.1:${port}` }),
    "the adapter's NATS": (port) => ({ ROOMCAST__ADAPTER__KIND: "nats", ROOMCAST__ADAPTER__URL: `nats://127.0.0.1:${port}` }),
    "the NATS of backends": (port) => ({ ROOMCAST__INGEST__NATS__URL: `nats://127.0.0.1:${port}` }),
  };
  for (const [what, settings] of Object.entries(waits)) {
    // The first process of a container would not even end by a signal that it does not handle.
    test(`hears SIGTERM while ${what} does not answer, and exits with 0`, async () => {
      const silent = net.createServer().listen(0, "127.0.0.1");
      await once(silent, "listening");
      const asked = once(silent, "connection");
      const listen = { ROOMCAST__PUBLIC__LISTEN: "127.0.0.1:0", ROOMCAST__API__LISTEN: "127.0.0.1:0" };
      const child = new Child(process.env.ROOMCAST_BIN, [], { env: { ...listen, ...settings(silent.address().port) } });
      try {
        const [connection] = await within(asked, "connection");
        connection.on("error", () => {});
        child.kill("SIGTERM");
        await endsWith({ child }, 0);
        connection.destroy();
      } finally {
        await child.stop("SIGKILL");
        silent.close();
      }
    });
  }
});
