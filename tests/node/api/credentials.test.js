// Who may call: keys with limits and tokens made by a library that is not ours, also when they change while the node runs.

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { SignJWT, exportSPKI, generateKeyPair } from "jose";
import { until } from "../helpers/deadline.js";
import { temporaryDirectory } from "../helpers/processes.js";
import { startGateway } from "../helpers/servers.js";

const file = path.join(temporaryDirectory(), "roomcast.toml");
let node;
let keys;

const configuration = (shop) => `
[reload]
interval = "100ms"

[api.jwt]
public_key = """${keys.pem}"""
audience = "roomcast-api"

[[api.key]]
name = "shop"
secret = "${shop}"
scopes = ["emit"]
rooms = ["order:{id}"]

[[api.key]]
name = "slow"
secret = "a-slow-key-for-tests"
rate = 1
`;

async function emit(credential, to) {
  const response = await fetch(`${node.api}/v1/emit`, {
    method: "POST",
    headers: credential ? { authorization: `Bearer ${credential}` } : {},
    body: JSON.stringify({ event: "e", to }),
  });
  const { code } = await response.json();
  return { status: response.status, code, retry: response.headers.get("retry-after") };
}

const token = (claims, audience = "roomcast-api", key = keys.privateKey) =>
  new SignJWT(claims)
    .setProtectedHeader({ alg: "ES256" })
    .setSubject("billing")
    .setAudience(audience)
    .setIssuedAt()
    .setExpirationTime("5m")
    .sign(key);

before(async () => {
  const pair = await generateKeyPair("ES256", { extractable: true });
  keys = { ...pair, pem: await exportSPKI(pair.publicKey) };
  writeFileSync(file, configuration("the-first-key-of-shop"));
  node = await startGateway({ file });
});
after(() => node?.stop());

describe("credentials", () => {
  test("a key reaches what its patterns name", async () => {
    const key = "the-first-key-of-shop";
    assert.equal((await emit(key, { rooms: ["order:1"] })).status, 202);
    for (const to of ["all", { rooms: ["lobby"] }, { users: ["u7"] }]) {
      assert.deepEqual(await emit(key, to), { status: 403, code: "forbidden", retry: null });
    }
    assert.equal((await emit(undefined, "all")).code, "unauthorized");
  });

  test("too many calls are told when to come again", async () => {
    const answers = await Promise.all(Array.from({ length: 5 }, () => emit("a-slow-key-for-tests", "all")));
    const limited = answers.filter(({ status }) => status === 429);
    assert.ok(limited.length >= 3, JSON.stringify(answers));
    for (const { code, retry } of limited) assert.deepEqual([code, retry], ["rate_limited", "1"]);
  });

  test("a token may what its claims say", async () => {
    assert.equal((await emit(await token({ scope: "emit" }), "all")).status, 202);
    assert.equal((await emit(await token({ scope: "read" }), "all")).status, 403);
    const limited = await token({ scope: "emit", roomcast_api: { rooms: ["order:{id}"] } });
    assert.equal((await emit(limited, { rooms: ["order:7"] })).status, 202);
    assert.equal((await emit(limited, "all")).status, 403);
    assert.equal((await emit(await token({ scope: "emit" }, "shop"), "all")).status, 401);
    const other = await generateKeyPair("ES256");
    assert.equal((await emit(await token({ scope: "emit" }, "roomcast-api", other.privateKey), "all")).status, 401);
  });

  test("a key that is replaced in the file is replaced in the node", async () => {
    writeFileSync(file, configuration("the-second-key-of-shop"));
    const to = { rooms: ["order:1"] };
    await until(async () => (await emit("the-second-key-of-shop", to)).status === 202, "the new key");
    assert.equal((await emit("the-first-key-of-shop", to)).status, 401);
  });
});
