// The load balancers of deploy/load-balancers under real traffic, by the files that operators get. What holds for every
// balancer and every way to use it is written once; a test of a certain way stands under its name.

import assert from "node:assert/strict";
import http from "node:http";
import { connect as connectHttp2 } from "node:http2";
import { after, before, describe, test } from "node:test";
import { emit, get } from "../helpers/api.js";
import { authority, behindTcp, nodesOf, places, startBalancer, startNodesFor } from "../helpers/balancers.js";
import { startOwnBroker } from "../helpers/brokers.js";
import { TRANSPORTS, client, connect, connected, gatewayAsk, join, record } from "../helpers/clients.js";
import { stopAll } from "../helpers/cluster.js";
import { next, pause, until } from "../helpers/deadline.js";
import { passed } from "../helpers/forwards.js";
import { SecurePoll, secureRequest } from "../helpers/https.js";
import { Ws, wsUrl } from "../helpers/raw.js";
import { backendOf, configuration, startReceiver } from "../helpers/receiver.js";

const ca = authority.pem;
// With credentials the clients keep the balancer's cookie, in Node as in a browser.
const secure = { ca, withCredentials: true };

/** The ways to use a balancer: what nodes need for it, and what the balancer sees of the traffic. */
const VARIANTS = {
  sticky: { env: {}, readsRequests: true },
  "round-robin": { env: {}, readsRequests: true },
  tcp: { env: behindTcp, readsRequests: false },
};

/**
 * All tests of a balancer: `asksNodes` is whether it knows that a node is not ready before it sends a client there, `http2`
 * what it offers over HTTP/2: `false`, "polling", or "websocket" for that too.
 */
export function balancerTests(kind, { asksNodes, http2 }) {
  for (const [variant, { env, readsRequests }] of Object.entries(VARIANTS)) {
    const start = startOf(kind, variant, env);

    describe(`${kind}, ${variant}`, () => {
      const stoppers = [];
      let broker, nodes, balancer;

      before(async () => {
        broker = await startOwnBroker("redis");
        stoppers.push(broker.stop);
        ({ nodes, balancer } = await start(stoppers, () => ({ adapter: broker })));
        await allNodesTake(balancer, nodes);
      });
      after(() => stopAll(stoppers));

      for (const [name, transport] of Object.entries(TRANSPORTS)) {
        test(`${name}: clients at all nodes meet`, () => clientsMeet(balancer, nodes, transport));
      }
      if (variant === "sticky") {
        test("the requests of a session reach its node", () => staysAtItsNode(balancer, nodes));
        test("the cookie is out of the reach of scripts and of plain HTTP", () => cookieIsSafe(balancer));
      } else {
        test("the requests of a session reach any node, and it goes on", () => goesAround(balancer, nodes));
      }
      test("sessions with the same cookies go on beside each other", () => sharesCookies(balancer, nodes));
      if (readsRequests && http2) test(`browsers may come by HTTP/2: ${http2}`, () => speaksHttp2(balancer, http2));
      if (readsRequests) {
        test("plain HTTP is sent to HTTPS", () => plainIsSentToTls(balancer));
        test("no log tells the id of a session", () => logIsDiscreet(balancer));
      }
      // Where every connection is a node's choice, a node that is not ready gets none at all.
      if (readsRequests) {
        test("nodes that lost their broker go on with their sessions", () => outlivesBroker(balancer, nodes, broker, asksNodes));
      }
      // The last one: one of the nodes dies.
      test("a node dies: its clients go on at the others, all by themselves", () => movesOn(balancer, nodes, stoppers));
    });

    test(`${kind}, ${variant}: a node learns the address of a client, whatever that says`, () => knowsAddresses(start));
    if (readsRequests) {
      test(`${kind}, ${variant}: a node drains, and nobody is refused`, () => drains(start, { asksNodes }));
      test(`${kind}, ${variant}: what a full node refuses, others take`, () => goesPastFullNode(start));
      test(`${kind}, ${variant}: what a node may have had is never sent again`, () => sendsOnce(kind, variant));
    }
  }
}

/** Starts nodes with a balancer in front: `({nodes, balancer}) = await start(stoppers, options(index))`. */
function startOf(kind, variant, env) {
  return async (stoppers, options = () => ({})) => {
    const nodes = await startNodesFor(kind, variant, (index) => {
      const own = options(index);
      return { ...own, env: { ...env, ...own.env } };
    });
    // Not in peace: their sessions are of no interest any more.
    stoppers.push(...nodes.map((node) => () => node.child.stop("SIGKILL")));
    const balancer = await startBalancer(kind, variant, nodes);
    stoppers.push(balancer.stop);
    return { nodes, balancer };
  };
}

