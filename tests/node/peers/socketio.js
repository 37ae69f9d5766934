// The load's contract (tests/README.md) on Node's socket.io, as its documentation shows it: `ws`, the defaults, and with
// REDIS_URL its Redis adapter.

import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { createAdapter } from "@socket.io/redis-adapter";
import { Redis } from "ioredis";
import { Server } from "socket.io";

if (process.argv.includes("--version")) {
  const folder = (name) => createRequire(import.meta.url).resolve(name).split("/dist/")[0];
  const version = (name) => JSON.parse(readFileSync(`${folder(name)}/package.json`, "utf8")).version;
  const adapter = version("@socket.io/redis-adapter");
  console.log(`socket.io ${version("socket.io")}, redis-adapter ${adapter}, Node ${process.versions.node}`);
  process.exit(0);
}

const { PORT, REDIS_URL } = process.env;
const http = createServer();
const options = REDIS_URL ? { adapter: createAdapter(new Redis(REDIS_URL), new Redis(REDIS_URL)) } : {};
const io = new Server(http, options);

io.on("connection", (socket) => {
  socket.on("echo", (argument, ack) => ack(argument));
  socket.on("join", async (room, ack) => {
    await socket.join(room);
    ack();
  });
  socket.on("broadcast", (room, event, argument) => socket.to(room).emit(event, argument));
});

http.listen(Number(PORT), "127.0.0.1");
