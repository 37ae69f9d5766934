// Sessions: a warning, an end, a token that extends them; and limits, each with its refusal.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { TRANSPORTS, ask, client, connect, connected, record } from "../helpers/clients.js";
import { stopAll } from "../helpers/cluster.js";
import { next, until, within } from "../helpers/deadline.js";
import { startGateway } from "../helpers/servers.js";
import { refused, seconds, signer, withSecret } from "../helpers/tokens.js";

const stoppers = [];
after(() => stopAll(stoppers));

async function gateway(options) {
  const node = await startGateway(options);
  stoppers.push(node.stop);
  return node;
}

const metric = async (node, series) => {
  const text = await (await fetch(`${node.api}/metrics`)).text();
  const line = text.split("\n").find((one) => one.startsWith(`${series} `));
  return Number(line?.split(" ")[1]);
};

describe("a session", () => {
  let node, shared;
  before(async () => {
    node = await gateway({ env: { ...withSecret, ROOMCAST__AUTH__EXPIRING_BEFORE: "2s", ROOMCAST__AUTH__JWT__LEEWAY: "0s" } });
    shared = await signer("HS256");
  });

  for (const [name, options] of Object.entries(TRANSPORTS)) {
    test(`${name}: is warned and ends with its token, with a reason that can be read`, async () => {
      const exp = seconds(4);
      const socket = client(node.url, { ...options, auth: { token: await shared.token("u", { exp }) } });
      const events = record(socket);
      const gone = next(socket, "disconnect");
      await connected(socket);
      assert.deepEqual(events, [], "it is not warned at once");
      await events.atLeast(1);
      assert.ok(Date.now() / 1000 >= exp - 2, "warned too early");
      const [reason] = await gone;
      assert.ok(Date.now() / 1000 >= exp, "ended too early");
      assert.equal(reason, "io server disconnect");
      assert.deepEqual(events, [
        ["auth:expiring", { expires_at: exp }],
        ["auth:expired", { code: "token_expired" }],
      ]);
    });
  }

  test("that ends soon is warned at once", async () => {
    const exp = seconds(2);
    const socket = client(node.url, { ...TRANSPORTS.websocket, auth: { token: await shared.token("u", { exp }) } });
    assert.deepEqual(await next(socket, "auth:expiring"), [{ expires_at: exp }]);
    socket.disconnect();
  });

  test("goes on with another token", async () => {
    const socket = client(node.url, { ...TRANSPORTS.websocket, auth: { token: await shared.token("u", { exp: seconds(3) }) } });
    const events = record(socket);
    const gone = next(socket, "disconnect");
    await connected(socket);
    const exp = seconds(6);
    const [answer] = await ask(socket, "auth:refresh", await shared.token("u", { exp }));
    assert.deepEqual(answer, { ok: true, expires_at: exp });
    await gone;
    assert.ok(Date.now() / 1000 >= exp, "ended with the first token");
    assert.deepEqual(events, [
      ["auth:expiring", { expires_at: exp }],
      ["auth:expired", { code: "token_expired" }],
    ]);
    assert.ok((await metric(node, 'roomcast_sessions_ended_total{reason="expired"}')) >= 1);
  });

  test("leaves nothing behind, however it ends", async () => {
    const options = { ...TRANSPORTS.websocket, auth: { token: await shared.token("u") } };
    const sockets = await Promise.all(Array.from({ length: 20 }, () => connect(node.url, options)));
    assert.ok((await metric(node, "roomcast_sessions")) >= 20);
    sockets.forEach((socket, index) => {
      if (index % 2) socket.disconnect();
      // Without a goodbye.
      else socket.io.engine.transport.ws.terminate();
    });
    await until(async () => (await metric(node, "roomcast_sessions")) === 0, "no session");
  });

  test("is not extended by the token of another user, nor by a bad one, and goes on", async () => {
    const socket = await connect(node.url, { ...TRANSPORTS.websocket, auth: { token: await shared.token("u") } });
    const cases = [
      [await shared.token("v"), "forbidden", 403],
      [await shared.token("u", { exp: seconds(-10) }), "token_expired", 401],
      ["x", "token_invalid", 401],
      [42, "invalid_request", 400],
    ];
    for (const [token, code, status] of cases) {
      assert.deepEqual(await ask(socket, "auth:refresh", token), [{ error: { code, status } }]);
    }
    assert.deepEqual(await ask(socket, "room:join", "x"), [{ ok: true }]);
    socket.disconnect();
  });

  test("of an anonymous client cannot be extended", async () => {
    const open = await gateway({ env: { ...withSecret, ROOMCAST__AUTH__JWT__REQUIRED: "false" } });
    const socket = await connect(open.url, TRANSPORTS.websocket);
    const answer = await ask(socket, "auth:refresh", await shared.token("u"));
    assert.deepEqual(answer, [{ error: { code: "forbidden", status: 403 } }]);
    socket.disconnect();
  });

  test("has events with names of one's choice", async () => {
    const renamed = await gateway({
      env: {
        ...withSecret,
        ROOMCAST__AUTH__REFRESH_EVENT: "renew",
        ROOMCAST__AUTH__EXPIRING_EVENT: "soon",
        ROOMCAST__AUTH__EXPIRED_EVENT: "over",
        ROOMCAST__AUTH__JWT__LEEWAY: "0s",
      },
    });
    const socket = client(renamed.url, { ...TRANSPORTS.websocket, auth: { token: await shared.token("u", { exp: seconds(3) }) } });
    const events = record(socket);
    await connected(socket);
    const [answer] = await ask(socket, "renew", await shared.token("u", { exp: seconds(3) }));
    assert.equal(answer.ok, true);
    await next(socket, "disconnect");
    assert.deepEqual([...new Set(events.map(([name]) => name))], ["soon", "over"]);
  });
});

