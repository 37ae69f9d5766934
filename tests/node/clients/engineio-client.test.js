// The official engine.io-client against the raw echo.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { EngineSocket, TRANSPORTS } from "../helpers/clients.js";
import { next, until } from "../helpers/deadline.js";
import { startTestServer } from "../helpers/servers.js";

let server;
before(async () => (server = await startTestServer({ PING_INTERVAL: "300", PING_TIMEOUT: "15000" })));
after(() => server.stop());

for (const [name, options] of Object.entries(TRANSPORTS)) {
  describe(name, () => {
    async function open() {
      const socket = new EngineSocket(server.url, { path: "/engine.io/", ...options });
      const messages = [];
      socket.on("message", (data) => messages.push(data));
      await next(socket, "open");
      if (name === "upgrade") await until(() => socket.transport.name === "websocket", "upgrade");
      return { socket, messages };
    }

    test("echoes text and binary in order", async () => {
      const { socket, messages } = await open();
      socket.send("text");
      socket.send(Buffer.from([1, 2, 3]));
      socket.send("€ 👋🏽");
      await until(() => messages.length >= 3, "three messages");
      assert.deepEqual(messages, ["text", Buffer.from([1, 2, 3]), "€ 👋🏽"]);
      socket.close();
    });

    test("stays open over several heartbeats", async () => {
      const { socket, messages } = await open();
      let pings = 0;
      socket.on("ping", () => pings++);
      await until(() => pings >= 3, "three pings");
      socket.send("alive");
      await until(() => messages.length === 1, "an echo");
      socket.close();
    });

    test("closes from its side", async () => {
      const { socket } = await open();
      const closed = next(socket, "close");
      socket.close();
      assert.equal((await closed)[0], "forced close");
    });
  });
}

test("messages that are sent during the upgrade arrive once, in order", async () => {
  const socket = new EngineSocket(server.url, { path: "/engine.io/", ...TRANSPORTS.upgrade });
  const messages = [];
  socket.on("message", (data) => messages.push(data));
  await next(socket, "open");
  let sent = 0;
  while (socket.transport.name === "polling" || sent < 200) {
    socket.send(String(sent++));
    await new Promise(setImmediate);
  }
  await until(() => messages.length >= sent, "all messages");
  assert.deepEqual(messages, Array.from({ length: sent }, (_, i) => String(i)));
  socket.close();
});

test("base64 is taken where a client asks for it", async () => {
  const socket = new EngineSocket(server.url, { path: "/engine.io/", transports: ["websocket"], forceBase64: true });
  await next(socket, "open");
  const echo = next(socket, "message");
  socket.send(Buffer.from([1, 2, 3]));
  assert.deepEqual((await echo)[0], Buffer.from([1, 2, 3]));
  socket.close();
});
