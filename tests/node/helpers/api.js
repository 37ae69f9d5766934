// The HTTP API of a gateway node, as a backend without any SDK calls it.

import assert from "node:assert/strict";

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
