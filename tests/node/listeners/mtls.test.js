// The api listener over TLS, where certificates are credentials; and the commands that ask it.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { after, before, describe, test } from "node:test";
import { Authority, Files } from "../helpers/certificates.js";
import { TRANSPORTS, connect, gatewayAsk, join, record } from "../helpers/clients.js";
import { httpsRequest } from "../helpers/connection.js";
import { until, within } from "../helpers/deadline.js";
import { startGateway } from "../helpers/servers.js";

const servers = new Authority("Servers");
const clients = new Authority("Clients");
const orders = clients.issue({ name: "orders", names: "URI:spiffe://tests/orders" });
const stranger = new Authority("Strangers").issue({ name: "stranger" });
const ca = servers.pem;
const KEY = "0123456789abcdef-limited";

/** A node whose API takes certificates of `clients`. */
async function start(env = {}) {
  const files = new Files(servers.issue());
  const tls = {
    ...files.env("API"),
    ROOMCAST__API__TLS__CLIENT_CA_FILE: clients.file,
    ROOMCAST__RELOAD__INTERVAL: "50ms",
  };
  const ready = (port) =>
    httpsRequest(`https://127.0.0.1:${port}/readyz`, { ca, cert: orders.cert, key: orders.key }).then(({ status }) => status === 200);
  const node = await startGateway({ env: { ...tls, ...env }, ready });
  return { ...node, files, settings: { ...tls, ROOMCAST__API__LISTEN: `127.0.0.1:${node.apiPort}`, ...env } };
}

const call = (node, path, options = {}) => httpsRequest(`https://127.0.0.1:${node.apiPort}${path}`, { ca, ...options });
const shown = { cert: orders.cert, key: orders.key };
const emit = {
  method: "POST",
  headers: { "content-type": "application/json" },
  body: JSON.stringify({ event: "e", args: [], to: { rooms: ["r"] } }),
};

/** Runs a command of the binary: `{code, stdout, stderr}`. */
async function command(node, args, env = {}) {
  const run = promisify(execFile)(process.env.ROOMCAST_BIN, args, { env: { ...process.env, ...node.settings, ...env } });
  const done = run.then(({ stdout, stderr }) => ({ code: 0, stdout, stderr })).catch(({ code, stdout, stderr }) => ({ code, stdout, stderr }));
  return within(done, `end of roomcast ${args[0]}`);
}

async function refusals(node, reason) {
  const { text } = await call(node, "/metrics", shown);
  return Number(new RegExp(`roomcast_listener_refused_total\\{listener="api",reason="${reason}"\\} (\\d+)`).exec(text)[1]);
}

