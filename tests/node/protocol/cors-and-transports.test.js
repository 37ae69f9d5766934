// CORS, off unless asked for, and the choice of transports.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Poll, SOCKET_IO, openWs, polling, refusal, request, wsUrl } from "../helpers/raw.js";
import { startTestServer } from "../helpers/servers.js";

const ALLOWED = "http://shop.example";
const OTHER = "http://evil.example";

async function withServer(env, check) {
  const server = await startTestServer(env);
  try {
    await check(server);
  } finally {
    await server.stop();
  }
}

const from = (server, origin, options = {}) =>
  request(polling(server, SOCKET_IO), { ...options, headers: { origin, ...options.headers } });

const preflight = { method: "OPTIONS", headers: { "access-control-request-method": "POST" } };

describe("CORS", () => {
  test("is off by default", () =>
    withServer({}, async (server) => {
      const answer = await from(server, ALLOWED);
      assert.equal(answer.status, 200);
      assert.equal(answer.headers.get("access-control-allow-origin"), null);
      assert.equal(answer.headers.get("access-control-allow-credentials"), null);
    }));

  test("names the origin that is allowed, and no other", () =>
    withServer({ CORS_ORIGIN: `${ALLOWED},http://admin.example` }, async (server) => {
      const allowed = await from(server, ALLOWED);
      assert.equal(allowed.headers.get("access-control-allow-origin"), ALLOWED);
      assert.equal(allowed.headers.get("access-control-allow-credentials"), "true");
      // What a cache keeps for one origin must not be given to another.
      assert.match(allowed.headers.get("vary") ?? "", /origin/i);
      const other = await from(server, OTHER);
      assert.equal(other.headers.get("access-control-allow-origin"), null);
    }));

  test("answers a preflight without a session", () =>
    withServer({ CORS_ORIGIN: `${ALLOWED},http://admin.example` }, async (server) => {
      const allowed = await from(server, ALLOWED, preflight);
      assert.equal(allowed.status, 204);
      assert.equal(allowed.text, "");
      assert.equal(allowed.headers.get("access-control-allow-origin"), ALLOWED);
      assert.match(allowed.headers.get("access-control-allow-methods"), /POST/);
      const other = await from(server, OTHER, preflight);
      assert.equal(other.headers.get("access-control-allow-origin"), null);
    }));

  test("covers refusals, so that a page can read the reason", () =>
    withServer({ CORS_ORIGIN: "*" }, async (server) => {
      const answer = await request(`${server.url}${SOCKET_IO}?EIO=4&transport=abc`, { headers: { origin: ALLOWED } });
      assert.equal(answer.status, 400);
      assert.equal(answer.headers.get("access-control-allow-origin"), "*");
    }));
});

describe("transports", () => {
  test("polling alone offers no upgrade and refuses a WebSocket", () =>
    withServer({ TRANSPORTS: "polling" }, async (server) => {
      const { handshake } = await Poll.open(server);
      assert.deepEqual(handshake.upgrades, []);
      // The reference has no upgrade handler then and answers with the JSON of a plain request: only the status counts.
      assert.equal((await refusal(wsUrl(server))).status, 400);
    }));

  test("websocket alone refuses polling", () =>
    withServer({ TRANSPORTS: "websocket" }, async (server) => {
      const answer = await request(polling(server, SOCKET_IO));
      assert.equal(answer.status, 400);
      assert.deepEqual(JSON.parse(answer.text), { code: 0, message: "Transport unknown" });
      const ws = await openWs(server);
      assert.deepEqual(ws.handshake.upgrades, []);
      ws.close();
    }));
});
