// The HTTP API of a gateway node, as a backend without any SDK calls it.

import assert from "node:assert/strict";
import { parseMetrics } from "./prometheus.js";

export async function get(node, path) {
  const response = await fetch(node.api + path);
  return answerOf(response);
}

export async function post(node, path, body) {
  const response = await fetch(node.api + path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: typeof body === "string" ? body : JSON.stringify(body),
  });
  return answerOf(response);
}

async function answerOf(response) {
  const text = await response.text();
  const type = response.headers.get("content-type");
  return { status: response.status, type, text, body: /json/.test(type) ? JSON.parse(text) : undefined };
}

/** A metric of a node: the sum over the series that have these labels. */
export async function metric(node, name, labels = {}) {
  const { text } = await get(node, "/metrics");
  const wanted = Object.entries(labels).map(([key, value]) => `${key}="${value}"`);
  const samples = (parseMetrics(text).get(`roomcast_${name}`)?.samples ?? []).filter((sample) =>
    wanted.every((label) => sample.labels.split(",").includes(label)),
  );
  if (samples.length === 0) throw new Error(`no metric roomcast_${name} ${wanted}`);
  return samples.reduce((sum, sample) => sum + sample.value, 0);
}

/** The same of several nodes, together. */
export async function metrics(nodes, name, labels) {
  const values = await Promise.all(nodes.map((node) => metric(node, name, labels)));
  return values.reduce((sum, value) => sum + value, 0);
}

/** A call that has to be taken: 202. */
export async function accepted(node, path, body) {
  const answer = await post(node, path, body);
  assert.equal(answer.status, 202, `${path}: ${answer.status} ${answer.text}`);
  return answer.body;
}

export const emit = (node, to, event, ...args) => accepted(node, "/v1/emit", { event, args, to });

/** How many sockets of the whole cluster are in a room. */
export async function roomSize(node, room) {
  const { status, body, text } = await get(node, `/v1/rooms/${encodeURIComponent(room)}`);
  // An empty room may be one that does not exist.
  if (status === 404) return 0;
  assert.equal(status, 200, text);
  return body.sockets;
}

/** The settings that let a web page of `origin` use the gateway. */
export const allowOrigin = (origin) => ({
  ROOMCAST__CORS__ORIGINS: JSON.stringify([origin]),
  ROOMCAST__CORS__CREDENTIALS: "true",
});
