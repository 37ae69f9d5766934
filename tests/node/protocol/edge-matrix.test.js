// The measured edge cases of the reference server, one test per row of the matrix: status, content type and body of every
// HTTP answer, close code of every WebSocket. Where Roomcast differs on purpose, the row would say why; none does.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { Poll, SOCKET_IO, connectWs, openWs, polling, refusal, request, wsUrl } from "../helpers/raw.js";
import { startTestServer } from "../helpers/servers.js";

const MAX_PAYLOAD = 1000;

let server;
before(async () => {
  server = await startTestServer({
    MAX_PAYLOAD: String(MAX_PAYLOAD),
    PING_INTERVAL: "60000",
    CORS_ORIGIN: "*",
  });
});
after(() => server.stop());

const json = (code, message) => [400, "application/json", JSON.stringify({ code, message })];
const facts = ({ status, type, text }) => [status, type, text];
const path = (query) => `${server.url}${SOCKET_IO}?${query}`;

describe("requests without a session", () => {
  for (const [name, query, options, expected] of [
    ["EIO missing", "transport=polling", {}, json(5, "Unsupported protocol version")],
    ["EIO=3", "EIO=3&transport=polling", {}, json(5, "Unsupported protocol version")],
    ["bad transport", "EIO=4&transport=abc", {}, json(0, "Transport unknown")],
    ["__proto__ transport", "EIO=4&transport=__proto__", {}, json(0, "Transport unknown")],
    ["unknown sid", "EIO=4&transport=polling&sid=nope", {}, json(1, "Session ID unknown")],
    ["POST handshake", "EIO=4&transport=polling", { method: "POST" }, json(2, "Bad handshake method")],
    ["websocket without upgrade", "EIO=4&transport=websocket", {}, json(3, "Bad request")],
    ["webtransport", "EIO=4&transport=webtransport", {}, json(0, "Transport unknown")],
  ]) {
    test(name, async () => assert.deepEqual(facts(await request(path(query), options)), expected));
  }

  test("OPTIONS preflight", async () => {
    const headers = { origin: "http://elsewhere.example", "access-control-request-method": "POST" };
    const answer = await request(path("EIO=4&transport=polling"), { method: "OPTIONS", headers });
    assert.deepEqual(facts(answer), [204, null, ""]);
    assert.equal(answer.headers.get("access-control-allow-origin"), "*");
  });

  test("no trailing slash", async () => {
    const answer = await request(`${server.url}/socket.io?EIO=4&transport=polling`);
    assert.deepEqual(facts(answer), [404, null, ""]);
  });

  test("path prefix match", async () => {
    const answer = await request(`${server.url}/socket.io/foo?EIO=4&transport=polling`);
    assert.deepEqual([answer.status, answer.type], [200, "text/plain; charset=UTF-8"]);
    const handshake = JSON.parse(answer.text.slice(1));
    assert.equal(
      answer.text,
      `0{"sid":"${handshake.sid}","upgrades":["websocket"],"pingInterval":60000,"pingTimeout":20000,"maxPayload":1000}`,
    );
  });

  test("client bundle", async () => {
    const answer = await request(`${server.url}/socket.io/socket.io.js`);
    assert.deepEqual([answer.status, answer.type], [200, "application/javascript; charset=utf-8"]);
    assert.match(answer.text, /^\/\*!\n \* Socket\.IO v4\./);
  });
});

