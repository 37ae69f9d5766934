// Who a client is when proxies stand between: the PROXY protocol and the headers, by hand and by HAProxy. The limit of
// connections per address is the judge: it has to bite per client.

import assert from "node:assert/strict";
import net from "node:net";
import { after, before, describe, test } from "node:test";
import tls from "node:tls";
import { startHaproxy } from "../helpers/brokers.js";
import { Authority, Files } from "../helpers/certificates.js";
import { TRANSPORTS, connect, gatewayAsk, join, record } from "../helpers/clients.js";
import { stopAll } from "../helpers/cluster.js";
import { Connection, HANDSHAKE, handshake, httpsRequest, requestText } from "../helpers/connection.js";
import { next, until, within } from "../helpers/deadline.js";
import { metric } from "../helpers/fault-cluster.js";
import { backendOf, configuration, startReceiver } from "../helpers/receiver.js";
import { startGateway } from "../helpers/servers.js";

const ONE_EACH = { ROOMCAST__LIMITS__CONNECTIONS_PER_IP: "1" };
const refused = (node, reason) => metric(node, "listener_refused_total", { listener: "public", reason });
/** A client may see the end of its connection a moment before it is counted. */
const counted = (node, reason, count) => until(async () => (await refused(node, reason)) === count, `${count} of ${reason}`);

/** Ends a node without waiting for polling sessions whose clients were never there. */
const stop = (node) => node?.child.stop("SIGKILL");

let number = 0;
/** An address that no other test uses. */
const someone = () => `203.0.113.${++number}`;

const v1 = (address) => Buffer.from(`PROXY TCP4 ${address} 10.0.0.1 4711 3000\r\n`);
function v2(address, { command = 0x21, family = 0x11, more = [] } = {}) {
  const addresses = family === 0x11 ? [...address.split(".").map(Number), 10, 0, 0, 1, 0x12, 0x67, 0x0b, 0xb8] : [];
  const rest = [...addresses, ...more];
  const signature = Buffer.from("\r\n\r\n\0\r\nQUIT\n", "latin1");
  return Buffer.concat([signature, Buffer.from([command, family, rest.length >> 8, rest.length & 255, ...rest])]);
}