async function clientsMeet(balancer, nodes, transport) {
  const room = `meet-${transport.transports.join("-")}`;
  const clients = await Promise.all(Array.from({ length: 6 }, () => connect(balancer.url, { ...transport, ...secure })));
  const records = clients.map((socket) => record(socket));
  await Promise.all(clients.map((socket) => join(socket, room)));
  await gatewayAsk(clients[0], "room:emit", room, "hello", Buffer.from([1, 2, 3]), "x".repeat(100_000));
  // The fence comes from one node: a client has all of that node's earlier emits when it has this.
  for (const node of nodes) await emit(node, { rooms: [room] }, "fence", node.host);
  for (const [index, events] of records.entries()) {
    const expected = index === 0 ? nodes.length : nodes.length + 1;
    await events.atLeast(expected);
    assert.equal(events.length, expected);
    const [hello] = events.filter(([event]) => event === "hello");
    assert.equal(hello === undefined, index === 0, "an emit of a client is for the others");
    if (hello) assert.deepEqual([[...hello[1]], hello[2].length], [[1, 2, 3], 100_000]);
  }
  clients.forEach((socket) => socket.disconnect());
}

/** Some sessions with some requests each, and how many of those were passed on from one node to another. */
async function traffic(balancer, nodes) {
  const before = await allPassed(nodes);
  for (let i = 0; i < 6; i++) {
    const poll = await SecurePoll.open(balancer, { ca });
    assert.match(await poll.connect(), /^40/);
    for (let j = 0; j < 4; j++) assert.equal(await poll.exchange(`42${j}["room:join","r${j}"]`), `43${j}[{"ok":true}]`);
    await poll.close();
  }
  return (await allPassed(nodes)) - before;
}

const allPassed = async (nodes) => (await Promise.all(nodes.map((node) => passed(node)))).reduce((sum, count) => sum + count, 0);

async function staysAtItsNode(balancer, nodes) {
  assert.equal(await traffic(balancer, nodes), 0, "requests that had to be passed on");
}

async function goesAround(balancer, nodes) {
  assert.ok((await traffic(balancer, nodes)) > 0, "requests that were passed on");
}

/** As tabs of a browser do: the cookie is that of the session that began last. */
async function sharesCookies(balancer, nodes) {
  const polls = [];
  const seen = new Set();
  await until(async () => {
    polls.push(await SecurePoll.open(balancer, { ca, cookie: polls.at(-1)?.cookie }));
    seen.add(polls.at(-1).node);
    return seen.size === nodes.length;
  }, "a session at every node");
  for (const poll of polls) {
    poll.cookie = polls.at(-1).cookie;
    assert.match(await poll.connect(), /^40/);
    await poll.close();
  }
}

async function cookieIsSafe(balancer) {
  const { headers } = (await SecurePoll.open(balancer, { ca })).answer;
  const [line] = headers["set-cookie"];
  for (const attribute of [/; ?httponly/i, /; ?secure/i, /; ?samesite=lax/i]) assert.match(line, attribute);
}

/** As browsers do where a server offers it: polling, and a WebSocket as RFC 8441 has it. */
async function speaksHttp2(balancer, offers) {
  const session = connectHttp2(balancer.url, { ca });
  try {
    const [settings] = await next(session, "remoteSettings");
    assert.equal(settings.enableConnectProtocol, offers === "websocket");
    const open = async (headers) => {
      const stream = session.request(headers, { endStream: headers[":method"] === "GET" });
      const [{ ":status": status }] = await next(stream, "response");
      const [bytes] = await next(stream, "data");
      return { stream, status, bytes };
    };
    const path = "/socket.io/?EIO=4&transport=";
    const poll = await open({ ":method": "GET", ":path": `${path}polling` });
    assert.deepEqual([poll.status, poll.bytes.toString("latin1", 0, 2)], [200, "0{"]);
    if (offers === "polling") return;
    const websocket = { ":method": "CONNECT", ":protocol": "websocket", ":path": `${path}websocket` };
    const socket = await open({ ...websocket, "sec-websocket-version": "13" });
    // A text frame of less than 126 bytes.
    assert.deepEqual([socket.status, socket.bytes[0], socket.bytes.toString("latin1", 2, 4)], [200, 0x81, "0{"]);
    socket.stream.close();
  } finally {
    session.destroy();
  }
}

async function plainIsSentToTls(balancer) {
  const answer = await fetch(`${balancer.http}/socket.io/?EIO=4&transport=polling`, { redirect: "manual" });
  assert.equal(answer.status, 308);
  assert.match(answer.headers.get("location"), /^https:.*\/socket\.io\/\?EIO=4&transport=polling$/);
}

