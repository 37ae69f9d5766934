// What an Engine.IO and Socket.IO server does by itself as time passes. Bounds are one-sided: never too early; late
// only fails at the general deadline, so that a busy machine does not fail a test.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { until } from "../helpers/deadline.js";
import { ENGINE_IO, Poll, SOCKET_IO, connectWs, openUpgrade, openWs } from "../helpers/raw.js";
import { startTestServer } from "../helpers/servers.js";

/** Timers may run a little before the clock that we read says so. */
const EARLY_MS = 25;

describe("heartbeat with time to answer", () => {
  let server;
  before(async () => (server = await startTestServer({ PING_INTERVAL: "200", PING_TIMEOUT: "15000" })));
  after(() => server.stop());

  test("the handshake names interval and timeout", async () => {
    const { handshake } = await Poll.open(server, ENGINE_IO);
    assert.equal(handshake.pingInterval, 200);
    assert.equal(handshake.pingTimeout, 15000);
  });

  test("over polling pings again after every pong, not before the interval", async () => {
    const session = await Poll.open(server, ENGINE_IO);
    // The interval begins when the server has the pong: after this, and before its answer is read.
    let answered = -Infinity;
    for (let i = 0; i < 3; i++) {
      assert.deepEqual(await session.receive(), ["2"]);
      assert.ok(Date.now() - answered >= 200 - EARLY_MS, "ping before the interval");
      answered = Date.now();
      assert.equal((await session.post("3")).status, 200);
    }
  });

  test("over WebSocket pings again after every pong, not before the interval", async () => {
    const ws = await openWs(server, ENGINE_IO);
    let answered = -Infinity;
    for (let i = 0; i < 3; i++) {
      assert.equal(await ws.receive(), "2");
      assert.ok(Date.now() - answered >= 200 - EARLY_MS, "ping before the interval");
      answered = Date.now();
      ws.send("3");
    }
    ws.send("4alive");
    assert.equal(await ws.receive(), "4alive");
    ws.close();
  });

  test("goes on after an upgrade", async () => {
    const session = await Poll.open(server, ENGINE_IO);
    const ws = await openUpgrade(session);
    ws.send("2probe");
    assert.equal(await ws.receive(), "3probe");
    ws.send("5");
    for (let i = 0; i < 2; i++) {
      assert.equal(await ws.receive(), "2");
      ws.send("3");
    }
    ws.close();
  });
});

describe("heartbeat without an answer", () => {
  let server;
  before(async () => (server = await startTestServer({ PING_INTERVAL: "200", PING_TIMEOUT: "150" })));
  after(() => server.stop());

  test("over polling ends the session", async () => {
    const session = await Poll.open(server, ENGINE_IO);
    // Polls fetch the ping and no pong is sent.
    await until(async () => {
      const answer = await session.get();
      return answer.status === 400 && JSON.parse(answer.text).code === 1;
    }, "end of the session");
  });

  test("over WebSocket closes it, not before interval and timeout", async () => {
    const opened = Date.now();
    const ws = await openWs(server, ENGINE_IO);
    assert.equal(await ws.receive(), "2");
    assert.equal(await ws.closeCode(), 1005);
    assert.ok(Date.now() - opened >= 350 - EARLY_MS, "closed before the timeout");
  });

  test("a client that said goodbye over WebSocket is gone at the latest then", async () => {
    const ws = await openWs(server, ENGINE_IO);
    ws.send("1");
    await ws.closeCode();
  });
});

describe("limits of time", () => {
  let server;
  before(async () => (server = await startTestServer({ UPGRADE_TIMEOUT: "300", CONNECT_TIMEOUT: "400" })));
  after(() => server.stop());

  for (const probed of [true, false]) {
    test(`an upgrade that stops ${probed ? "after" : "before"} the probe closes only the WebSocket`, async () => {
      const session = await Poll.open(server, ENGINE_IO);
      const ws = await openUpgrade(session);
      if (probed) {
        ws.send("2probe");
        assert.equal(await ws.receive(), "3probe");
      }
      assert.equal(await ws.closeCode(), 1005);
      await session.post("4polling lives");
      assert.deepEqual(await session.receiveAll(1), ["4polling lives"]);
    });
  }

  test("a connection that joins no namespace is closed", async () => {
    const opened = Date.now();
    const ws = await openWs(server, SOCKET_IO);
    assert.equal(await ws.closeCode(), 1005);
    assert.ok(Date.now() - opened >= 400 - EARLY_MS, "closed before the timeout");
  });

  test("one that joins a namespace is not", async () => {
    const stays = await connectWs(server);
    const goes = await openWs(server, SOCKET_IO);
    // The fence: the other connection came later, and when its time is up so would that of the first be.
    await goes.closeCode();
    stays.send('421["message-with-ack"]');
    assert.equal(await stays.receive(), "431[]");
    stays.close();
  });
});
