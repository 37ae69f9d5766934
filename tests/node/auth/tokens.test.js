// Who is let in: tokens of every algorithm, issuers with their rotations and absences, and where a token may stand.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { TRANSPORTS, connect, connected, io } from "../helpers/clients.js";
import { stopAll } from "../helpers/cluster.js";
import { until, within } from "../helpers/deadline.js";
import { Child, freePort } from "../helpers/processes.js";
import { startGateway } from "../helpers/servers.js";
import { Issuer, SECRET, refused, seconds, signer, withSecret } from "../helpers/tokens.js";

const stoppers = [];
after(() => stopAll(stoppers));

async function gateway(env) {
  const node = await startGateway({ env });
  stoppers.push(node.stop);
  return node;
}

async function comesIn(node, token, options = TRANSPORTS.websocket) {
  const socket = await connect(node.url, { ...options, auth: { token } });
  socket.disconnect();
}

async function isRefused(node, options, code, status = 401) {
  const { message, data } = await refused(node.url, options);
  assert.deepEqual(data, { code, status }, message);
  assert.ok(message.length > 10, message);
  return message;
}

describe("tokens of a shared secret", () => {
  let node, shared;
  before(async () => {
    node = await gateway({
      ...withSecret,
      ROOMCAST__AUTH__JWT__AUDIENCE: "shop",
      ROOMCAST__AUTH__JWT__ISSUER: "https://id.example",
      ROOMCAST__AUTH__JWT__LEEWAY: "2s",
    });
    shared = await signer("HS256");
  });
  const right = { aud: ["other", "shop"], iss: "https://id.example" };

  for (const [name, options] of Object.entries(TRANSPORTS)) {
    test(`${name}: a right token opens the door`, async () => comesIn(node, await shared.token("u", right), options));
  }

  test("without a token nobody comes in, by any transport", async () => {
    for (const options of Object.values(TRANSPORTS)) await isRefused(node, options, "token_missing");
    await isRefused(node, { auth: { token: null } }, "token_missing");
  });

  test("each fault has its refusal", async () => {
    const token = (claims, header) => shared.token("u", { ...right, ...claims }, header);
    const cases = [
      [await token({ exp: seconds(-10) }), "token_expired", /expired/],
      [await token({ nbf: seconds(60) }), "token_invalid", /not valid yet/],
      [await token({ aud: "bank" }), "token_invalid", /audience/],
      [await token({ iss: "https://evil.example" }), "token_invalid", /issuer/],
      [await token({ sub: undefined }), "token_invalid", /sub/],
      [await token({ exp: undefined }), "token_invalid", /exp/],
      [`${(await token()).slice(0, -4)}AAAA`, "token_invalid", /signature/i],
      ["nonsense", "token_invalid", /no JSON Web Token/],
    ];
    for (const [given, code, words] of cases) assert.match(await isRefused(node, { auth: { token: given } }, code), words);
  });

  test("refusals are counted by their code", async () => {
    const text = await (await fetch(`${node.api}/metrics`)).text();
    const count = (code) => Number(text.match(new RegExp(`roomcast_auth_refused_total\\{code="${code}"\\} (\\d+)`))[1]);
    assert.ok(count("token_missing") >= 4 && count("token_expired") === 1 && count("token_invalid") === 7, text);
  });

  test("neither query nor header are looked at unless it is configured", async () => {
    const token = await shared.token("u", right);
    await isRefused(node, { query: { token } }, "token_missing");
    await isRefused(node, { extraHeaders: { authorization: `Bearer ${token}` } }, "token_missing");
  });

  test("no part of a token is in the logs", async () => {
    assert.ok(!node.child.output.includes("eyJ"), node.child.output);
    assert.ok(!node.child.output.includes(SECRET));
  });
});

test("query and header, where they are configured", async () => {
  const node = await gateway({
    ...withSecret,
    ROOMCAST__AUTH__JWT__QUERY_PARAMETER: "access_token",
    ROOMCAST__AUTH__JWT__AUTHORIZATION_HEADER: "true",
  });
  const token = await (await signer("HS256")).token("u");
  for (const options of Object.values(TRANSPORTS)) {
    (await connect(node.url, { ...options, query: { access_token: token } })).disconnect();
    (await connect(node.url, { ...options, extraHeaders: { authorization: `Bearer ${token}` } })).disconnect();
  }
  // What is said in the payload counts.
  await isRefused(node, { auth: { token: "x" }, query: { access_token: token } }, "token_invalid");
});

test("where tokens are not required, only bad ones are refused", async () => {
  const node = await gateway({ ...withSecret, ROOMCAST__AUTH__JWT__REQUIRED: "false" });
  (await connect(node.url, TRANSPORTS.websocket)).disconnect();
  await comesIn(node, await (await signer("HS256")).token("u"));
  await isRefused(node, { auth: { token: "x" } }, "token_invalid");
});

