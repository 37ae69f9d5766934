// Settings that change while the gateway runs.

import assert from "node:assert/strict";
import { renameSync, writeFileSync } from "node:fs";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { ask, connect } from "../helpers/clients.js";
import { until } from "../helpers/deadline.js";
import { metric } from "../helpers/fault-cluster.js";
import { temporaryDirectory } from "../helpers/processes.js";
import { REFERENCE, startGateway } from "../helpers/servers.js";

const rules = (join) => `
[[namespace]]
name = "/"
[[namespace.room]]
match = "*"
join = "${join}"
`;

describe("a configuration that changes", { skip: REFERENCE }, () => {
  const file = path.join(temporaryDirectory(), "roomcast.toml");
  let gateway, socket;

  /** As an editor or a ConfigMap does it: another file takes the name. */
  function write(text) {
    writeFileSync(`${file}.new`, text);
    renameSync(`${file}.new`, file);
  }

  const joined = async () => (await ask(socket, "room:join", "lobby"))[0].ok === true;
  const count = (result) => metric(gateway, "config_reloads_total", { result });

  before(async () => {
    write(rules("open"));
    gateway = await startGateway({ file, env: { ROOMCAST__RELOAD__INTERVAL: "100ms" } });
    socket = await connect(gateway.url);
  });
  after(async () => {
    socket?.disconnect();
    await gateway?.stop();
  });

  test("holds for clients that are connected", async () => {
    assert.equal(await joined(), true);
    write(rules("never"));
    await until(async () => !(await joined()), "rule that closes the room");
    assert.equal(await count("taken"), 1);
    write(rules("open"));
    await until(joined, "rule that opens it again");
    assert.equal(socket.connected, true);
  });

  test("changes nothing when it has a fault, and says which", async () => {
    const refused = await count("refused");
    write(rules("sometimes"));
    await until(async () => (await count("refused")) === refused + 1, "refusal");
    assert.match(gateway.child.output, /namespace\.room\.join.*sometimes/);
    assert.equal(await joined(), true);
    // The same fault is not told again and again, until it is asked for.
    gateway.child.kill("SIGHUP");
    await until(async () => (await count("refused")) === refused + 2, "refusal that was asked for");
  });

  test("gives a namespace that was not there", async () => {
    write(`${rules("open")}\n[[namespace]]\nname = "/late"\n`);
    const late = await until(
      () => connect(`${gateway.url}/late`, { reconnection: false }).catch(() => false),
      "new namespace",
    );
    assert.equal((await ask(late, "room:join", "x"))[0].ok, true);
    late.disconnect();
  });

  test("tells what needs a restart", async () => {
    write(`[engine]\nmax_payload = 4242\n${rules("never")}`);
    await until(() => /a restart is needed.*engine\.max_payload/.test(gateway.child.output), "warning");
    assert.equal(await joined(), false, "the rest holds");
  });

  test("changes the level of the logs", async () => {
    const told = () => gateway.child.output.split("the configuration has been taken").length;
    write(`[log]\nlevel = "error"\n${rules("open")}`);
    await until(joined, "open room");
    const [before, taken] = [told(), await count("taken")];
    write(`[log]\nlevel = "error"\n${rules("never")}`);
    await until(async () => !(await joined()), "closed room");
    assert.equal(await count("taken"), taken + 1);
    assert.equal(told(), before, "nothing below an error is told");
    write(rules("open"));
    await until(joined, "open room");
    write(rules("never"));
    await until(() => told() > before, "information again");
  });
});
