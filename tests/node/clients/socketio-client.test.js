// The official socket.io-client against the test server, the same for every way to use the transports.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { TRANSPORTS, ask, client, connect, connected, record, transportOf } from "../helpers/clients.js";
import { next, within } from "../helpers/deadline.js";
import { startTestServer } from "../helpers/servers.js";

const MAX_PAYLOAD = 200_000;

let server;
before(async () => {
  server = await startTestServer({
    MAX_PAYLOAD: String(MAX_PAYLOAD),
    PERMESSAGE_DEFLATE: process.env.PERMESSAGE_DEFLATE ?? "0",
  });
});
after(() => server.stop());

for (const [name, options] of Object.entries(TRANSPORTS)) {
  describe(name, () => {
    const expectedTransport = name === "polling" ? "polling" : "websocket";
    const sockets = [];

    async function open(namespace = "/", more = {}) {
      const socket = await connect(server.url + namespace, { ...options, ...more });
      sockets.push(socket);
      return socket;
    }

    after(() => sockets.forEach((socket) => socket.disconnect()));

    test("connects with its auth payload", async () => {
      const socket = client(server.url, { ...options, auth: { token: "t", n: [1] } });
      sockets.push(socket);
      const [auth] = await next(socket, "auth");
      assert.deepEqual(auth, { token: "t", n: [1] });
      assert.match(socket.id, /^[A-Za-z0-9_-]{20}$/);
    });

    test("uses the transport, on both sides", async () => {
      const socket = await open();
      assert.equal(transportOf(socket), expectedTransport);
      const [who] = await ask(socket, "who");
      assert.deepEqual(who, { id: socket.id, rooms: [socket.id], transport: expectedTransport });
    });

    test("sends and receives text", async () => {
      const socket = await open();
      const args = [1, "two", { three: [true, null, "€ 👋🏽 \u0000"] }, [], "", -1.5];
      const back = next(socket, "message-back");
      socket.emit("message", ...args);
      assert.deepEqual(await back, args);
    });

    test("sends and receives binary, also nested", async () => {
      const socket = await open();
      const args = [Buffer.from([0, 1, 255]), { deep: [{ bytes: Buffer.from("nested") }, "text"] }, Buffer.alloc(0)];
      const back = next(socket, "message-back");
      socket.emit("message", ...args);
      assert.deepEqual(await back, args);
    });

    test("takes typed arrays and array buffers", async () => {
      const socket = await open();
      const answer = await ask(socket, "message-with-ack", new Uint8Array([1, 2]), new Uint8Array([3, 4]).buffer);
      assert.deepEqual(answer, [Buffer.from([1, 2]), Buffer.from([3, 4])]);
    });

    test("gets acknowledgements, text and binary", async () => {
      const socket = await open();
      assert.deepEqual(await ask(socket, "message-with-ack"), []);
      assert.deepEqual(await ask(socket, "message-with-ack", 1, { a: "b" }), [1, { a: "b" }]);
      const binary = [{ bytes: Buffer.from([9, 8]) }, Buffer.from([7])];
      assert.deepEqual(await ask(socket, "message-with-ack", ...binary), binary);
    });

    test("answers the server's acknowledgement, text and binary", async () => {
      const socket = await open();
      const answers = [["yes", { n: 1 }], [Buffer.from([1, 2, 3])]];
      for (const answer of answers) {
        socket.once("ask", (ack) => ack(...answer));
        const answered = next(socket, "answered");
        socket.emit("ack-me");
        assert.deepEqual(await answered, answer);
      }
    });

    test("its acknowledgement times out when there is none", async () => {
      const socket = await open();
      const error = await within(
        new Promise((resolve) => socket.timeout(150).emit("nobody-listens", (reason) => resolve(reason))),
        "timeout of the ack",
      );
      assert.match(error.message, /timed out/);
      assert.deepEqual(await socket.timeout(15_000).emitWithAck("message-with-ack", 1), 1);
    });

    test("multiplexes namespaces over one connection", async () => {
      const socket = await open();
      const custom = socket.io.socket("/custom", { auth: { of: "custom" } });
      const auth = next(custom, "auth");
      assert.deepEqual(await auth, [{ of: "custom" }]);
      assert.notEqual(custom.id, socket.id);
      assert.deepEqual(await ask(custom, "message-with-ack", "c"), ["c"]);
      // Leaving one does not end the other.
      custom.disconnect();
      assert.deepEqual(await ask(socket, "message-with-ack", "still"), ["still"]);
    });

    test("joins a namespace that a pattern makes", async () => {
      const socket = await open("/dynamic-42");
      assert.deepEqual(await ask(socket, "message-with-ack", 1), [1]);
    });

    for (const [namespace, message, data] of [
      ["/unknown", "Invalid namespace", undefined],
      ["/dynamic-abc", "Invalid namespace", undefined],
      ["/forbidden", "not allowed", { code: "E1" }],
    ]) {
      test(`is refused at ${namespace} with a reason`, async () => {
        const socket = client(server.url + namespace, options);
        sockets.push(socket);
        const [error] = await next(socket, "connect_error");
        assert.equal(error.message, message);
        assert.deepEqual(error.data, data);
        assert.equal(socket.connected, false);
      });
    }

    test("is told when the server ends it", async () => {
      for (const close of [false, true]) {
        const socket = await open();
        const gone = next(socket, "disconnect");
        socket.emit("bye", close);
        assert.equal((await gone)[0], "io server disconnect");
      }
    });

    test("knows its own disconnect, and connects again", async () => {
      const socket = await open();
      const first = socket.id;
      const gone = next(socket, "disconnect");
      socket.disconnect();
      assert.equal((await gone)[0], "io client disconnect");
      socket.connect();
      await connected(socket);
      assert.notEqual(socket.id, first);
      assert.deepEqual(await ask(socket, "message-with-ack", 1), [1]);
    });

    test("volatile events arrive while the connection is idle", async () => {
      const socket = await open();
      // A volatile packet may be dropped; until one comes through the client tries again.
      const back = next(socket, "message-back");
      const again = setInterval(() => socket.volatile.emit("message", "v"), 20);
      try {
        assert.deepEqual(await back, ["v"]);
      } finally {
        clearInterval(again);
      }
    });

    test("a payload near the limit arrives, text and binary", async () => {
      const socket = await open();
      const text = "x".repeat(MAX_PAYLOAD - 100);
      assert.deepEqual(await ask(socket, "message-with-ack", text), [text]);
      // On polling, base64 makes a third more of it.
      const bytes = Buffer.alloc(name === "polling" ? Math.floor(MAX_PAYLOAD * 0.7) : MAX_PAYLOAD, 7);
      assert.deepEqual(await ask(socket, "message-with-ack", bytes), [bytes]);
    });

    test("a payload above the limit ends the connection", async () => {
      const socket = await open();
      const gone = next(socket, "disconnect");
      socket.emit("message", "x".repeat(MAX_PAYLOAD + 1));
      const [reason] = await gone;
      assert.ok(["transport error", "transport close"].includes(reason), reason);
    });

    test("events keep their order", async () => {
      const socket = await open();
      const received = record(socket, "message-back");
      for (let i = 0; i < 300; i++) socket.emit("message", i);
      await received.atLeast(300);
      assert.deepEqual(received.map(([, i]) => i), Array.from({ length: 300 }, (_, i) => i));
    });

    test("rooms reach their members once, and not the sender", async () => {
      const [sender, member, stranger] = await Promise.all([open(), open(), open()]);
      const received = [sender, member, stranger].map((socket) => record(socket, "news"));
      await ask(sender, "join", `news-${name}`);
      await ask(member, "join", `news-${name}`);
      sender.emit("broadcast", `news-${name}`, "news", { bytes: Buffer.from([1, 2]) });
      await received[1].atLeast(1);
      // The fence: what would still be on its way comes before these answers.
      await Promise.all([sender, member, stranger].map((socket) => ask(socket, "message-with-ack")));
      assert.deepEqual(received.map((events) => events.length), [0, 1, 0]);
      assert.deepEqual(received[1][0], ["news", { bytes: Buffer.from([1, 2]) }]);
    });
  });
}

