// TLS in the gateway: official clients over https and wss, certificates that are replaced under them, and peers that do
// not get as far as a request.

import assert from "node:assert/strict";
import { execFile, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { writeFileSync } from "node:fs";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { promisify } from "node:util";
import { Authority, Files } from "../helpers/certificates.js";
import { TRANSPORTS, ask, connect, gatewayAsk, join, record, transportOf } from "../helpers/clients.js";
import { Connection, HANDSHAKE, httpsRequest, requestText, tlsConnect } from "../helpers/connection.js";
import { until, within } from "../helpers/deadline.js";
import { metric } from "../helpers/fault-cluster.js";
import { temporaryDirectory } from "../helpers/processes.js";
import { startGateway } from "../helpers/servers.js";

const authority = new Authority();
const ca = authority.pem;
const refused = (node, reason) => metric(node, "listener_refused_total", { listener: "public", reason });

describe("the public listener over TLS", () => {
  let node, url, files;
  let pair = authority.issue();
  before(async () => {
    files = new Files(pair);
    const env = { ...files.env("PUBLIC"), ROOMCAST__RELOAD__INTERVAL: "50ms", ROOMCAST__COOKIE__ENABLED: "true" };
    node = await startGateway({ env });
    url = `https://127.0.0.1:${node.port}`;
  });
  // Not every polling session has a client that would end it.
  after(() => node?.child.stop("SIGKILL"));

  const open = (transport, options) => connect(url, { ...transport, ca, ...options });

  for (const [name, transport] of Object.entries(TRANSPORTS)) {
    test(`${name}: text and binary go both ways`, async () => {
      const [a, b] = await Promise.all([open(transport), open(transport)]);
      const [atA, atB] = [record(a), record(b)];
      await Promise.all([join(a, "room"), join(b, "room")]);
      await gatewayAsk(a, "room:emit", "room", "text", "ü");
      await gatewayAsk(a, "room:emit", "room", "binary", Buffer.from([0, 255]), { deep: [Buffer.from([7])] });
      await gatewayAsk(b, "room:emit", "room", "back", Buffer.alloc(0));
      await Promise.all([atA.atLeast(1), atB.atLeast(2)]);
      assert.deepEqual(atA, [["back", Buffer.alloc(0)]]);
      assert.deepEqual(atB, [["text", "ü"], ["binary", Buffer.from([0, 255]), { deep: [Buffer.from([7])] }]]);
      assert.equal(transportOf(a), name === "polling" ? "polling" : "websocket");
      a.disconnect();
      b.disconnect();
    });

    // Many records of TLS, more than the buffers of the system take at once.
    test(`${name}: what is large arrives whole`, async () => {
      const [a, b] = await Promise.all([open(transport), open(transport)]);
      const received = record(b);
      await Promise.all([join(a, "large"), join(b, "large")]);
      const payload = randomBytes(600_000);
      for (let i = 0; i < 5; i++) a.emit("room:emit", "large", "large", i, payload);
      await received.atLeast(5);
      assert.deepEqual(received.map(([, i]) => i), [0, 1, 2, 3, 4]);
      assert.ok(received.every(([, , bytes]) => payload.equals(bytes)));
      a.disconnect();
      b.disconnect();
    });
  }

  test("`roomcast bench` puts load on it, believing the certificate of the configuration", async () => {
    const env = { ...process.env, ...files.env("PUBLIC"), ROOMCAST__PUBLIC__LISTEN: `127.0.0.1:${node.port}` };
    const args = ["bench", "--clients", "4", "--rooms", "2", "--rate", "50", "--duration", "200ms", "--json"];
    const { stdout } = await within(promisify(execFile)(process.env.ROOMCAST_BIN, args, { env }), "end of the load");
    const report = JSON.parse(stdout);
    assert.ok(report.expected > 0);
    assert.equal(report.received, report.expected);
  });

  test("a cookie that was set over TLS comes back only over TLS", async () => {
    const { headers } = await httpsRequest(url + HANDSHAKE, { ca });
    assert.match(headers["set-cookie"][0], /; Secure/);
  });

  test("HTTP/1.1 is agreed on, and nothing else", async () => {
    const socket = await tlsConnect(node.port, { ca, ALPNProtocols: ["h2", "http/1.1"] });
    assert.equal(socket.alpnProtocol, "http/1.1");
    socket.destroy();
    await assert.rejects(tlsConnect(node.port, { ca, ALPNProtocols: ["h2"] }));
    await until(async () => (await refused(node, "tls_incompatible")) === 1, "count");
  });

  test("what is older than TLS 1.2 is not spoken", async () => {
    const before = await refused(node, "tls_incompatible");
    const old = { minVersion: "TLSv1", maxVersion: "TLSv1.1", ciphers: "DEFAULT@SECLEVEL=0" };
    await assert.rejects(tlsConnect(node.port, { ca, ...old }));
    await until(async () => (await refused(node, "tls_incompatible")) === before + 1, "count");
    for (const version of ["TLSv1.2", "TLSv1.3"]) {
      const socket = await tlsConnect(node.port, { ca, minVersion: version, maxVersion: version });
      assert.equal(socket.getProtocol(), version);
      socket.destroy();
    }
  });

  test("plain HTTP gets no answer, and who does not believe the certificate no connection", async () => {
    const connection = new Connection(node.port);
    connection.socket.write(requestText());
    assert.doesNotMatch(await connection.end(), /HTTP/);
    await until(async () => (await refused(node, "tls_not_spoken")) === 1, "count");
    await assert.rejects(tlsConnect(node.port, { ca: new Authority("Somebody else").pem }), /certificate/);
    (await open(TRANSPORTS.websocket)).disconnect();
  });

  test("a certificate is replaced under clients that stay connected", async () => {
    const early = await open(TRANSPORTS.websocket);
    const serial = async () => (await httpsRequest(url + HANDSHAKE, { ca })).serialNumber;
    const [before, expiry] = [await serial(), await metric(node, "tls_certificate_expiry_seconds", { listener: "public" })];
    pair = authority.issue({ days: 60 });
    files.put(pair);
    await until(async () => (await serial()) !== before, "new certificate");
    assert.ok((await metric(node, "tls_certificate_expiry_seconds", { listener: "public" })) > expiry);
    // Certificate and key are two files: between them there may have been a look that was refused.
    assert.equal(await metric(node, "tls_reloads_total", { result: "taken" }), 1);
    assert.deepEqual(await ask(early, "room:join", "x"), [{ ok: true }]);
    early.disconnect();
  });

  test("a pair that cannot be used changes nothing, is told once and counted", async () => {
    const early = await open(TRANSPORTS.upgrade);
    const [before, taken] = [
      await metric(node, "tls_reloads_total", { result: "refused" }),
      await metric(node, "tls_reloads_total", { result: "taken" }),
    ];
    files.put({ ...pair, key: "no key" });
    const count = async () => (await metric(node, "tls_reloads_total", { result: "refused" })) - before;
    await until(async () => (await count()) === 1, "refusal");
    assert.match(node.child.output, /tls_malformed.*tls\.key/);
    // SIGHUP has it looked at: the content is the same, and nothing is said again.
    node.child.kill("SIGHUP");
    await until(() => node.child.output.includes("SIGHUP"), "look that was asked for");
    assert.equal(await count(), 1);
    (await open(TRANSPORTS.upgrade)).disconnect();
    assert.deepEqual(await ask(early, "room:join", "x"), [{ ok: true }]);
    early.disconnect();

    files.put(authority.issue());
    await until(async () => (await metric(node, "tls_reloads_total", { result: "taken" })) === taken + 1, "good pair");
  });
});

test("a handshake that stalls is ended, and holds up nobody", async () => {
  const files = new Files(authority.issue());
  const env = { ...files.env("PUBLIC"), ROOMCAST__PUBLIC__TLS__HANDSHAKE_TIMEOUT: "3s" };
  const node = await startGateway({ env });
  try {
    const stalled = Array.from({ length: 20 }, () => new Connection(node.port));
    await Promise.all(stalled.map((connection) => connection.opened));
    // The beginning of a ClientHello, and no more.
    stalled.slice(10).forEach((connection) => connection.socket.write(Buffer.from([22, 3, 1, 2, 0, 1])));
    const socket = await connect(`https://127.0.0.1:${node.port}`, { ...TRANSPORTS.upgrade, ca });
    await Promise.all(stalled.map((connection) => connection.end()));
    await until(async () => (await refused(node, "tls_timeout")) === 20, "count");
    assert.deepEqual(await ask(socket, "room:join", "x"), [{ ok: true }]);
    socket.disconnect();
  } finally {
    await node.stop();
  }
});

test("SIGHUP has the files looked at where time does not, and a version can be too old", async () => {
  const files = new Files(authority.issue());
  const env = { ...files.env("PUBLIC"), ROOMCAST__RELOAD__INTERVAL: "0s", ROOMCAST__PUBLIC__TLS__MIN_VERSION: "1.3" };
  const node = await startGateway({ env });
  try {
    const serial = async () => (await tlsConnect(node.port, { ca })).getPeerCertificate().serialNumber;
    const before = await serial();
    files.put(authority.issue());
    node.child.kill("SIGHUP");
    await until(async () => (await serial()) !== before, "new certificate");
    assert.equal(await metric(node, "tls_reloads_total", { result: "taken" }), 1);
    await assert.rejects(tlsConnect(node.port, { ca, maxVersion: "TLSv1.2" }));
    await until(async () => (await refused(node, "tls_incompatible")) === 1, "count");
  } finally {
    await node.child.stop("SIGKILL");
  }
});

describe("files that cannot be used", () => {
  const directory = temporaryDirectory();
  const pair = authority.issue();
  const garbage = path.join(directory, "garbage.pem");
  writeFileSync(garbage, "garbage");
  const other = authority.issue();

  for (const [name, cert, key, named] of [
    ["a file that is not there", path.join(directory, "nowhere.pem"), pair.keyFile, /nowhere\.pem/],
    ["no certificate", garbage, pair.keyFile, /garbage\.pem/],
    ["the key of another certificate", pair.certFile, other.keyFile, /is not the key of the certificate in/],
  ]) {
    test(`${name}: neither starts nor passes the check, and is named`, () => {
      const env = {
        ...process.env,
        ROOMCAST__PUBLIC__LISTEN: "127.0.0.1:0",
        ROOMCAST__API__LISTEN: "127.0.0.1:0",
        ROOMCAST__PUBLIC__TLS__CERT_FILE: cert,
        ROOMCAST__PUBLIC__TLS__KEY_FILE: key,
      };
      for (const command of ["serve", "check"]) {
        const { status, stderr } = spawnSync(process.env.ROOMCAST_BIN, [command], { env, cwd: directory, encoding: "utf8", timeout: 20_000 });
        assert.notEqual(status, 0);
        assert.notEqual(status, null, `${command} has ended by itself`);
        assert.match(stderr, /public\.tls/);
        assert.match(stderr, named);
      }
    });
  }
});
