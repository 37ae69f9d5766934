// The gateway's contract, as far as the tests look at it, over socket.io and its Redis adapter. There is no official
// adapter for NATS, so the kinds are memory and redis.

import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createAdapter } from "@socket.io/redis-adapter";
import { Redis } from "ioredis";
import { Server } from "socket.io";

const env = process.env;
const [publicHost, publicPort] = address(env.ROOMCAST__PUBLIC__LISTEN ?? "127.0.0.1:3000");
const [apiHost, apiPort] = address(env.ROOMCAST__API__LISTEN ?? "127.0.0.1:3001");
const kind = env.ROOMCAST__ADAPTER__KIND ?? "memory";

function address(text) {
  const at = text.lastIndexOf(":");
  return [text.slice(0, at), Number(text.slice(at + 1))];
}

/** A list as the environment carries it: JSON, or separated by commas. */
function list(text) {
  return text?.startsWith("[") ? JSON.parse(text) : text?.split(",");
}

const brokers = [];
if (kind === "redis") {
  const client = () => new Redis(env.ROOMCAST__ADAPTER__URL, { retryStrategy: () => 100 }).on("error", () => {});
  brokers.push(client(), client());
} else if (kind !== "memory") {
  throw new Error(`the reference has no adapter "${kind}"`);
}

const origins = list(env.ROOMCAST__CORS__ORIGINS) ?? [`http://${apiHost}:${apiPort}`];
const publicServer = createServer((_request, response) => response.writeHead(404).end());
const io = new Server(publicServer, {
  ...engine(),
  cors: { origin: origins, credentials: true },
  ...(brokers.length ? { adapter: createAdapter(brokers[0], brokers[1]) } : {}),
});

/** The `[public]`, `[engine]` and `[cookie]` settings that tests use; durations are like "300ms" and "25s". */
function engine() {
  const milliseconds = (text) => text && Number.parseFloat(text) * (text.endsWith("ms") ? 1 : 1000);
  const options = {
    path: env.ROOMCAST__PUBLIC__PATH,
    pingInterval: milliseconds(env.ROOMCAST__ENGINE__PING_INTERVAL),
    pingTimeout: milliseconds(env.ROOMCAST__ENGINE__PING_TIMEOUT),
    maxHttpBufferSize: env.ROOMCAST__ENGINE__MAX_PAYLOAD && Number(env.ROOMCAST__ENGINE__MAX_PAYLOAD),
    transports: list(env.ROOMCAST__ENGINE__TRANSPORTS),
    cookie: env.ROOMCAST__COOKIE__ENABLED === "true" ? { name: env.ROOMCAST__COOKIE__NAME } : undefined,
  };
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
}

io.on("connection", (socket) => {
  socket.on("room:join", async (room, ack) => {
    await socket.join(room);
    ack?.({});
  });
  socket.on("room:leave", async (room, ack) => {
    await socket.leave(room);
    ack?.({});
  });
  socket.on("room:emit", (room, event, ...args) => {
    const ack = typeof args.at(-1) === "function" ? args.pop() : undefined;
    socket.to(room).emit(event, ...args);
    ack?.({});
  });
});

class Problem extends Error {
  constructor(status, code) {
    super(code);
    Object.assign(this, { status, code });
  }
}

/** The sockets that a selector names, as something to broadcast to. */
function select({ namespace = "/", to, except }) {
  const rooms = [...(to?.rooms ?? []), ...(to?.sockets ?? []), ...(to?.users ?? []).map((user) => `user:${user}`)];
  if (to !== "all" && rooms.length === 0) throw new Problem(422, "invalid_request");
  const excepted = [...(except?.rooms ?? []), ...(except?.sockets ?? [])];
  const nsp = io.of(namespace);
  return (to === "all" ? nsp.except([]) : nsp.to(rooms)).except(excepted);
}

const verbs = {
  "/v1/emit": (body) => {
    if (typeof body.event !== "string") throw new Problem(422, "invalid_request");
    select(body).emit(body.event, ...decodeArgs(body.args ?? []));
  },
  "/v1/join": (body) => select(body).socketsJoin(body.rooms),
  "/v1/leave": (body) => select(body).socketsLeave(body.rooms),
  "/v1/disconnect": (body) => select(body).disconnectSockets(body.close),
};

/** `{"$bin": "<base64>"}` is binary. */
function decodeArgs(value) {
  if (Array.isArray(value)) return value.map(decodeArgs);
  if (value === null || typeof value !== "object") return value;
  if (typeof value.$bin === "string") return Buffer.from(value.$bin, "base64");
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, decodeArgs(item)]));
}

async function post(path, request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  let body;
  try {
    body = JSON.parse(Buffer.concat(chunks));
  } catch {
    throw new Problem(400, "invalid_request");
  }
  if (!verbs[path]) throw new Problem(404, "not_found");
  if (!ready()) throw new Problem(503, "broker_unavailable");
  await verbs[path](body);
  return [202, { id: randomUUID() }];
}

const ready = () => brokers.every((broker) => broker.status === "ready");

async function get(path) {
  if (path === "/livez") return [200, { status: "ok" }];
  if (path === "/readyz") return [ready() ? 200 : 503, { ready: ready() }];
  if (path === "/metrics") return [200, metrics(), "text/plain; version=0.0.4; charset=utf-8"];
  if (path === "/console") return [200, consolePage(), "text/html; charset=utf-8"];
  const room = /^\/v1\/rooms\/([^/]+)$/.exec(path);
  if (room) {
    const sockets = await io.in(decodeURIComponent(room[1])).fetchSockets();
    return [200, { room: decodeURIComponent(room[1]), sockets: sockets.length }];
  }
  throw new Problem(404, "not_found");
}

const metrics = () => `# HELP roomcast_connections Open connections.
# TYPE roomcast_connections gauge
roomcast_connections{transport="any"} ${io.engine.clientsCount}
`;

const consolePage = () =>
  readFileSync(new URL("console.html", import.meta.url), "utf8").replaceAll(
    "PUBLIC_URL",
    `http://${publicHost}:${publicPort}`,
  );

const api = createServer(async (request, response) => {
  const path = new URL(request.url, "http://api").pathname;
  try {
    const [status, body, type = "application/json"] =
      request.method === "POST" ? await post(path, request) : await get(path);
    response.writeHead(status, { "content-type": type });
    response.end(typeof body === "string" ? body : JSON.stringify(body));
  } catch (error) {
    const { status = 500, code = "internal" } = error;
    response.writeHead(status, { "content-type": "application/problem+json" });
    response.end(JSON.stringify({ type: "about:blank", title: code, status, code }));
  }
});

publicServer.listen(publicPort, publicHost);
api.listen(apiPort, apiHost);
