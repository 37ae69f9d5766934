// Input that is meant to harm: whatever a peer does to its own connection, the server answers the next client. What the
// parsers do with each byte is tested beside them in Rust; this is the whole server, over TCP.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import net from "node:net";
import { after, afterEach, before, describe, test } from "node:test";
import { within } from "../helpers/deadline.js";
import { ENGINE_IO, Poll, SOCKET_IO, connectWs, openWs } from "../helpers/raw.js";
import { startTestServer } from "../helpers/servers.js";

let server;
before(async () => (server = await startTestServer({ MAX_PAYLOAD: "10000" })));
after(() => server.stop());

afterEach(async () => {
  assert.equal(server.child.end, undefined, "the server is there");
  const ws = await connectWs(server);
  ws.send('421["message-with-ack","alive"]');
  assert.equal(await ws.receive(), '431["alive"]');
  ws.close();
});

/** A TCP connection that has sent `text`; gives what came back when the server has ended the connection. */
function tcp(text) {
  const socket = net.connect(server.port, "127.0.0.1");
  socket.on("error", () => {});
  const chunks = [];
  socket.on("data", (data) => chunks.push(data));
  socket.write(text);
  const ended = new Promise((resolve) => socket.once("close", () => resolve(Buffer.concat(chunks))));
  return { socket, ended: () => within(ended, "end of the connection") };
}

const upgradeRequest = (query = "EIO=4&transport=websocket") =>
  `GET ${ENGINE_IO}?${query} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
  `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${randomBytes(16).toString("base64")}\r\n\r\n`;

/** Sends bytes behind a WebSocket handshake that has been answered. */
async function afterUpgrade(bytes) {
  const connection = tcp(upgradeRequest());
  await within(new Promise((resolve) => connection.socket.once("data", resolve)), "answer to the upgrade");
  connection.socket.write(bytes);
  return connection;
}

describe("bytes behind the 101", () => {
  for (const [name, bytes] of [
    ["garbage", Buffer.alloc(512, 0xff)],
    ["an unmasked frame", Buffer.from([0x81, 0x02, 0x34, 0x61])],
    ["a reserved bit", Buffer.from([0xf1, 0x80, 0, 0, 0, 0])],
    ["a reserved opcode", Buffer.from([0x83, 0x80, 0, 0, 0, 0])],
    ["a fragmented ping", Buffer.from([0x09, 0x80, 0, 0, 0, 0])],
    ["a ping of 126 bytes", Buffer.from([0x89, 0xfe, 0, 126, 0, 0, 0, 0])],
    ["a continuation of nothing", Buffer.from([0x80, 0x80, 0, 0, 0, 0])],
    ["a length of 2^63", Buffer.from([0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])],
    ["a length of 1 GB", Buffer.from([0x82, 0xff, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0])],
    ["text that is not UTF-8", Buffer.from([0x81, 0x82, 0, 0, 0, 0, 0x34, 0xff])],
    ["a close frame of one byte", Buffer.from([0x88, 0x81, 0, 0, 0, 0, 3])],
  ]) {
    test(`${name} ends the connection`, async () => {
      const connection = await afterUpgrade(bytes);
      await connection.ended();
    });
  }
});

describe("connections that break off", () => {
  test("in the request line, in the headers, behind the upgrade, and within a frame", async () => {
    for (const text of ["GET /so", "GET /socket.io/?EIO=4 HTTP/1.1\r\nHost: x\r\nX-", upgradeRequest()]) {
      const { socket } = tcp(text);
      await within(new Promise((resolve) => socket.once("connect", resolve)), "connection");
      socket.resetAndDestroy();
    }
    const { socket } = await afterUpgrade(Buffer.from([0x81, 0xfe, 0x03]));
    socket.resetAndDestroy();
  });

  test("within the body of a POST: the session ends", async () => {
    const session = await Poll.open(server);
    const { socket } = tcp(
      `POST ${SOCKET_IO}?EIO=4&transport=polling&sid=${session.sid} HTTP/1.1\r\nHost: x\r\n` +
        "Content-Type: text/plain\r\nContent-Length: 100\r\n\r\n40",
    );
    await within(new Promise((resolve) => socket.once("connect", resolve)), "connection");
    socket.resetAndDestroy();
  });
});

describe("too much", () => {
  test("of headers is refused", async () => {
    const headers = Array.from({ length: 3000 }, (_, i) => `x-${i}: ${"y".repeat(20)}`).join("\r\n");
    const { ended } = tcp(`GET ${SOCKET_IO}?EIO=4&transport=polling HTTP/1.1\r\nHost: x\r\n${headers}\r\n\r\n`);
    assert.match(String(await ended()), /^HTTP\/1\.1 (431|400)/);
  });

  test("of binary that nobody announced, or for a packet of no attachments, closes", async () => {
    for (const packet of ['450-["message"]', "460-1[]", null]) {
      const ws = await connectWs(server);
      if (packet) ws.send(packet);
      for (let i = 0; i < 50; i++) ws.send(Buffer.alloc(1000));
      assert.equal(await ws.closeCode(), 1005);
    }
  });

  test("of one-byte fragments is at most one message", async () => {
    const ws = await openWs(server, ENGINE_IO);
    ws.socket.send("4", { fin: false });
    for (let i = 0; i < 5000; i++) ws.socket.send("x", { fin: false });
    ws.socket.send("x", { fin: true });
    assert.equal(await ws.receive(), `4${"x".repeat(5001)}`);
    ws.close();
  });

  test("of JSON depth does not break the server", async () => {
    const ws = await connectWs(server);
    ws.send(`421["message-with-ack",${"[".repeat(4000)}${"]".repeat(4000)}]`);
    // Refused or answered: both are right.
    await Promise.race([ws.receive(), ws.closeCode()]);
    ws.terminate();
  });
});

test("names that mean something to JavaScript mean nothing here", async () => {
  const ws = await connectWs(server);
  for (const name of ["__proto__", "constructor", "toString"]) {
    ws.send(`421["join","${name}"]`);
    assert.equal(await ws.receive(), "431[]");
    ws.send(`40/${name},`);
    assert.equal(await ws.receive(), `44/${name},{"message":"Invalid namespace"}`);
  }
  ws.close();
});