describe("public keys", () => {
  const algorithms = ["RS256", "ES256", "EdDSA"];

  for (const algorithm of algorithms) {
    test(`${algorithm}: its key in PEM`, async () => {
      const [pair, other] = [await signer(algorithm), await signer(algorithm)];
      const node = await gateway({ ROOMCAST__AUTH__JWT__PUBLIC_KEY: pair.pem });
      await comesIn(node, await pair.token("u"));
      await isRefused(node, { auth: { token: await other.token("u") } }, "token_invalid");
      // The public key is known to everybody: as a secret it opens nothing.
      const { SignJWT } = await import("jose");
      const forged = await new SignJWT({ sub: "admin", exp: seconds(60) })
        .setProtectedHeader({ alg: "HS256" })
        .sign(new TextEncoder().encode(pair.pem));
      await isRefused(node, { auth: { token: forged } }, "token_invalid");
      const { UnsecuredJWT } = await import("jose");
      const unsigned = new UnsecuredJWT({ sub: "admin", exp: seconds(60) }).encode();
      await isRefused(node, { auth: { token: unsigned } }, "token_invalid");
    });
  }

  test("an issuer's keys: all algorithms, and a rotation", async () => {
    const pairs = await Promise.all(algorithms.map((algorithm) => signer(algorithm, `first-${algorithm}`)));
    const issuer = await Issuer.start(await freePort(), pairs);
    stoppers.push(() => issuer.stop());
    const node = await gateway({ ROOMCAST__AUTH__JWT__JWKS_URL: issuer.url, ROOMCAST__AUTH__JWT__JWKS_COOLDOWN: "50ms" });
    for (const pair of pairs) await comesIn(node, await pair.token("u"));
    const asked = issuer.asked;
    for (const pair of pairs) await comesIn(node, await pair.token("u"));
    assert.equal(issuer.asked, asked, "known keys are not asked for");

    const next = await signer("ES256", "second");
    issuer.signers = [next];
    // Not before the cooldown: the issuer may have been asked a moment ago.
    const token = await next.token("u");
    await until(() => comesIn(node, token).then(() => true, () => false), "a client with the next key");
    await isRefused(node, { auth: { token: await pairs[0].token("u") } }, "token_invalid");
  });

  test("an issuer that is away: a temporary error, then its keys, which are kept", async () => {
    const pair = await signer("EdDSA", "k");
    const port = await freePort();
    const url = `http://127.0.0.1:${port}/.well-known/jwks.json`;
    const node = await gateway({ ROOMCAST__AUTH__JWT__JWKS_URL: url, ROOMCAST__AUTH__JWT__JWKS_COOLDOWN: "100ms" });
    const token = await pair.token("u");
    await isRefused(node, { auth: { token } }, "keys_unavailable", 503);
    // A stock client that tries again comes in by itself once the issuer is there.
    const socket = io(node.url, { forceNew: true, transports: ["websocket"], auth: { token }, reconnectionDelay: 50 });
    const retry = () => setTimeout(() => socket.connect(), 50);
    socket.on("connect_error", retry);
    const issuer = await Issuer.start(port, [pair]);
    stoppers.push(() => issuer.stop());
    await until(() => socket.connected, "a connection once the issuer is there");
    socket.off("connect_error", retry);
    socket.disconnect();

    await issuer.stop();
    await comesIn(node, token);
    const unknown = await (await signer("EdDSA", "unknown")).token("u");
    // Not before the cooldown: then the issuer was asked a moment ago, and the key is none of its.
    const code = async () => (await refused(node.url, { auth: { token: unknown } })).data.code;
    await until(async () => (await code()) === "keys_unavailable", "a temporary error");
    await comesIn(node, token);
  });
});

test("a configuration with a key that is none does not start", async () => {
  const weak = [
    [{ ROOMCAST__AUTH__JWT__SECRET: "too short" }, /auth\.jwt\.secret.*32 bytes/],
    [{ ROOMCAST__AUTH__JWT__PUBLIC_KEY: "abc" }, /auth\.jwt\.public_key.*PEM/],
    [{ ROOMCAST__AUTH__JWT__PUBLIC_KEY_FILE: "/nowhere/key.pem" }, /auth\.jwt\.public_key_file.*\/nowhere\/key\.pem/],
  ];
  for (const [env, words] of weak) {
    const child = new Child(process.env.ROOMCAST_BIN, [], { env });
    assert.notEqual((await within(child.ended, "end")).code, 0, child.output);
    assert.match(child.output, words);
  }
});

test("without any key, clients are anonymous and tokens are not looked at", async () => {
  const node = await gateway({});
  const socket = await connect(node.url, { ...TRANSPORTS.websocket, auth: { token: "x" } });
  const answer = await socket.emitWithAck("auth:refresh", "x");
  assert.equal(answer.error.code, "not_found");
  await connected(socket);
  socket.disconnect();
});
