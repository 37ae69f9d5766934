// The broker as the nodes of a cluster use it, without a node: where a subject travels, and what is on it. The names are
// those of docs/concepts/cluster.md; the bytes are read by nobody here, only cut and spoilt.

import { createHash } from "node:crypto";
import net from "node:net";
import Redis from "ioredis";
import { until, within } from "./deadline.js";

export const PREFIX = "roomcast";

export const redisChannel = (subject) => `${PREFIX}:${subject}`;

/** A subject of the cluster as a subject of NATS. */
export function natsSubject(subject) {
  const slash = subject.indexOf("/");
  if (slash < 0) return `${PREFIX}.%-.${token(subject)}`;
  return `${PREFIX}.${token(subject.slice(0, slash))}.${token(subject.slice(slash + 1))}`;
}

function token(text) {
  const bytes = Buffer.from(text);
  if (bytes.length === 0) return "%";
  const plain = /[A-Za-z0-9\-_/:=@+~]/;
  const parts = [...bytes].map((byte) => {
    const character = String.fromCharCode(byte);
    return plain.test(character) ? character : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  });
  if (parts.join("").length <= 200) return parts.join("");
  let kept = "";
  for (const part of parts) {
    if (kept.length + part.length > 128) break;
    kept += part;
  }
  return `${kept}%~${createHash("sha256").update(bytes).digest("hex").toUpperCase()}`;
}

/** The subjects on which a node with a member of the room listens, in the namespace "/". */
export const subjectsOf = (tag, room) => ["all", `node/${tag}`, "ns//", `room//\0${room}`];

/** The subject of a room's bucket, in the namespace "/": FNV-1a over namespace, zero and room. */
export function bucketSubject(buckets, room) {
  let hash = 0xcbf29ce484222325n;
  for (const byte of Buffer.from(`/\0${room}`)) hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
  return `hash/${buckets}/${BigInt.asUintN(32, hash ^ (hash >> 32n)) % BigInt(buckets)}`;
}

/** A connection to NATS that has said who it is. */
async function natsConnection(port) {
  const socket = net.connect({ port, host: "127.0.0.1" });
  const state = { text: "", chunks: [] };
  socket.on("data", (data) => {
    state.text += data.toString("latin1");
    state.chunks.push(data);
    if (data.includes("PING\r\n")) socket.write("PONG\r\n");
  });
  await within(new Promise((resolve, reject) => socket.once("connect", resolve).once("error", reject)), "NATS connection");
  socket.write('CONNECT {"verbose":false,"pedantic":false}\r\nPING\r\n');
  await until(() => state.text.includes("PONG"), "answer of NATS");
  return { socket, state };
}

/** Puts payloads on a subject, and returns when the server has them. */
export async function natsPublish(port, subject, payloads) {
  const { socket, state } = await natsConnection(port);
  for (const payload of payloads) {
    socket.write(`PUB ${natsSubject(subject)} ${payload.length}\r\n`);
    socket.write(payload);
    socket.write("\r\n");
  }
  socket.write("PING\r\n");
  await until(() => (state.text.match(/PONG\r\n/g) ?? []).length >= 2 || /-ERR/.test(state.text), "confirmation of NATS");
  socket.destroy();
  if (/-ERR/.test(state.text)) throw new Error(state.text.slice(state.text.indexOf("-ERR")).slice(0, 200));
}

/** Listens to everything of the cluster while `act` runs, and gives the payloads by kind byte. Single servers only. */
export async function overhear(deployment, act, enough) {
  const payloads = [];
  const listener = await listeners[deployment.adapter.kind](deployment.servers[0].port, (payload) => payloads.push(payload));
  try {
    await act();
    await until(() => enough(payloads), "the messages that were to be overheard");
  } finally {
    listener();
  }
  return payloads;
}

const listeners = {
  async redis(port, take) {
    const client = new Redis({ port, host: "127.0.0.1" });
    client.on("pmessageBuffer", (_pattern, _channel, payload) => take(payload));
    await client.psubscribe(`${PREFIX}:*`);
    return () => client.disconnect();
  },
  async nats(port, take) {
    const { socket, state } = await natsConnection(port);
    state.chunks.length = 0;
    let rest = Buffer.alloc(0);
    socket.on("data", (data) => {
      rest = Buffer.concat([rest, data]);
      for (;;) {
        const end = rest.indexOf("\r\n");
        if (end < 0) return;
        const line = rest.subarray(0, end).toString("latin1");
        if (!line.startsWith("MSG ")) {
          rest = rest.subarray(end + 2);
          continue;
        }
        const length = Number(line.split(" ").at(-1));
        if (rest.length < end + 2 + length + 2) return;
        take(Buffer.from(rest.subarray(end + 2, end + 2 + length)));
        rest = rest.subarray(end + 2 + length + 2);
      }
    });
    socket.write(`SUB ${PREFIX}.> 1\r\nPING\r\n`);
    await until(() => (state.text.match(/PONG\r\n/g) ?? []).length >= 2, "subscription to everything");
    return () => socket.destroy();
  },
};