describe("requests of a session", () => {
  /** What a session says that is gone. */
  const gone = json(1, "Session ID unknown");

  test("PUT with sid", async () => {
    const session = await Poll.open(server);
    assert.deepEqual(facts(await request(session.url, { method: "PUT" })), [500, null, ""]);
  });

  test("POST octet-stream closes the session", async () => {
    const session = await Poll.open(server);
    const answer = await session.post(Buffer.from([1, 2]), { "content-type": "application/octet-stream" });
    assert.deepEqual(facts(answer), [400, null, ""]);
    assert.deepEqual(facts(await session.get()), gone);
  });

  test("POST over maxPayload is refused and leaves the session alive", async () => {
    const session = await Poll.open(server);
    const answer = await session.post(`4${"x".repeat(MAX_PAYLOAD)}`);
    assert.deepEqual(facts(answer), [413, null, ""]);
    assert.deepEqual(facts(await session.post("40")), [200, "text/html", "ok"]);
    const next = await session.get();
    assert.deepEqual([next.status, next.type], [200, "text/plain; charset=UTF-8"]);
    assert.match(next.text, /^40\{"sid":"[A-Za-z0-9_-]{20}"\}/);
  });

  test("POST of exactly maxPayload is taken", async () => {
    const session = await Poll.open(server);
    await session.post("40");
    await session.receiveAll(2);
    const packet = '42["message",""]';
    const filled = packet.replace('""', `"${"x".repeat(MAX_PAYLOAD - packet.length)}"`);
    assert.deepEqual(facts(await session.post(filled)), [200, "text/html", "ok"]);
    assert.deepEqual(await session.receive(), [filled.replace("message", "message-back")]);
  });

  test("POST over maxPayload without a length", async () => {
    const session = await Poll.open(server);
    const body = new ReadableStream({
      start(controller) {
        for (let i = 0; i < 3; i++) controller.enqueue(new TextEncoder().encode("4".padEnd(MAX_PAYLOAD / 2, "x")));
        controller.close();
      },
    });
    const response = await fetch(session.url, { method: "POST", body, duplex: "half" });
    assert.equal(response.status, 413);
    assert.deepEqual(facts(await session.post("40")), [200, "text/html", "ok"]);
  });

  for (const [name, body] of [["POST empty body", ""], ["POST client ping", "2"]]) {
    test(`${name} closes the session`, async () => {
      const session = await Poll.open(server);
      assert.deepEqual(facts(await session.post(body)), [200, "text/html", "ok"]);
      assert.deepEqual(facts(await session.get()), gone);
    });
  }

  test("POST of an open packet is ignored", async () => {
    const session = await Poll.open(server);
    assert.deepEqual(facts(await session.post("0")), [200, "text/html", "ok"]);
    assert.deepEqual(facts(await session.post("40")), [200, "text/html", "ok"]);
    assert.match((await session.get()).text, /^40\{/);
  });

  test("dup GET", async () => {
    const session = await Poll.open(server);
    const answers = await Promise.all([session.get(), session.get()]);
    // Two connections: which request the server reads first is not ours to say.
    answers.sort((a, b) => a.status - b.status);
    assert.deepEqual(answers.map(facts), [
      [200, "text/plain; charset=UTF-8", "1"],
      [400, null, ""],
    ]);
  });
});

describe("WebSockets that are refused", () => {
  for (const [name, query, expected] of [
    ["ws bad sid", "EIO=4&transport=websocket&sid=nope", { status: 400, type: "text/html", text: "Session ID unknown" }],
    ["ws EIO3", "EIO=3&transport=websocket", { code: 1006 }],
    ["ws bad transport", "EIO=4&transport=abc", { status: 400, type: "text/html", text: "Transport unknown" }],
  ]) {
    test(name, async () => assert.deepEqual(await refusal(wsUrl(server, SOCKET_IO, query)), expected));
  }
});

describe("packets before CONNECT", () => {
  for (const [name, packet] of [
    ["event before connect", '42["message"]'],
    ["ack before connect", "431[]"],
    ["CONNECT array payload", "40[1]"],
    ["CONNECT string payload", '40"abc"'],
  ]) {
    test(`${name} closes`, async () => {
      const ws = await openWs(server);
      ws.send(packet);
      assert.equal(await ws.closeCode(), 1005);
      assert.equal(ws.unread, 0);
    });
  }

  for (const [name, packet, reply] of [
    ["unknown nsp", "40/nope", '44/nope,{"message":"Invalid namespace"}'],
    ["nsp with query", "40/nope?a=b", '44/nope?a=b,{"message":"Invalid namespace"}'],
  ]) {
    test(name, async () => {
      const ws = await openWs(server);
      ws.send(packet);
      assert.equal(await ws.receive(), reply);
      await assertAlive(ws, "40");
    });
  }
});

/** The connection still answers, and nothing came before the answer. */
async function assertAlive(ws, connect) {
  if (connect) {
    ws.send(connect);
    assert.match(await ws.receive(), /^40\{/);
    assert.equal(await ws.receive(), '42["auth",{}]');
  }
  ws.send('4299["message-with-ack"]');
  assert.equal(await ws.receive(), "4399[]");
  ws.close();
}

describe("packets after CONNECT that close", () => {
  const binary = Buffer.from([1, 2, 3]);
  const placeholder = (num) => `{"_placeholder":true,"num":${num}}`;

  for (const [name, ...packets] of [
    ["double CONNECT", "40"],
    ["reserved event connect", '42["connect"]'],
    ["reserved event connect_error", '42["connect_error"]'],
    ["reserved event disconnect", '42["disconnect"]'],
    ["reserved event disconnecting", '42["disconnecting"]'],
    ["reserved event newListener", '42["newListener"]'],
    ["reserved event removeListener", '42["removeListener"]'],
    ["object event name", '42[{"a":1}]'],
    ["empty event array", "42[]"],
    ["null payload", "42null"],
    ["object payload", '42{"a":1}'],
    ["broken JSON", '42["a"'],
    ["unknown packet type", "49"],
    ["binary unexpected", binary],
    ["attachments 11", `4511-["message",${placeholder(0)}]`],
    ["attachments 1e9", `451000000000-["message",${placeholder(0)}]`],
    ["attachments 0-", '450-["message"]'],
    ["attachments 0- of an ack", "460-1[]"],
    ["attachments -1", '45-1-["message"]'],
    ["attachments without a dash", '451["message"]'],
    ["placeholder out of range", `451-["message",${placeholder(1)}]`, binary],
    ["placeholder '__proto__' num", `451-["message",${placeholder('"__proto__"')}]`, binary],
    ["placeholder negative num", `451-["message",${placeholder(-1)}]`, binary],
    ["text while reconstructing", `451-["message",${placeholder(0)}]`, '42["message"]'],
    ["DISCONNECT w/ payload", '41{"a":1}'],
    ["CONNECT_ERROR from client", '44{"message":"x"}'],
    ["event to a namespace that is not joined", '42/custom,["message"]'],
    ["ws client ping", "__RAW2"],
    ["ws empty frame", "__RAW"],
  ]) {
    test(name, async () => {
      const ws = await connectWs(server);
      for (const packet of packets) ws.send(typeof packet === "string" ? packet.replace("__RAW", "") : packet);
      assert.equal(await ws.closeCode(), 1005);
      assert.equal(ws.unread, 0);
    });
  }

  test("ws over maxPayload", async () => {
    const ws = await connectWs(server);
    ws.send(`42["message","${"x".repeat(MAX_PAYLOAD)}"]`);
    assert.equal(await ws.closeCode(), 1009);
  });

  test("ws over maxPayload in fragments", async () => {
    const ws = await connectWs(server);
    for (let i = 0; i < 3; i++) ws.socket.send("x".repeat(MAX_PAYLOAD / 2), { fin: i === 2 });
    assert.equal(await ws.closeCode(), 1009);
  });

  test("ws binary over maxPayload", async () => {
    const ws = await connectWs(server);
    ws.send('451-["message",{"_placeholder":true,"num":0}]');
    ws.send(Buffer.alloc(MAX_PAYLOAD + 1));
    assert.equal(await ws.closeCode(), 1009);
  });
});

describe("packets after CONNECT that are borne", () => {
  for (const [name, packet, ...replies] of [
    ["number event", "42[123]"],
    ["event w/o payload", "42"],
    ["event nobody listens to", '42["nobody"]'],
    ["event named error", '42["error","x"]'],
    ["event named __proto__", '42["__proto__"]'],
    ["unknown ack", "4312345[1]"],
    ["ack without id", "43[1]"],
    ["huge ack id", '4299999999999999999999["message-with-ack",1]', "43100000000000000000000[1]"],
    ["ack id echo", '427["message-with-ack",1]', "437[1]"],
    ["ack id with zeros", '42007["message-with-ack",1]', "437[1]"],
    ["ws unsolicited pong", "__RAW3"],
    ["ws noop", "__RAW6"],
    ["ws upgrade packet", "__RAW5"],
    ["ws open packet", "__RAW0"],
    ["1 close packet", "__RAW1"],
  ]) {
    test(name, async () => {
      const ws = await connectWs(server);
      ws.send(packet.replace("__RAW", ""));
      for (const reply of replies) assert.equal(await ws.receive(), reply);
      await assertAlive(ws);
    });
  }

  test("attachments 1e1", async () => {
    // Read as the number 10, as the reference does: ten attachments are awaited.
    const ws = await connectWs(server);
    ws.send('451e1-["message",{"_placeholder":true,"num":9}]');
    for (let i = 0; i < 10; i++) ws.send(Buffer.from([i]));
    assert.equal(await ws.receive(), '451-["message-back",{"_placeholder":true,"num":0}]');
    assert.deepEqual(await ws.receive(), Buffer.from([9]));
    await assertAlive(ws);
  });

  test("ws 'b' base64 text", async () => {
    const ws = await connectWs(server);
    ws.send('451-["message",{"_placeholder":true,"num":0}]');
    ws.send("bAQID");
    assert.equal(await ws.receive(), '451-["message-back",{"_placeholder":true,"num":0}]');
    assert.deepEqual(await ws.receive(), Buffer.from([1, 2, 3]));
    await assertAlive(ws);
  });
});
