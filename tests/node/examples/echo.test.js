// The echo example of the library runs and serves a stock client. ROOMCAST_EXAMPLE_ECHO names its binary.

import assert from "node:assert/strict";
import { test } from "node:test";
import { TRANSPORTS, connect } from "../helpers/clients.js";
import { next } from "../helpers/deadline.js";
import { Child, freePort, portOpen } from "../helpers/processes.js";

const binary = process.env.ROOMCAST_EXAMPLE_ECHO;

test("echo answers what it is sent", { skip: binary ? false : "ROOMCAST_EXAMPLE_ECHO is not set" }, async () => {
  const port = await freePort();
  const child = new Child(binary, [], { env: { PORT: String(port) }, name: "echo" });
  try {
    await child.ready(() => portOpen(port));
    for (const options of Object.values(TRANSPORTS)) {
      const socket = await connect(`http://127.0.0.1:${port}`, options);
      const back = next(socket, "message");
      socket.emit("message", "hello", Buffer.from([1]));
      assert.deepEqual(await back, ["hello", Buffer.from([1])]);
      socket.disconnect();
    }
  } finally {
    await child.stop();
  }
});
