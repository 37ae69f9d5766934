// The `testserver` contract (tests/README.md) on Node's socket.io and engine.io.

import { createServer } from "node:http";
import { Server as EngineServer } from "engine.io";
import { Server } from "socket.io";

const number = (name) => (process.env[name] ? Number(process.env[name]) : undefined);
const list = (name) => process.env[name]?.split(",");

// An option that is not set must be absent: `undefined` would replace the library's default.
const options = Object.fromEntries(
  Object.entries({
    pingInterval: number("PING_INTERVAL"),
    pingTimeout: number("PING_TIMEOUT"),
    upgradeTimeout: number("UPGRADE_TIMEOUT"),
    connectTimeout: number("CONNECT_TIMEOUT"),
    maxHttpBufferSize: number("MAX_PAYLOAD"),
    transports: list("TRANSPORTS"),
    cors: process.env.CORS_ORIGIN && { origin: cors(process.env.CORS_ORIGIN), credentials: true },
    perMessageDeflate: process.env.PERMESSAGE_DEFLATE === "1" ? { threshold: 1024 } : undefined,
  }).filter(([, value]) => value !== undefined),
);

function cors(origin) {
  return origin === "*" ? "*" : origin.split(",");
}

const http = createServer((_request, response) => response.writeHead(404).end());

const engine = new EngineServer(options);
engine.attach(http, { path: "/engine.io/", destroyUpgrade: false });
engine.on("connection", (socket) => socket.on("message", (data) => socket.send(data)));

const io = new Server(http, options);

function serve(socket) {
  socket.emit("auth", socket.handshake.auth);

  socket.on("message", (...args) => socket.emit("message-back", ...args));
  socket.on("message-with-ack", (...args) => args.pop()(...args));
  socket.on("join", (room, ack) => {
    socket.join(room);
    ack?.();
  });
  socket.on("broadcast", (room, event, arg) => socket.to(room).emit(event, arg));
  socket.on("ack-me", () => socket.emit("ask", (...answer) => socket.emit("answered", ...answer)));
  socket.on("bye", (close) => socket.disconnect(close));
  socket.on("who", (ack) =>
    ack({ id: socket.id, rooms: [...socket.rooms], transport: socket.conn.transport.name }),
  );
}

io.on("connection", serve);
io.of("/custom").on("connection", serve);
io.of(/^\/dynamic-\d+$/).on("connection", serve);
io.of("/forbidden").use((_socket, next) =>
  next(Object.assign(new Error("not allowed"), { data: { code: "E1" } })),
);

http.listen(Number(process.env.PORT), "127.0.0.1");
