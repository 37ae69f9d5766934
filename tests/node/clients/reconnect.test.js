// What a stock client sees when its server goes away, stops answering, or comes back.

import assert from "node:assert/strict";
import { test } from "node:test";
import { TRANSPORTS, ask, client, connect, connected } from "../helpers/clients.js";
import { next } from "../helpers/deadline.js";
import { startGateway, startTestServer } from "../helpers/servers.js";

for (const [name, options] of Object.entries(TRANSPORTS)) {
  test(`${name}: reconnects after its server was killed and started again`, async () => {
    const first = await startGateway();
    const socket = client(first.url, {
      ...options,
      reconnection: true,
      reconnectionDelay: 50,
      reconnectionDelayMax: 200,
    });
    let second;
    try {
      await connected(socket);
      const oldId = socket.id;
      const gone = next(socket, "disconnect");
      await first.child.stop("SIGKILL");
      const [reason] = await gone;
      assert.ok(["transport close", "transport error"].includes(reason), reason);

      second = await startGateway({ port: first.port, apiPort: first.apiPort });
      await connectedAgain(socket);
      assert.notEqual(socket.id, oldId);
      await ask(socket, "room:join", "after-the-restart");
    } finally {
      socket.disconnect();
      await second?.stop();
      await first.stop();
    }
  });

  test(`${name}: notices a server that no longer answers`, async () => {
    const server = await startTestServer({ PING_INTERVAL: "300", PING_TIMEOUT: "700" });
    const socket = await connect(server.url, options);
    try {
      const gone = next(socket, "disconnect");
      server.child.kill("SIGSTOP");
      assert.equal((await gone)[0], "ping timeout");
    } finally {
      socket.disconnect();
      server.child.kill("SIGCONT");
      await server.stop();
    }
  });

  test(`${name}: is told when the server is stopped in good order`, async () => {
    const server = await startGateway();
    const socket = await connect(server.url, options);
    const gone = next(socket, "disconnect");
    server.child.kill("SIGTERM");
    const [reason] = await gone;
    assert.ok(["transport close", "transport error", "io server disconnect"].includes(reason), reason);
    socket.disconnect();
    await server.stop();
  });
}

/** `connect_error` while the server is away is part of the way back, not a failure. */
async function connectedAgain(socket) {
  if (!socket.connected) await next(socket, "connect");
}
