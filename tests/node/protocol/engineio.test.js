// Engine.IO v4 as its protocol document describes it: what any implementation has to do, against the echo at /engine.io/.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { until } from "../helpers/deadline.js";
import { ENGINE_IO, Poll, openUpgrade, openWs, polling, refusal, request, wsUrl } from "../helpers/raw.js";
import { startTestServer } from "../helpers/servers.js";

let server;
before(async () => (server = await startTestServer()));
after(() => server.stop());

const url = (query) => `${server.url}${ENGINE_IO}?${query}`;
const open = () => Poll.open(server, ENGINE_IO);

function assertHandshake(handshake, upgrades) {
  assert.deepEqual(Object.keys(handshake).sort(), ["maxPayload", "pingInterval", "pingTimeout", "sid", "upgrades"]);
  assert.match(handshake.sid, /^[A-Za-z0-9_-]{20}$/);
  assert.deepEqual(handshake.upgrades, upgrades);
  assert.equal(handshake.pingInterval, 25000);
  assert.equal(handshake.pingTimeout, 20000);
  assert.equal(handshake.maxPayload, 1000000);
}

describe("handshake", () => {
  test("over polling answers one open packet as text", async () => {
    const answer = await request(polling(server, ENGINE_IO));
    assert.equal(answer.status, 200);
    assert.equal(answer.type, "text/plain; charset=UTF-8");
    assert.equal(answer.headers.get("cache-control"), "no-store");
    assert.equal(answer.text[0], "0");
    assertHandshake(JSON.parse(answer.text.slice(1)), ["websocket"]);
  });

  test("over WebSocket sends the open packet first and offers no upgrade", async () => {
    const ws = await openWs(server, ENGINE_IO);
    assertHandshake(ws.handshake, []);
    ws.close();
  });

  test("gives every session an id of its own", async () => {
    const sessions = await Promise.all(Array.from({ length: 20 }, open));
    assert.equal(new Set(sessions.map((session) => session.sid)).size, 20);
  });

  for (const [query, code, message] of [
    ["transport=polling", 5, "Unsupported protocol version"],
    ["EIO=abc&transport=polling", 5, "Unsupported protocol version"],
    ["EIO=3&transport=polling", 5, "Unsupported protocol version"],
    ["EIO=5&transport=polling", 5, "Unsupported protocol version"],
    ["EIO=4", 0, "Transport unknown"],
    ["EIO=4&transport=abc", 0, "Transport unknown"],
    ["EIO=4&transport=constructor", 0, "Transport unknown"],
    ["EIO=4&transport=polling&sid=__proto__", 1, "Session ID unknown"],
    ["EIO=4&transport=websocket", 3, "Bad request"],
  ]) {
    test(`GET ?${query} is refused with code ${code}`, async () => {
      const answer = await request(url(query));
      assert.equal(answer.status, 400);
      assert.equal(answer.type, "application/json");
      assert.deepEqual(JSON.parse(answer.text), { code, message });
    });
  }

  for (const method of ["POST", "PUT", "DELETE", "HEAD"]) {
    test(`${method} without a session is refused`, async () => {
      const answer = await request(polling(server, ENGINE_IO), { method });
      assert.equal(answer.status, 400);
      if (method !== "HEAD") assert.deepEqual(JSON.parse(answer.text), { code: 2, message: "Bad handshake method" });
    });
  }

  test("a WebSocket with an unknown transport is refused before the upgrade", async () => {
    const answer = await refusal(wsUrl(server, ENGINE_IO, "EIO=4&transport=abc"));
    assert.deepEqual(answer, { status: 400, type: "text/html", text: "Transport unknown" });
  });

  test("a WebSocket with an unsupported version does not open a session", async () => {
    for (const query of ["EIO=abc&transport=websocket", "transport=websocket"]) {
      assert.deepEqual(await refusal(wsUrl(server, ENGINE_IO, query)), { code: 1006 });
    }
  });
});

