// Keys, limits and event names that change while clients are connected; and tokens of the gateway's own command.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { renameSync, writeFileSync } from "node:fs";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { TRANSPORTS, ask, connect } from "../helpers/clients.js";
import { until } from "../helpers/deadline.js";
import { temporaryDirectory } from "../helpers/processes.js";
import { startGateway } from "../helpers/servers.js";
import { SECRET, refused, signer, withSecret } from "../helpers/tokens.js";

describe("a configuration that changes", () => {
  const file = path.join(temporaryDirectory(), "roomcast.toml");
  let node;

  function write(toml) {
    writeFileSync(`${file}.new`, toml);
    renameSync(`${file}.new`, file);
  }
  const code = async (token) => (await refused(node.url, { auth: { token } })).data.code;
  async function comesIn(token) {
    const socket = await connect(node.url, { ...TRANSPORTS.websocket, auth: { token } });
    return socket;
  }

  before(async () => {
    write("");
    node = await startGateway({ file, env: { ROOMCAST__RELOAD__INTERVAL: "50ms" } });
  });
  after(() => node?.stop());

  test("closes the door to those without a token, and lets stay who is in", async () => {
    const early = await connect(node.url, TRANSPORTS.websocket);
    write(`[auth.jwt]\nsecret = "${SECRET}"`);
    await until(async () => (await code(undefined)) === "token_missing", "a closed door");
    assert.deepEqual(await ask(early, "room:join", "x"), [{ ok: true }]);
    early.disconnect();
  });

  test("changes keys: the old ones open no door, and sessions go on", async () => {
    const [shared, pair] = [await signer("HS256"), await signer("ES256")];
    const token = await shared.token("u");
    const session = await comesIn(token);
    write(`[auth.jwt]\npublic_key = """${pair.pem}"""`);
    await until(async () => (await code(token)) === "token_invalid", "another key");
    // The session is extended by the new key only.
    assert.equal((await ask(session, "auth:refresh", token))[0].error.code, "token_invalid");
    assert.equal((await ask(session, "auth:refresh", await pair.token("u")))[0].ok, true);
    session.disconnect();

    write(`[auth.jwt]\nsecret = "too short"`);
    await until(() => /auth\.jwt\.secret.*32 bytes/.test(node.child.output), "an error that names the key");
    (await comesIn(await pair.token("u"))).disconnect();
  });

  test("changes limits for who is connected", async () => {
    write("");
    const socket = await until(() => connect(node.url, TRANSPORTS.websocket), "an open door");
    write("[limits]\nevents_per_second = 1\nevents_burst = 1\nconnections_per_ip = 1");
    await until(async () => (await ask(socket, "room:join", "x"))[0].error?.code === "rate_limited", "a limit of events");
    // The connection that was there before is not counted.
    const second = await connect(node.url, TRANSPORTS.websocket);
    await assert.rejects(connect(node.url, TRANSPORTS.websocket));
    write("");
    await until(() => connect(node.url, TRANSPORTS.websocket).then((third) => third.disconnect() ?? true), "no limit");
    socket.disconnect();
    second.disconnect();
  });
});

test("what `roomcast token make` makes is taken", async () => {
  const node = await startGateway({ env: withSecret });
  try {
    const args = ["token", "make", "--sub", "u7", "--secret", SECRET, "--claim", 'roomcast={"rooms":["lobby"]}'];
    const token = execFileSync(process.env.ROOMCAST_BIN, args, { encoding: "utf8" }).trim();
    (await connect(node.url, { ...TRANSPORTS.websocket, auth: { token } })).disconnect();
  } finally {
    await node.stop();
  }
});
