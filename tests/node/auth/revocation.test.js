// Revoking tokens: live sessions end on every node, later connects are refused on every node, and nodes that were not there
// learn of it.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { accepted, post } from "../helpers/api.js";
import { startBroker, startOwnBroker } from "../helpers/brokers.js";
import { TRANSPORTS, ask, client, connect, connected, record } from "../helpers/clients.js";
import { KINDS, stopAll } from "../helpers/cluster.js";
import { next, until } from "../helpers/deadline.js";
import { startGateway, startNodes } from "../helpers/servers.js";
import { refused, seconds, signer, withSecret } from "../helpers/tokens.js";

const REVOKED = { code: "token_revoked", status: 401 };
const shared = await signer("HS256");

async function open(node, token, options = TRANSPORTS.websocket) {
  const socket = client(node.url, { ...options, auth: { token } });
  const session = { socket, events: record(socket), gone: next(socket, "disconnect") };
  session.gone.catch(() => {});
  await connected(socket);
  return session;
}

async function endsRevoked({ gone, events }) {
  assert.deepEqual((await gone)[0], "io server disconnect");
  assert.deepEqual(events.at(-1), ["auth:expired", { code: "token_revoked" }]);
}

async function isRefused(node, token) {
  assert.deepEqual((await refused(node.url, { auth: { token } })).data, REVOKED);
}

for (const kind of KINDS) {
  describe(`revocation over ${kind}`, () => {
    const stoppers = [];
    let a, b, adapter;
    before(async () => {
      adapter = await startBroker(kind);
      stoppers.push(adapter.stop);
      [a, b] = await startNodes(2, { adapter, env: withSecret });
      stoppers.push(a.stop, b.stop);
    });
    after(() => stopAll(stoppers));

    for (const [name, options] of Object.entries(TRANSPORTS)) {
      test(`${name}: by jti, on both nodes`, async () => {
        const jti = `${kind}-${name}-${a.port}`;
        const token = await shared.token("u", { jti });
        const sessions = [await open(a, token, options), await open(b, token, options)];
        const other = await open(b, await shared.token("u", { jti: `${jti}-other` }), options);
        const { id, missing_nodes: missing } = await accepted(a, "/v1/tokens/revoke", { jti });
        assert.ok(id);
        assert.equal(missing, undefined);
        for (const session of sessions) await endsRevoked(session);
        // It is answered when every node knows.
        await isRefused(a, token);
        await isRefused(b, token);
        assert.deepEqual(await ask(other.socket, "room:join", "x"), [{ ok: true }]);
        assert.deepEqual(other.events, []);
        // Nor does it extend another session.
        assert.deepEqual(await ask(other.socket, "auth:refresh", token), [{ error: REVOKED }]);
        other.socket.disconnect();
      });
    }

    test("by user and time", async () => {
      const user = `gone-${kind}-${a.port}`;
      const [old, young] = [await shared.token(user, { iat: seconds(-100) }), await shared.token(user, { iat: seconds(-10) })];
      const undated = await shared.token(user, { iat: undefined });
      const [first, second, third] = [await open(a, old), await open(b, young), await open(b, undated)];
      await accepted(b, "/v1/tokens/revoke", { sub: user, before: seconds(-50) });
      await endsRevoked(first);
      await endsRevoked(third);
      await isRefused(a, old);
      await isRefused(a, undated);
      assert.deepEqual(await ask(second.socket, "room:join", "x"), [{ ok: true }]);
      await accepted(a, "/v1/tokens/revoke", { sub: user });
      await endsRevoked(second);
      await isRefused(b, young);
      // A token that is made later is good again.
      const later = await shared.token(user, { iat: seconds(2) });
      (await open(a, later)).socket.disconnect();
    });

    test("a node that starts later knows what was revoked, however much it is", async () => {
      const jti = (number) => `many-${kind}-${a.port}-${number}`;
      const all = Array.from({ length: 1_201 }, (_, number) => number);
      for (let at = 0; at < all.length; at += 100) {
        await Promise.all(all.slice(at, at + 100).map((number) => accepted(a, "/v1/tokens/revoke", { jti: jti(number) })));
      }
      const late = await startGateway({ adapter, env: withSecret });
      stoppers.push(late.stop);
      for (const number of [0, 600, 1_200]) await isRefused(late, await shared.token("u", { jti: jti(number) }));
      const text = await (await fetch(`${late.api}/metrics`)).text();
      assert.ok(Number(text.match(/^roomcast_revocations (\d+)$/m)[1]) >= 1_201, text);
    });

    test("a revocation holds no longer than it says", async () => {
      const jti = `short-${kind}-${a.port}`;
      const token = await shared.token("u", { jti });
      await accepted(a, "/v1/tokens/revoke", { jti, expires_at: seconds(2) });
      await isRefused(b, token);
      const socket = await until(() => connect(b.url, { ...TRANSPORTS.websocket, auth: { token } }), "the end of it");
      socket.disconnect();
    });

    test("what cannot be meant is refused", async () => {
      for (const body of [{}, { jti: "a", sub: "b" }, { sub: "u", before: Date.now() }, { jti: "" }]) {
        const answer = await post(a, "/v1/tokens/revoke", body);
        assert.equal(answer.status, 422, answer.text);
        assert.equal(answer.body.code, "invalid_request");
      }
    });
  });

  test(`${kind}: what is revoked while the broker is away is known when it is back`, async () => {
    const stoppers = [];
    try {
      const broker = await startOwnBroker(kind);
      stoppers.push(broker.stop);
      const [a, b] = await startNodes(2, { adapter: broker, env: withSecret });
      stoppers.push(a.stop, b.stop);
      const jti = `away-${kind}`;
      const token = await shared.token("u", { jti });
      const [here, there] = [await open(a, token), await open(b, token)];
      await broker.kill();
      await until(async () => (await fetch(`${a.api}/readyz`)).status === 503, "a node that misses its broker");
      const answer = await post(a, "/v1/tokens/revoke", { jti });
      assert.equal(answer.status, 503, answer.text);
      assert.equal(answer.body.code, "broker_unavailable");
      // On the node itself it holds at once.
      await endsRevoked(here);
      await isRefused(a, token);
      await broker.restart();
      await endsRevoked(there);
      await isRefused(b, token);
    } finally {
      await stopAll(stoppers);
    }
  });
}
