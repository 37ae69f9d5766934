// Settings of the gateway that change what a client sees, given through the environment.

import assert from "node:assert/strict";
import { test } from "node:test";
import { metric } from "../helpers/api.js";
import { TRANSPORTS, connect, join } from "../helpers/clients.js";
import { within } from "../helpers/deadline.js";
import { Child } from "../helpers/processes.js";
import { SOCKET_IO, openWs, polling, refusal, request, wsUrl } from "../helpers/raw.js";
import { REFERENCE, startGateway } from "../helpers/servers.js";

async function withGateway(env, check) {
  const gateway = await startGateway({ env });
  try {
    await check(gateway);
  } finally {
    await gateway.stop();
  }
}

async function handshake(gateway) {
  const { text } = await request(polling(gateway, SOCKET_IO));
  return JSON.parse(text.slice(1));
}

test("nothing set gives Socket.IO's defaults", () =>
  withGateway({}, async (gateway) => {
    const { sid, ...rest } = await handshake(gateway);
    assert.deepEqual(rest, { upgrades: ["websocket"], pingInterval: 25000, pingTimeout: 20000, maxPayload: 1000000 });
    const answer = await request(polling(gateway, SOCKET_IO));
    assert.equal(answer.headers.get("set-cookie"), null);
    assert.equal(answer.headers.get("access-control-allow-origin"), null);
  }));

test("engine settings are announced", () =>
  withGateway(
    {
      ROOMCAST__ENGINE__PING_INTERVAL: "7s",
      ROOMCAST__ENGINE__PING_TIMEOUT: "300ms",
      ROOMCAST__ENGINE__MAX_PAYLOAD: "5000",
    },
    async (gateway) => {
      const { sid, ...rest } = await handshake(gateway);
      assert.deepEqual(rest, { upgrades: ["websocket"], pingInterval: 7000, pingTimeout: 300, maxPayload: 5000 });
    },
  ));

test("transports can be chosen", () =>
  withGateway({ ROOMCAST__ENGINE__TRANSPORTS: '["websocket"]' }, async (gateway) => {
    const answer = await request(polling(gateway, SOCKET_IO));
    assert.equal(answer.status, 400);
    const socket = await connect(gateway.url, TRANSPORTS.websocket);
    await join(socket, "x");
    socket.disconnect();
  }));

test("the path can be another", () =>
  withGateway({ ROOMCAST__PUBLIC__PATH: "/realtime/" }, async (gateway) => {
    assert.equal((await request(polling(gateway, SOCKET_IO))).status, 404);
    for (const options of Object.values(TRANSPORTS)) {
      const socket = await connect(gateway.url, { ...options, path: "/realtime/" });
      await join(socket, "x");
      socket.disconnect();
    }
  }));

test("a cookie for load balancers is set by the polling handshake", () =>
  withGateway({ ROOMCAST__COOKIE__ENABLED: "true", ROOMCAST__COOKIE__NAME: "node_of" }, async (gateway) => {
    const answer = await request(polling(gateway, SOCKET_IO));
    const { sid } = JSON.parse(answer.text.slice(1));
    assert.deepEqual(answer.headers.getSetCookie(), [`node_of=${sid}; Path=/; HttpOnly; SameSite=Lax`]);
  }));

test("origins hold for WebSockets too, which CORS does not protect", { skip: REFERENCE }, () =>
  withGateway({ ROOMCAST__PUBLIC__ORIGINS: '["http://shop.example"]' }, async (gateway) => {
    assert.equal((await refusal(wsUrl(gateway), { origin: "http://evil.example" })).status, 403);
    assert.equal(await metric(gateway, "handshakes_refused_total", { code: "origin" }), 1);
    // What is no browser sends no origin.
    for (const options of [{ origin: "http://shop.example" }, {}]) {
      const ws = await openWs(gateway, SOCKET_IO, options);
      ws.close();
    }
  }));

test("an unknown setting ends the start with the nearest known name", { skip: REFERENCE }, async () => {
  const child = new Child(process.env.ROOMCAST_BIN, [], { env: { ROOMCAST__PUBLIC__LISTN: "127.0.0.1:1" } });
  const { code } = await within(child.ended, "end of the gateway").finally(() => child.stop("SIGKILL"));
  assert.notEqual(code, 0);
  assert.match(child.output, /listen/);
});