describe("messages over polling", () => {
  test("travel both ways", async () => {
    const session = await open();
    const posted = await session.post("4hello");
    assert.deepEqual([posted.status, posted.type, posted.text], [200, "text/html", "ok"]);
    assert.deepEqual(await session.receive(), ["4hello"]);
  });

  test("answer a poll that is already waiting", async () => {
    const session = await open();
    const poll = session.receive();
    await session.post("4later");
    assert.deepEqual(await poll, ["4later"]);
  });

  test("come several to a payload, in order, text and binary", async () => {
    const session = await open();
    await session.post("4a\x1e4b\x1ebAQIDBA==\x1e4\x1e4c");
    assert.deepEqual(await session.receiveAll(5), ["4a", "4b", "bAQIDBA==", "4", "4c"]);
  });

  test("keep every character", async () => {
    const session = await open();
    const text = "4€ ü 中文 👋🏽 \u0000 \" \\ \r\n";
    await session.post(text);
    assert.deepEqual(await session.receive(), [text]);
  });

  test("keep the order over many requests", async () => {
    const session = await open();
    const sent = Array.from({ length: 50 }, (_, i) => `4${i}`);
    for (const packet of sent) await session.post(packet);
    assert.deepEqual(await session.receiveAll(50), sent);
  });

  test("a payload that is no packet closes the session", async () => {
    const session = await open();
    await session.post("abc");
    assert.equal((await session.get()).status, 400);
  });

  test("a poll beside another closes the session", async () => {
    const session = await open();
    const [first, second] = await Promise.all([session.get(), session.get()]);
    assert.deepEqual([first, second].map((answer) => answer.status).sort(), [200, 400]);
    assert.equal([first, second].find((answer) => answer.status === 200).text, "1");
    assert.equal((await session.get()).status, 400);
  });

  test("a POST beside another closes the session", async () => {
    const session = await open();
    // The first body never ends, so that the second request is certain to come while the first is there.
    let controller;
    const stream = new ReadableStream({ start: (c) => (controller = c) });
    const held = fetch(session.url, { method: "POST", body: stream, duplex: "half" }).then((r) => r.status, () => "cut");
    controller.enqueue(new TextEncoder().encode("4a"));
    let second;
    for (;;) {
      // Until the held request has reached the server, a POST of ours succeeds.
      second = await session.post("4b");
      if (second.status !== 200) break;
    }
    assert.equal(second.status, 400);
    assert.equal((await session.get()).status, 400);
    controller.close();
    await held;
  });

  test("a poll that the client aborts closes the session", async () => {
    const session = await open();
    const abort = new AbortController();
    const poll = session.get({ signal: abort.signal }).catch((error) => error.name);
    // A POST that is answered shows that the server is past the poll, which was sent before.
    await session.post("3");
    abort.abort();
    assert.equal(await poll, "AbortError");
    // The server learns of it when the connection ends: until then the session is there, and a poll would stay open.
    await until(async () => (await session.post("3")).status === 400, "end of the session");
  });
});

describe("messages over WebSocket", () => {
  test("travel both ways as text and as binary", async () => {
    const ws = await openWs(server, ENGINE_IO);
    ws.send("4hello");
    assert.equal(await ws.receive(), "4hello");
    ws.send(Buffer.from([1, 2, 3, 4]));
    assert.deepEqual(await ws.receive(), Buffer.from([1, 2, 3, 4]));
    ws.send("4");
    assert.equal(await ws.receive(), "4");
    ws.close();
  });

  test("base64 text is binary too", async () => {
    const ws = await openWs(server, ENGINE_IO);
    ws.send("bAQIDBA==");
    assert.deepEqual(await ws.receive(), Buffer.from([1, 2, 3, 4]));
    ws.close();
  });

  test("an empty binary message is a message", async () => {
    const ws = await openWs(server, ENGINE_IO);
    ws.send(Buffer.alloc(0));
    assert.deepEqual(await ws.receive(), Buffer.alloc(0));
    ws.close();
  });

  test("fragments make one message", async () => {
    const ws = await openWs(server, ENGINE_IO);
    ws.socket.send("4he", { fin: false });
    ws.socket.send("ll", { fin: false });
    ws.socket.send("o", { fin: true });
    assert.equal(await ws.receive(), "4hello");
    ws.close();
  });

  test("a WebSocket ping is answered by a WebSocket pong", async () => {
    const ws = await openWs(server, ENGINE_IO);
    const pong = new Promise((resolve) => ws.socket.once("pong", (data) => resolve(String(data))));
    ws.socket.ping("here");
    assert.equal(await pong, "here");
    ws.close();
  });

  test("what is no packet closes the session", async () => {
    const ws = await openWs(server, ENGINE_IO);
    ws.send("abc");
    assert.equal(await ws.closeCode(), 1005);
  });

  test("the order holds", async () => {
    const ws = await openWs(server, ENGINE_IO);
    for (let i = 0; i < 500; i++) ws.send(`4${i}`);
    for (let i = 0; i < 500; i++) assert.equal(await ws.receive(), `4${i}`);
    ws.close();
  });
});