describe("limits", () => {
  test("of connections of one address", async () => {
    const node = await gateway({ env: { ROOMCAST__LIMITS__CONNECTIONS_PER_IP: "2" } });
    const first = await connect(node.url, TRANSPORTS.websocket);
    const second = await connect(node.url, TRANSPORTS.polling);
    const handshake = () => fetch(`${node.url}/socket.io/?EIO=4&transport=polling`);
    const answer = await handshake();
    assert.equal(answer.status, 429);
    assert.equal(answer.headers.get("retry-after"), "1");
    assert.deepEqual(await answer.json(), { code: 429, message: "Too many connections of this address" });
    await assert.rejects(connect(node.url, TRANSPORTS.websocket));
    const error = await connect(node.url, TRANSPORTS.polling).catch((reason) => reason);
    assert.equal(error.description, 429);
    assert.equal(await metric(node, 'roomcast_handshakes_refused_total{code="ip_connections"}'), 3);
    // Who goes makes room, by whichever transport.
    for (const socket of [first, second]) {
      socket.disconnect();
      const again = await until(() => connect(node.url, TRANSPORTS.websocket), "a place");
      again.disconnect();
    }
  });

  test("of handshakes of one address per second", async () => {
    const node = await gateway({ env: { ROOMCAST__LIMITS__CONNECTS_PER_IP: "2" } });
    const statuses = [];
    for (let i = 0; i < 30; i++) {
      const answer = await fetch(`${node.url}/socket.io/?EIO=4&transport=polling`);
      statuses.push(answer.status);
      await answer.arrayBuffer();
    }
    assert.deepEqual(statuses.slice(0, 4), [200, 200, 200, 200]);
    assert.ok(statuses.includes(429), statuses.join());
    assert.ok((await metric(node, 'roomcast_handshakes_refused_total{code="ip_rate"}')) >= 1);
    // It passes.
    await until(async () => (await fetch(`${node.url}/socket.io/?EIO=4&transport=polling`)).status === 200, "another turn");
  });

  test("of sockets of one user, over all namespaces", async () => {
    const toml = `[[namespace]]\nname = "/"\n[[namespace]]\nname = "/b"\n`;
    const node = await gateway({ toml, env: { ...withSecret, ROOMCAST__LIMITS__SOCKETS_PER_USER: "2" } });
    const shared = await signer("HS256");
    const options = { ...TRANSPORTS.websocket, auth: { token: await shared.token("u") } };
    const first = await connect(node.url, options);
    await connect(`${node.url}/b`, options);
    const { data } = await refused(node.url, options);
    assert.deepEqual(data, { code: "too_many_sockets", status: 429 });
    (await connect(node.url, { ...options, auth: { token: await shared.token("v") } })).disconnect();
    first.disconnect();
    const again = await until(() => connect(node.url, options), "a place");
    // A bad token takes none.
    again.disconnect();
    assert.ok((await metric(node, 'roomcast_auth_refused_total{code="too_many_sockets"}')) >= 1);
  });

  test("of events of one socket", async () => {
    const node = await gateway({
      env: { ROOMCAST__LIMITS__EVENTS_PER_SECOND: "1", ROOMCAST__LIMITS__EVENTS_BURST: "3" },
    });
    const [socket, other] = [await connect(node.url, TRANSPORTS.websocket), await connect(node.url, TRANSPORTS.websocket)];
    const answers = await within(
      Promise.all(Array.from({ length: 10 }, (_, i) => ask(socket, "room:join", `r${i}`))),
      "every answer",
    );
    const limited = answers.filter(([answer]) => answer.error);
    assert.ok(limited.length >= 5 && limited.length <= 7, JSON.stringify(answers));
    assert.deepEqual(limited[0], [{ error: { code: "rate_limited", status: 429 } }]);
    assert.deepEqual(answers[0], [{ ok: true }]);
    assert.deepEqual(await ask(other, "room:join", "r"), [{ ok: true }], "others have their own");
    assert.equal(await metric(node, "roomcast_events_limited_total"), limited.length);
    await until(async () => (await ask(socket, "room:join", "later"))[0].ok, "another event");
    socket.disconnect();
    other.disconnect();
  });
});