describe("an API that needs certificates", () => {
  let node;
  before(async () => (node = await start()));
  after(() => node?.stop());

  test("lets in who has one, without any key", async () => {
    assert.equal((await call(node, "/v1/emit", { ...emit, ...shown })).status, 202);
    assert.equal((await call(node, "/v1/nodes", shown)).status, 200);
  });

  test("has no connection for who has none, or one of another authority", async () => {
    await assert.rejects(call(node, "/readyz"));
    await until(async () => (await refusals(node, "tls_certificate_missing")) === 1, "count");
    await assert.rejects(call(node, "/readyz", { cert: stranger.cert, key: stranger.key }));
    await until(async () => (await refusals(node, "tls_certificate_invalid")) === 1, "count");
  });

  test("takes no orders from another site's page, whose browser shows the certificate by itself", async () => {
    const origin = { origin: "https://evil.example" };
    const answer = await call(node, "/v1/emit", { ...emit, ...shown, headers: { ...emit.headers, ...origin } });
    assert.equal(answer.status, 403);
    const own = { origin: `https://127.0.0.1:${node.apiPort}` };
    assert.equal((await call(node, "/v1/emit", { ...emit, ...shown, headers: { ...emit.headers, ...own } })).status, 202);
  });

  test("is asked by the commands with a certificate", async () => {
    const flags = ["--cert-file", orders.certFile, "--key-file", orders.keyFile];
    const healthy = await command(node, ["healthcheck", ...flags]);
    assert.equal(healthy.code, 0, healthy.stderr);
    assert.notEqual((await command(node, ["healthcheck"])).code, 0);

    // By the configuration, the certificate in its file is believed; by a URL, an authority has to be.
    const listed = await command(node, ["nodes", ...flags]);
    assert.equal(listed.code, 0, listed.stderr);
    const url = ["--url", `https://localhost:${node.apiPort}`];
    const strict = await command(node, ["nodes", ...url, ...flags]);
    assert.notEqual(strict.code, 0);
    const named = await command(node, ["nodes", ...url, ...flags, "--ca-file", servers.file]);
    assert.equal(named.code, 0, named.stderr);
    const env = { ROOMCAST_CA_FILE: servers.file, ROOMCAST_CERT_FILE: orders.certFile, ROOMCAST_KEY_FILE: orders.keyFile };
    assert.equal((await command(node, ["healthcheck", ...url], env)).code, 0);
    assert.equal((await command(node, ["emit", "e", "--room", "r", ...url], env)).code, 0);
    const half = await command(node, ["healthcheck", "--cert-file", orders.certFile]);
    assert.match(half.stderr, /--key-file/);
  });

  test("has the console's own sockets, by polling and by WebSocket", async () => {
    const options = { ...TRANSPORTS.upgrade, ca, ...shown, path: "/console/socket.io/" };
    const [a, b] = await Promise.all([1, 2].map(() => connect(`https://127.0.0.1:${node.apiPort}`, options)));
    const received = record(b);
    await Promise.all([join(a, "room"), join(b, "room")]);
    await gatewayAsk(a, "room:emit", "room", "e", Buffer.from([1]));
    await received.atLeast(1);
    assert.deepEqual(received, [["e", Buffer.from([1])]]);
    a.disconnect();
    b.disconnect();
  });

  test("passes the check of its configuration on any address without keys", async () => {
    const checked = await command(node, ["check"], { ROOMCAST__API__LISTEN: "0.0.0.0:3001" });
    assert.equal(checked.code, 0, checked.stderr);
    assert.match(checked.stdout, /https:\/\/0\.0\.0\.0:3001 \(no keys, client certificates\)/);
    const open = await command(node, ["check"], { ROOMCAST__API__LISTEN: "0.0.0.0:3001", ROOMCAST__API__TLS__CLIENT_CA_FILE: "" });
    assert.match(open.stderr, /without any API key/);
  });
});

describe("an API that takes certificates, and does without", () => {
  let node;
  before(async () => (node = await start({ ROOMCAST__API__TLS__CLIENT_CERTIFICATES: "optional", ROOMCAST__API__KEYS: KEY })));
  after(() => node?.stop());

  test("answers probes and metrics without one, and no call", async () => {
    for (const path of ["/livez", "/readyz", "/metrics", "/openapi.json"]) {
      assert.equal((await call(node, path)).status, 200, path);
    }
    const answer = await call(node, "/v1/nodes");
    assert.deepEqual([answer.status, JSON.parse(answer.text).code], [401, "unauthorized"]);
    assert.equal((await command(node, ["healthcheck"])).code, 0);
  });

  test("takes a certificate or a key, and believes no wrong key for a certificate", async () => {
    assert.equal((await call(node, "/v1/nodes", shown)).status, 200);
    const bearer = (key) => ({ headers: { authorization: `Bearer ${key}` } });
    assert.equal((await call(node, "/v1/nodes", bearer(KEY))).status, 200);
    assert.equal((await call(node, "/v1/nodes", { ...bearer("wrong"), ...shown })).status, 401);
    await assert.rejects(call(node, "/readyz", { cert: stranger.cert, key: stranger.key }));
  });
});