async function logIsDiscreet(balancer) {
  const poll = await SecurePoll.open(balancer, { ca });
  await poll.connect();
  await poll.close();
  // The log has the path of all that was asked.
  await until(() => balancer.log().includes("/socket.io/"), "a line in the log");
  assert.doesNotMatch(balancer.log(), /sid=|EIO=/);
}

async function outlivesBroker(balancer, nodes, broker, asksNodes) {
  const poll = await SecurePoll.open(balancer, { ca });
  assert.match(await poll.connect(), /^40/);
  await broker.kill();
  try {
    for (const node of nodes) {
      await until(async () => (await get(node, "/readyz")).status === 503, "a node that is not ready");
    }
    if (asksNodes) await until(async () => (await handshake(balancer)).status === 503, "a refusal of new sessions");
    for (let i = 0; i < 4; i++) assert.equal(await poll.exchange(`42${i}["room:leave","nowhere"]`), `43${i}[{"ok":true}]`);
  } finally {
    await broker.restart();
    await allNodesTake(balancer, nodes);
  }
}

/** Stock clients that come back by themselves and then join a room, of every transport and at every node. */
async function crowd(balancer, nodes, room, stoppers) {
  const options = { ...secure, reconnection: true, reconnectionDelay: 50, reconnectionDelayMax: 200 };
  const sockets = [];
  stoppers.push(() => sockets.forEach((socket) => socket.disconnect()));
  const tags = await Promise.all(nodes.map(tagOf));
  await until(async () => {
    const more = Object.values(TRANSPORTS).map((transport) => client(balancer.url, { ...transport, ...options }));
    for (const socket of more) socket.on("connect", () => socket.emit("room:join", room));
    sockets.push(...more);
    await Promise.all(more.map(connected));
    return tags.every((tag) => sockets.some((socket) => socket.id?.startsWith(tag)));
  }, "sockets at every node");
  /** Waits until all of them are at other nodes than the one with the tag, and hear what is emitted to the room. */
  const areElsewhere = async (tag) => {
    const records = sockets.map((socket) => record(socket, "after"));
    await until(async () => {
      await emit(nodes[1], { rooms: [room] }, "after", 1);
      return records.every((events) => events.length > 0);
    }, "emits at every client");
    for (const socket of sockets) assert.ok(!socket.id?.startsWith(tag));
  };
  return { areElsewhere };
}

async function movesOn(balancer, nodes, stoppers) {
  const tag = await tagOf(nodes[0]);
  const clients = await crowd(balancer, nodes, "moved", stoppers);
  await nodes[0].child.stop("SIGKILL");
  await clients.areElsewhere(tag);
}

async function drains(start, { asksNodes }) {
  const stoppers = [];
  try {
    const broker = await startOwnBroker("redis");
    stoppers.push(broker.stop);
    const drain = { ROOMCAST__DRAIN__DELAY: "8s", ROOMCAST__DRAIN__PERIOD: "1s" };
    const { nodes, balancer } = await start(stoppers, () => ({ adapter: broker, env: drain }));
    const tag = await tagOf(nodes[0]);
    const poll = (await allNodesTake(balancer, nodes)).find((poll) => poll.node === tag);
    const clients = await crowd(balancer, nodes, "drained", stoppers);
    assert.match(await poll.connect(), /^40/);

    nodes[0].child.kill("SIGTERM");
    await until(async () => (await get(nodes[0], "/readyz")).status === 503, "a node that is not ready");
    if (asksNodes) {
      await until(async () => {
        const polls = await Promise.all(Array.from({ length: 6 }, () => SecurePoll.open(balancer, { ca })));
        await Promise.all(polls.map((poll) => poll.close()));
        return polls.every((poll) => poll.node !== tag);
      }, "new sessions at other nodes only");
    }
    assert.equal(await poll.exchange('420["room:leave","nowhere"]'), '430[{"ok":true}]', "its sessions go on");
    // Until it is gone, and after: who comes is let in.
    while (!nodes[0].child.end) {
      const poll = await SecurePoll.open(balancer, { ca });
      await poll.close();
      await pause(20);
    }
    assert.equal(nodes[0].child.end.code, 0);
    assert.equal((await handshake(balancer)).status, 200);
    await clients.areElsewhere(tag);
  } finally {
    await stopAll(stoppers);
  }
}