test("events that are sent during the upgrade arrive once, in order", async () => {
  for (let round = 0; round < 5; round++) {
    const socket = client(server.url, TRANSPORTS.upgrade);
    const received = record(socket, "message-back");
    await connected(socket);
    let sent = 0;
    while (transportOf(socket) === "polling" || sent < 200) {
      socket.emit("message", sent++, sent % 10 ? "text" : Buffer.from([sent & 255]));
      await new Promise(setImmediate);
    }
    await received.atLeast(sent);
    assert.deepEqual(received.map(([, i]) => i), Array.from({ length: sent }, (_, i) => i));
    socket.disconnect();
  }
});

test("a hundred clients at once, each in order", async () => {
  const sockets = await Promise.all(
    Array.from({ length: 100 }, (_, i) => connect(server.url, Object.values(TRANSPORTS)[i % 3])),
  );
  await Promise.all(
    sockets.map(async (socket, who) => {
      const received = record(socket, "message-back");
      for (let i = 0; i < 30; i++) socket.emit("message", who, i);
      await received.atLeast(30);
      assert.deepEqual(received, Array.from({ length: 30 }, (_, i) => ["message-back", who, i]));
    }),
  );
  assert.equal(new Set(sockets.map((socket) => socket.id)).size, 100);
  sockets.forEach((socket) => socket.disconnect());
});