describe("the PROXY protocol", () => {
  const stoppers = [];
  let node;
  before(async () => {
    const env = { ...ONE_EACH, ROOMCAST__PUBLIC__PROXY_PROTOCOL: "required", ROOMCAST__PUBLIC__TRUSTED_PROXIES: "127.0.0.1" };
    node = await startGateway({ env });
    stoppers.push(() => stop(node));
  });
  after(async () => {
    await stopAll(stoppers);
  });

  for (const [name, header] of [["1", v1], ["2", v2], ["2 with extensions", (address) => v2(address, { more: [4, 0, 1, 9] })]]) {
    test(`version ${name} says who the client is`, async () => {
      const [a, b] = [someone(), someone()];
      assert.equal(await handshake(node.port, { before: header(a) }), 200);
      assert.equal(await handshake(node.port, { before: header(a) }), 429);
      assert.equal(await handshake(node.port, { before: header(b) }), 200);
    });

    test(`version ${name} may come byte by byte, or with the request`, async () => {
      const pieces = [...header(someone())].map((byte) => Buffer.from([byte]));
      assert.equal(await handshake(node.port, { pieces }), 200);
      const together = Buffer.concat([header(someone()), Buffer.from(requestText())]);
      const connection = new Connection(node.port);
      connection.socket.write(together);
      assert.match(await connection.end(), /^HTTP\/1\.1 200/);
    });
  }

  test("what a client adds to it in headers is believed only of a proxy", async () => {
    const [client, victim] = [someone(), someone()];
    const headers = { "X-Forwarded-For": victim };
    assert.equal(await handshake(node.port, { before: v2(client), headers }), 200);
    assert.equal(await handshake(node.port, { before: v2(client), headers: { "X-Forwarded-For": someone() } }), 429);
    assert.equal(await handshake(node.port, { before: v2(victim) }), 200);
  });

  test("a proxy that speaks for itself is known by its own address", async () => {
    const local = () => v2("", { command: 0x20, family: 0 });
    assert.equal(await handshake(node.port, { before: local() }), 200);
    assert.equal(await handshake(node.port, { before: Buffer.from("PROXY UNKNOWN\r\n") }), 429);
  });

  test("a connection without a header, or with a broken one, is closed and counted", async () => {
    const before = await refused(node, "proxy_malformed");
    const broken = [Buffer.alloc(0), Buffer.from("PROXY TCP4 1.2.3 x\r\n"), v2("1.2.3.4", { command: 0x33 }), Buffer.alloc(200, 65)];
    for (const bytes of broken) assert.equal(await handshake(node.port, { before: bytes }), 0);
    await counted(node, "proxy_malformed", before + broken.length);
  });

  test("TLS comes behind it", async () => {
    const authority = new Authority();
    const own = await startGateway({
      env: { ...ONE_EACH, ...new Files(authority.issue()).env("PUBLIC"), ROOMCAST__PUBLIC__PROXY_PROTOCOL: "required" },
    });
    stoppers.push(() => stop(own));
    const status = async (address) => {
      const socket = net.connect(own.port, "127.0.0.1");
      socket.write(v2(address));
      await next(socket, "connect");
      const { status } = await httpsRequest(`https://127.0.0.1:${own.port}${HANDSHAKE}`, {
        agent: undefined,
        createConnection: () => tls.connect({ socket, host: "127.0.0.1", ca: authority.pem }),
      });
      return status;
    };
    const [a, b] = [someone(), someone()];
    assert.deepEqual([await status(a), await status(a), await status(b)], [200, 429, 200]);
  });

  test("who is no proxy cannot speak for others", async () => {
    const before = await refused(node, "proxy_untrusted");
    assert.equal(await handshake(node.port, { before: v2(someone()), localAddress: "127.0.0.2" }), 0);
    await counted(node, "proxy_untrusted", before + 1);
  });

  test("a connection that ends within the header is counted", async () => {
    const before = await refused(node, "proxy_incomplete");
    const connection = new Connection(node.port);
    connection.socket.end("PROXY TCP4 ");
    await connection.end();
    await counted(node, "proxy_incomplete", before + 1);
  });

  for (const version of ["send-proxy", "send-proxy-v2"]) {
    test(`HAProxy's ${version} carries the address of each client`, async () => {
      const own = await startGateway({
        env: { ...ONE_EACH, ROOMCAST__PUBLIC__PROXY_PROTOCOL: "required", ROOMCAST__PUBLIC__TRUSTED_PROXIES: "127.0.0.1" },
      });
      stoppers.push(() => stop(own));
      const proxy = await startHaproxy([own], { server: version });
      stoppers.push(proxy.stop);
      for (const localAddress of ["127.0.0.2", "127.0.0.3"]) {
        assert.equal(await handshake(proxy.port, { localAddress }), 200);
        assert.equal(await handshake(proxy.port, { localAddress }), 429);
      }
    });
  }

  test("official clients pass through HAProxy with it, by every transport", async () => {
    const own = await startGateway({
      env: { ROOMCAST__PUBLIC__PROXY_PROTOCOL: "required", ROOMCAST__PUBLIC__TRUSTED_PROXIES: "127.0.0.1" },
    });
    stoppers.push(() => stop(own));
    const proxy = await startHaproxy([own], { server: "send-proxy-v2" });
    stoppers.push(proxy.stop);
    const sockets = await Promise.all(Object.values(TRANSPORTS).map((transport) => connect(proxy.url, transport)));
    const received = sockets.map((socket) => record(socket));
    await Promise.all(sockets.map((socket) => join(socket, "room")));
    await gatewayAsk(sockets[0], "room:emit", "room", "e", "text", Buffer.from([1]));
    await gatewayAsk(sockets[2], "room:emit", "room", "f", Buffer.alloc(100_000, 7));
    await received[1].atLeast(2);
    await Promise.all([received[0].atLeast(1), received[2].atLeast(1)]);
    assert.deepEqual(received[1].map(([event]) => event), ["e", "f"]);
    sockets.forEach((socket) => socket.disconnect());
  });
});

