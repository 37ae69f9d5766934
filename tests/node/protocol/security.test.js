// The security record of the protocol and its implementations: each entry that whole requests can show, by its name. What
// the parsers do with it is tested beside them in Rust (protocol/tests, protocol/src).

import assert from "node:assert/strict";
import net from "node:net";
import { after, before, test } from "node:test";
import { within } from "../helpers/deadline.js";
import { Poll, SOCKET_IO, connectWs, polling, request } from "../helpers/raw.js";
import { startTestServer } from "../helpers/servers.js";

let server;
before(async () => (server = await startTestServer({ MAX_PAYLOAD: "10000" })));
after(async () => {
  const ws = await connectWs(server);
  ws.close();
  await server.stop();
});

/** Sends text over TCP and gives what came back when the server has ended the connection. */
async function raw(text) {
  const socket = net.connect(server.port, "127.0.0.1");
  socket.on("error", () => {});
  const chunks = [];
  socket.on("data", (data) => chunks.push(data));
  socket.end(text);
  await within(new Promise((resolve) => socket.once("close", resolve)), "end of the connection");
  return Buffer.concat(chunks).toString("latin1");
}

test("CVE-2026-59725: a POST of application/octet-stream is refused and its session is freed", async () => {
  const session = await Poll.open(server);
  const url = polling(server, SOCKET_IO, `&sid=${session.sid}`);
  const headers = { "content-type": "application/octet-stream" };
  assert.equal((await request(url, { method: "POST", body: Buffer.from([4, 1, 2]), headers })).status, 400);
  const gone = await request(url);
  assert.equal(gone.status, 400);
  assert.equal(JSON.parse(gone.text).code, 1);
});

test("CVE-2024-37890, CVE-2021-32640: many and long headers are refused, upgrades too", async () => {
  const many = Array.from({ length: 5000 }, (_, i) => `x-${i}: y`).join("\r\n");
  const long = `Sec-WebSocket-Extensions: ${"a; ".repeat(300000)}`;
  for (const headers of [many, long]) {
    const answer = await raw(
      `GET ${SOCKET_IO}?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
        `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n${headers}\r\n\r\n`,
    );
    assert.doesNotMatch(answer, /^HTTP\/1\.1 101/);
  }
});

test("CVE-2023-31125, CVE-2022-41940, CVE-2022-21676: crafted requests crash nothing", async () => {
  for (const line of [
    `GET ${SOCKET_IO}?EIO=4&transport=__proto__ HTTP/1.1`,
    `GET ${SOCKET_IO}?EIO=4&transport=constructor&sid=__proto__ HTTP/1.1`,
    `GET ${SOCKET_IO}?EIO=4&transport=websocket&sid=%00%ff HTTP/1.1`,
    `GET ${SOCKET_IO}?%ZZ=%&EIO=4&transport=polling&sid=${"s".repeat(5000)} HTTP/1.1`,
    `POST ${SOCKET_IO}?EIO=4&transport=polling HTTP/1.1`,
    `GET ${SOCKET_IO} HTTP/0.9`,
    "\u0000\u0001\u0002",
  ]) {
    await raw(`${line}\r\nHost: x\r\nConnection: close\r\n\r\n`);
    await raw(`${line}\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n`);
  }
});

test("CVE-2020-36048, CVE-2020-36049: large POSTs are bounded, and so is their cost", async () => {
  const session = await Poll.open(server);
  const url = polling(server, SOCKET_IO, `&sid=${session.sid}`);
  for (let i = 0; i < 20; i++) {
    const answer = await request(url, { method: "POST", body: "4".repeat(20000) });
    assert.equal(answer.status, 413);
  }
  // As many packets as fit into one payload.
  const answer = await request(url, { method: "POST", body: Array(5000).fill("3").join("\x1e") });
  assert.equal(answer.status, 200);
});

test("CVE-2020-28481: no page of another origin may read, unless configured", async () => {
  const answer = await request(polling(server, SOCKET_IO), { headers: { origin: "https://evil.example" } });
  assert.equal(answer.status, 200);
  assert.equal(answer.headers.get("access-control-allow-origin"), null);
});

test("CVE-2017-16031: ids have at least 96 bits that differ", async () => {
  const ids = new Set();
  for (let i = 0; i < 50; i++) {
    const { sid } = await Poll.open(server);
    assert.match(sid, /^[A-Za-z0-9_-]{20}$/);
    ids.add(sid);
    // The node's tag is the same; every character after it varies.
  }
  assert.equal(ids.size, 50);
  for (let at = 4; at < 20; at++) {
    assert.ok(new Set([...ids].map((id) => id[at])).size > 10, `character ${at} hardly varies`);
  }
});

test("engineioxide 0.17.4: upgrades that are begun and left do not pile up", async () => {
  const session = await Poll.open(server);
  for (let i = 0; i < 30; i++) {
    const socket = net.connect(server.port, "127.0.0.1");
    socket.on("error", () => {});
    socket.write(
      `GET ${SOCKET_IO}?EIO=4&transport=websocket&sid=${session.sid} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n` +
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    await within(new Promise((resolve) => socket.once("data", resolve)), "101");
    socket.resetAndDestroy();
  }
  // The session has outlived them all.
  const url = polling(server, SOCKET_IO, `&sid=${session.sid}`);
  assert.equal((await request(url, { method: "POST", body: "40" })).status, 200);
  assert.match((await request(url)).text, /^40\{"sid"/);
});