describe("close", () => {
  test("over polling frees the waiting poll and ends the session", async () => {
    const session = await open();
    const poll = session.get();
    // Shows that the poll has been taken: it is answered by what is sent here, and the next one waits.
    await session.post("4fence");
    assert.equal((await poll).text, "4fence");
    const [last, posted] = await Promise.all([session.get(), session.post("1")]);
    assert.equal(posted.text, "ok");
    // Whichever of the two requests the server saw first, the poll does not stay open.
    assert.ok(last.text === "6" || last.status === 400, last.text);
    assert.equal((await session.get()).status, 400);
  });
});

describe("upgrade", () => {
  test("moves the session to the WebSocket", async () => {
    const session = await open();
    const ws = await openUpgrade(session);
    ws.send("2probe");
    assert.equal(await ws.receive(), "3probe");
    ws.send("5");
    ws.send("4hello");
    assert.equal(await ws.receive(), "4hello");
    ws.close();
  });

  test("frees the waiting poll with a noop", async () => {
    const session = await open();
    const poll = session.get();
    const ws = await openUpgrade(session);
    ws.send("2probe");
    assert.equal(await ws.receive(), "3probe");
    assert.equal((await poll).text, "6");
    ws.send("5");
    ws.send("4hello");
    assert.equal(await ws.receive(), "4hello");
    ws.close();
  });

  test("loses nothing of what was sent around it", async () => {
    const session = await open();
    await session.post("4before");
    const ws = await openUpgrade(session);
    ws.send("2probe");
    assert.equal(await ws.receive(), "3probe");
    await session.post("4between");
    const received = [];
    const poll = await session.get();
    received.push(...poll.text.split("\x1e").filter((packet) => packet !== "6"));
    ws.send("5");
    ws.send("4after");
    while (received.length < 3) received.push(await ws.receive());
    assert.deepEqual(received, ["4before", "4between", "4after"]);
    ws.close();
  });

  test("after it the session is deaf to polling, and lives", async () => {
    const session = await open();
    const ws = await openUpgrade(session);
    ws.send("2probe");
    await ws.receive();
    ws.send("5");
    ws.send("4fence");
    assert.equal(await ws.receive(), "4fence");
    for (const answer of [await session.get(), await session.post("4x")]) {
      assert.equal(answer.status, 400);
      assert.deepEqual(JSON.parse(answer.text), { code: 3, message: "Bad request" });
    }
    ws.send("4still here");
    assert.equal(await ws.receive(), "4still here");
    ws.close();
  });

  test("after it a further WebSocket of the same session is closed, and the session lives", async () => {
    const session = await open();
    const ws = await openUpgrade(session);
    ws.send("2probe");
    await ws.receive();
    ws.send("5");
    ws.send("4fence");
    await ws.receive();
    const other = await openUpgrade(session);
    assert.equal(await other.closeCode(), 1005);
    ws.send("4still here");
    assert.equal(await ws.receive(), "4still here");
    ws.close();
  });

  test("a second one beside it is closed, and the first succeeds", async () => {
    const session = await open();
    const ws = await openUpgrade(session);
    ws.send("2probe");
    await ws.receive();
    const other = await openUpgrade(session);
    assert.equal(await other.closeCode(), 1005);
    ws.send("5");
    ws.send("4hello");
    assert.equal(await ws.receive(), "4hello");
    ws.close();
  });

  test("a probe that is none closes only the WebSocket", async () => {
    const session = await open();
    const ws = await openUpgrade(session);
    ws.send("4hello");
    assert.equal(await ws.closeCode(), 1005);
    await session.post("4polling lives");
    assert.deepEqual(await session.receive(), ["4polling lives"]);
  });

  test("an abandoned WebSocket leaves the polling session as it was", async () => {
    const session = await open();
    const ws = await openUpgrade(session);
    ws.send("2probe");
    await ws.receive();
    ws.terminate();
    await session.post("4polling lives");
    assert.deepEqual(await session.receiveAll(1), ["4polling lives"]);
  });

  test("another protocol version than the session's is refused", async () => {
    const session = await open();
    const answer = await refusal(wsUrl(server, ENGINE_IO, `EIO=3&transport=websocket&sid=${session.sid}`));
    assert.deepEqual(answer, { status: 400, type: "text/html", text: "Bad request" });
  });

  test("an unknown session is refused before the upgrade", async () => {
    const answer = await refusal(wsUrl(server, ENGINE_IO, "EIO=4&transport=websocket&sid=nope"));
    assert.deepEqual(answer, { status: 400, type: "text/html", text: "Session ID unknown" });
  });
});