/** The judge is a backend: it is told who asks to come in. Also of clients whose requests are passed on from node to node. */
async function knowsAddresses(start) {
  const stoppers = [];
  try {
    const broker = await startOwnBroker("redis");
    stoppers.push(broker.stop);
    const receiver = await startReceiver();
    stoppers.push(receiver.stop);
    const { file } = configuration({ backend: { main: backendOf(receiver) }, namespace: [{ name: "/", connect: "main" }] });
    // Where the balancers' connections come from. Clients have other addresses.
    const trusted = { ROOMCAST__PUBLIC__TRUSTED_PROXIES: "127.0.0.1" };
    const { nodes, balancer } = await start(stoppers, () => ({ adapter: broker, file, env: trusted }));
    await allNodesTake(balancer, nodes);
    const spoofed = { "x-forwarded-for": "203.0.113.7", forwarded: "for=203.0.113.7", "x-real-ip": "203.0.113.7" };
    const localAddress = "127.77.1.5";
    for (const headers of [{}, spoofed]) {
      const poll = await SecurePoll.open(balancer, { ca, localAddress, headers });
      assert.match(await poll.connect(), /^40/);
      await poll.close();
      const socket = new Ws(wsUrl(balancer), { ca, localAddress, headers });
      assert.match(await socket.receive(), /^0/);
      socket.send("40");
      assert.match(await socket.receive(), /^40/);
      socket.terminate();
    }
    assert.equal(receiver.events.length, 4);
    for (const { data } of receiver.events) assert.equal(data.peer.replace(/:\d+$/, ""), localAddress);
  } finally {
    await stopAll(stoppers);
  }
}

async function goesPastFullNode(start) {
  const stoppers = [];
  try {
    const full = { ROOMCAST__PUBLIC__MAX_CONNECTIONS: "1" };
    const { nodes, balancer } = await start(stoppers, (index) => ({ env: index === 0 ? full : {} }));
    const first = await connect(nodes[0].url);
    const sockets = [first];
    stoppers.push(() => sockets.forEach((socket) => socket.disconnect()));
    await until(async () => (await handshake(balancer)).status === 200, "a handshake");
    // Some of them are sent to the full node first: which, is the balancer's choice.
    while (sockets.length < 13 || (sockets.length < 200 && (await refusals(nodes[0])) === 0)) {
      // No node knows another here: a session has to stay where it is, and a WebSocket does.
      sockets.push(await connect(balancer.url, { ...TRANSPORTS.websocket, ...secure }));
    }
    assert.notEqual(await refusals(nodes[0]), 0);
    const tag = await tagOf(nodes[0]);
    assert.equal(sockets.filter((socket) => socket.id.startsWith(tag)).length, 1);
  } finally {
    await stopAll(stoppers);
  }
}

/** How many sessions a node has refused, because it is full. */
async function refusals(node) {
  const { text } = await get(node, "/metrics");
  return Number(/^roomcast_handshakes_refused_total\{code="limit"\} (\d+)$/m.exec(text)[1]);
}

async function sendsOnce(kind, variant) {
  const stoppers = [];
  try {
    const at = await places(nodesOf(kind, variant));
    const fakes = await Promise.all(at.map(startFake));
    stoppers.push(...fakes.map((fake) => fake.stop));
    const balancer = await startBalancer(kind, variant, at);
    stoppers.push(balancer.stop);
    await until(async () => (await handshake(balancer)).status === 200, "a handshake");
    for (const method of ["GET", "POST"]) {
      fakes.forEach((fake) => (fake.requests.length = 0));
      const url = `${balancer.url}/socket.io/?EIO=4&transport=polling&sid=reset`;
      const answer = await secureRequest(url, { method, ca, body: method === "POST" ? "4x" : undefined });
      assert.ok(answer.status >= 500, String(answer.status));
      assert.equal(fakes.flatMap((fake) => fake.requests).length, 1, `${method} came once`);
    }
  } finally {
    await stopAll(stoppers);
  }
}

/** Something that is ready and takes handshakes, and breaks the connection of every request of a session. */
async function startFake({ host, port, apiPort }) {
  const requests = [];
  const take = (request, response) => {
    if (!request.url.includes("sid=")) return response.end('0{"sid":"reset"}');
    requests.push(request.method);
    request.resume().on("end", () => request.socket.destroy());
  };
  const servers = [http.createServer(take), http.createServer((_, response) => response.end("{}"))];
  await Promise.all(
    [port, apiPort].map((at, index) => new Promise((resolve) => servers[index].listen(at, host, resolve))),
  );
  const stop = () => servers.forEach((server) => server.close() && server.closeAllConnections());
  return { requests, stop };
}

const handshake = (balancer) => secureRequest(`${balancer.url}/socket.io/?EIO=4&transport=polling`, { ca });

/** The tag with which the ids of a node's sockets begin. */
const tagOf = async (node) => (await get(node, "/readyz")).body.node;

/** Waits until each node gets new sessions. Those that were made for that live on; some are for the caller to use. */
async function allNodesTake(balancer, nodes) {
  const polls = [];
  await until(async () => {
    polls.push(await SecurePoll.open(balancer, { ca }));
    return new Set(polls.map((poll) => poll.node)).size === nodes.length;
  }, "sessions at every node");
  return polls;
}