describe("X-Forwarded-For", () => {
  const stoppers = [];
  let node, receiver;
  before(async () => {
    receiver = await startReceiver();
    stoppers.push(receiver.stop);
    const settings = {
      public: { trusted_proxies: ["127.0.0.1", "10.0.0.0/8"] },
      limits: { connections_per_ip: 1 },
      backend: { orders: backendOf(receiver) },
      namespace: [{ name: "/", connect: "orders" }],
    };
    node = await startGateway({ file: configuration(settings).file });
    stoppers.push(() => stop(node));
  });
  after(async () => {
    await stopAll(stoppers);
    assert.deepEqual(receiver?.problems, []);
  });
  const from = (value, more = {}) => handshake(node.port, { headers: { "X-Forwarded-For": value, ...more } });

  test("the limit bites per client, and what the client itself wrote does not help it", async () => {
    const client = someone();
    assert.equal(await from(client), 200);
    assert.equal(await from(client), 429);
    assert.equal(await from(`${someone()}, ${client}`), 429);
    assert.equal(await from(`10.9.9.9, ${client}`), 429, "not by the address of a proxy either");
    assert.equal(await from([someone(), client]), 429, "nor in a header of its own");
    assert.equal(await from(`${someone()}, ${client}:4711, 10.1.1.1`), 429, "through two proxies");
    assert.equal(await from(someone()), 200);
  });

  test("who is no proxy is believed nothing", async () => {
    const localAddress = "127.0.0.2";
    const ask = () => handshake(node.port, { headers: { "X-Forwarded-For": someone() }, localAddress });
    assert.deepEqual([await ask(), await ask()], [200, 429]);
  });

  test("the other header is not looked at", async () => {
    const client = someone();
    assert.equal(await from(client, { Forwarded: `for=${someone()}` }), 200);
    assert.equal(await from(client, { Forwarded: `for=${someone()}` }), 429);
  });

  test("backends are told the client's address", async () => {
    const [client, other] = [someone(), someone()];
    const open = (value) => connect(node.url, { ...TRANSPORTS.websocket, extraHeaders: { "X-Forwarded-For": value } });
    const [a, b] = [await open(client), await open(`${other}:4711`)];
    const peers = [a, b].map((socket) => receiver.of("connect", socket.id)[0].data.peer);
    assert.deepEqual(peers, [client, `${other}:4711`]);
    a.disconnect();
    b.disconnect();
  });

  test("HAProxy's own entry counts, not what its client sent along", async () => {
    const proxy = await startHaproxy([node], { backend: "option forwardfor" });
    stoppers.push(proxy.stop);
    for (const localAddress of ["127.0.0.4", "127.0.0.5"]) {
      assert.equal(await handshake(proxy.port, { localAddress, headers: { "X-Forwarded-For": someone() } }), 200);
      assert.equal(await handshake(proxy.port, { localAddress, headers: { "X-Forwarded-For": someone() } }), 429);
    }
  });

  test("a cookie knows that the client is encrypted up to the proxy", async () => {
    const own = await startGateway({ env: { ROOMCAST__PUBLIC__TRUSTED_PROXIES: "127.0.0.1", ROOMCAST__COOKIE__ENABLED: "true" } });
    stoppers.push(() => stop(own));
    const cookie = async (headers, localAddress) => {
      const connection = new Connection(own.port, { localAddress });
      connection.socket.write(requestText(headers));
      return /set-cookie: (.*)/i.exec(await connection.end())[1];
    };
    assert.match(await cookie({ "X-Forwarded-Proto": "https" }), /; Secure/);
    assert.doesNotMatch(await cookie({ "X-Forwarded-Proto": "http" }), /Secure/);
    assert.doesNotMatch(await cookie({ "X-Forwarded-Proto": "https" }, "127.0.0.2"), /Secure/);
  });
});

test("Forwarded: the header of RFC 7239, when that is the one", async () => {
  const env = { ...ONE_EACH, ROOMCAST__PUBLIC__TRUSTED_PROXIES: "127.0.0.1", ROOMCAST__PUBLIC__FORWARDED_HEADER: "forwarded" };
  const node = await startGateway({ env });
  try {
    const client = someone();
    const from = (value) => handshake(node.port, { headers: { Forwarded: value, "X-Forwarded-For": someone() } });
    assert.equal(await from(`for=${client};proto=https`), 200);
    assert.equal(await from(`for=${someone()}, For="${client}:4711"`), 429);
    assert.equal(await from('for="[2001:db8::7]"'), 200);
    assert.equal(await from('for="[2001:db8::8]:1"'), 429, "a network of IPv6 is one address");
  } finally {
    await stop(node);
  }
});

describe("connections that no session needs", () => {
  test("are bounded, and those of sessions go on", async () => {
    const env = { ROOMCAST__PUBLIC__MAX_PENDING_CONNECTIONS: "8", ROOMCAST__PUBLIC__HEADER_TIMEOUT: "4s" };
    const node = await startGateway({ env });
    try {
      const pending = () => metric(node, "pending_connections", { listener: "public" });
      const [early, other] = await Promise.all([connect(node.url, TRANSPORTS.websocket), connect(node.url, TRANSPORTS.websocket)]);
      const received = record(other);
      await join(other, "room");
      const silent = [];
      const fill = async () => {
        const connection = new Connection(node.port);
        await within(connection.opened, "connection");
        silent.push(connection);
        return (await pending()) === 8 && (await handshake(node.port)) === 0;
      };
      await until(fill, "refusal of a new client");
      await until(async () => (await refused(node, "limit")) > 0, "count");
      await gatewayAsk(early, "room:emit", "room", "still there");
      await received.atLeast(1);
      // They are given up after their time, and there is room again.
      await Promise.all(silent.map((connection) => connection.end()));
      await until(async () => (await handshake(node.port)) === 200, "room for a new client");
      early.disconnect();
      other.disconnect();
      await until(async () => (await pending()) === 0, "no connection that waits");
    } finally {
      await stop(node);
    }
  });

  test("are kept open between two requests only while half of the places are free", async () => {
    const node = await startGateway({ env: { ROOMCAST__PUBLIC__MAX_PENDING_CONNECTIONS: "4" } });
    try {
      const kept = [];
      for (let i = 0; i < 3; i++) {
        const connection = new Connection(node.port);
        connection.socket.write(requestText({}, { connection: "keep-alive" }));
        await until(() => connection.text.includes("\r\n\r\n0{"), "answer");
        kept.push(/connection: close/i.test(connection.text));
        if (i === 2) await connection.end();
      }
      assert.deepEqual(kept, [false, false, true]);
    } finally {
      await stop(node);
    }
  });
});
