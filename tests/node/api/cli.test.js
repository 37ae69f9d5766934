// The commands for people, as a shell runs them.

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { after, before, describe, test } from "node:test";
import { connect, join, record } from "../helpers/clients.js";
import { until } from "../helpers/deadline.js";
import { Child } from "../helpers/processes.js";
import { REFERENCE, startGateway } from "../helpers/servers.js";

const KEY = "0123456789abcdef-key";

describe("the command line", { skip: REFERENCE }, () => {
  let gateway, socket;

  before(async () => {
    gateway = await startGateway({ env: { ROOMCAST__API__KEYS: KEY } });
    socket = await connect(gateway.url);
    await join(socket, "lobby");
  });
  after(async () => {
    socket?.disconnect();
    await gateway?.stop();
  });

  function start(args, env = {}) {
    return new Child(process.env.ROOMCAST_BIN, args, { env: { ROOMCAST_URL: gateway.api, ROOMCAST_KEY: KEY, ...env } });
  }

  async function run(args, env) {
    const child = start(args, env);
    const { code } = await child.ended;
    return { code, text: child.output.trim() };
  }

  test("emit reaches clients, with arguments as JSON or text", async () => {
    const events = record(socket, "greeting");
    const { code, text } = await run(["emit", "greeting", "1", '{"a":[2]}', "plain text", "--room", "lobby"]);
    assert.equal(code, 0, text);
    assert.match(text, /^emitted as \S+$/);
    await events.atLeast(1);
    assert.deepEqual(events, [["greeting", 1, { a: [2] }, "plain text"]]);
  });

  test("emit reaches nobody by mistake, and says why it was refused", async () => {
    const nobody = await run(["emit", "greeting"]);
    assert.equal(nobody.code, 1);
    assert.match(nobody.text, /--room, --user or --socket/);
    const stranger = await run(["emit", "greeting", "--all"], { ROOMCAST_KEY: "0123456789abcdef-bad" });
    assert.equal(stranger.code, 1);
    assert.match(stranger.text, /401 unauthorized/);
    const away = await run(["nodes", "--url", "http://127.0.0.1:1"]);
    assert.equal(away.code, 1);
    assert.match(away.text, /127\.0\.0\.1:1.*refused/);
  });

  test("rooms and nodes are tables for people, and JSON with --json", async () => {
    const rooms = await run(["rooms"]);
    assert.match(rooms.text, /^room +sockets\n(.*\n)?lobby +1/);
    const inRoom = await run(["rooms", "lobby", "--json"]);
    assert.deepEqual(JSON.parse(inRoom.text).sockets.map(({ id }) => id), [socket.id]);
    const nodes = await run(["nodes"]);
    assert.match(nodes.text, /^node +state +connections +sockets +rooms/);
    assert.equal(JSON.parse((await run(["nodes", "--json"])).text).nodes.length, 1);
  });

  test("tail shows what goes through, without arguments unless they are asked for", async () => {
    const plain = start(["tail", "--event", "seen.*", "--json"]);
    const whole = start(["tail", "--room", "lob*", "--payload"]);
    const emit = (event) => run(["emit", event, '"secret"', "--room", "lobby"]);
    // A look begins when the node has it: until then nothing is seen.
    await until(async () => {
      await emit("seen.it");
      return plain.output.includes("seen.it") && whole.output.includes("seen.it");
    }, "lines");
    await emit("other");
    await until(() => whole.output.includes("other"), "another line");
    const line = JSON.parse(plain.output.split("\n")[0]);
    assert.deepEqual([line.kind, line.event, line.to], ["emit", "seen.it", ["lobby"]]);
    assert.doesNotMatch(plain.output, /secret|other/);
    assert.match(whole.output, /-> lobby .*\["secret"\]/);
    const clients = start(["tail", "--event", "room:*", "--payload"]);
    await until(async () => {
      await join(socket, "seen");
      return clients.output.includes(`<- ${socket.id}`);
    }, "event of a client");
    assert.match(clients.output, /room:join .*\["seen"\]/);
    await Promise.all([plain.stop(), whole.stop(), clients.stop()]);
  });

  test("a token that was made is one to others too", async () => {
    const { text: token } = await run(["token", "make", "--sub", "u7", "--claim", "admin=true", "--secret", "k".repeat(32)]);
    const [header, claims, signature] = token.split(".");
    const expected = createHmac("sha256", "k".repeat(32)).update(`${header}.${claims}`).digest("base64url");
    assert.equal(signature, expected);
    const { sub, admin, exp, iat } = JSON.parse(Buffer.from(claims, "base64url"));
    assert.deepEqual([sub, admin, exp - iat], ["u7", true, 3600]);
    assert.match((await run(["token", "inspect", token])).text, /sub +"u7"/);
  });

  test("the default configuration is one, and the schema knows its keys", async () => {
    assert.match(await runWhole(["default-config"]), /^\[public\]$/m);
    const schema = JSON.parse((await runWhole(["schema"])));
    assert.equal(schema.properties.public.properties.listen.type, "string");
    assert.match((await runWhole(["completions", "bash"])), /roomcast/);
  });

  test("bench loses nothing of a small load", async () => {
    const load = ["--clients", "20", "--rooms", "3", "--rate", "200", "--duration", "1s"];
    const { code, text } = await run(["bench", "--target", gateway.url, ...load, "--json"]);
    assert.equal(code, 0, text);
    const report = JSON.parse(text);
    assert.ok(report.expected > 500, text);
    assert.equal(report.received, report.expected);
    assert.ok(report.latency_ms.p50 > 0 && report.latency_ms.p50 <= report.latency_ms.max, text);
  });

  /** A child keeps the end of its output only. */
  async function runWhole(args) {
    const { execFile } = await import("node:child_process");
    return new Promise((resolve, reject) =>
      execFile(process.env.ROOMCAST_BIN, args, { maxBuffer: 1 << 24 }, (error, stdout) => (error ? reject(error) : resolve(stdout))),
    );
  }
});
