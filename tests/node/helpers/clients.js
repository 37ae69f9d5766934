// The official clients, unmodified, in the three ways in which they use the transports.

import { io } from "socket.io-client";
import { until, within } from "./deadline.js";

export { io };
export { Socket as EngineSocket } from "engine.io-client";

export const TRANSPORTS = {
  polling: { transports: ["polling"] },
  websocket: { transports: ["websocket"] },
  upgrade: { transports: ["polling", "websocket"] },
};

const deflate = process.env.PERMESSAGE_DEFLATE === "1" ? { perMessageDeflate: { threshold: 0 } } : {};

/** A client that is not connected yet and shares no connection with another. */
export function client(url, options = {}) {
  return io(url, { forceNew: true, reconnection: false, ...deflate, ...options });
}

/** A client that is connected; in the upgrade case, one that has finished its upgrade. */
export async function connect(url, options = {}) {
  const socket = client(url, options);
  await connected(socket);
  if (options.transports?.length === 2) await upgraded(socket);
  return socket;
}

export async function connected(socket) {
  if (socket.connected) return socket;
  await within(
    new Promise((resolve, reject) => {
      socket.once("connect", resolve);
      socket.once("connect_error", reject);
    }),
    "connection",
  );
  return socket;
}

export const transportOf = (socket) => socket.io.engine.transport.name;

export const upgraded = (socket) => until(() => transportOf(socket) === "websocket", "upgrade to WebSocket");

/** Everything that a socket receives, as `[event, ...args]`, with a wait for a number of them. */
export function record(socket, ...events) {
  const received = [];
  socket.onAny((event, ...args) => {
    if (events.length === 0 || events.includes(event)) received.push([event, ...args]);
  });
  // Not enumerable, so that the record compares equal to a plain array.
  Object.defineProperty(received, "atLeast", {
    value: (count) => until(() => received.length >= count, `${count} events of ${events.join() || "any kind"}`),
  });
  return received;
}

/** Emits and waits for the acknowledgement, as an array of its arguments. */
export function ask(socket, ...args) {
  return within(new Promise((resolve) => socket.emit(...args, (...answer) => resolve(answer))), `ack of ${args[0]}`);
}

/** Joins a room of the gateway; fails when the gateway refuses. */
export async function join(socket, room) {
  await gatewayAsk(socket, "room:join", room);
}

/** Asks one of the gateway's own events; an `error` key in the acknowledgement is a failure. */
export async function gatewayAsk(socket, ...args) {
  const answer = await ask(socket, ...args);
  const error = answer.find((item) => item?.error)?.error;
  if (error) throw new Error(`${args[0]} refused: ${JSON.stringify(error)}`);
  return answer;
}
