// The programs under test. `REFERENCE=1` puts the Node reference in their place, to judge the tests themselves.

import { writeFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { Child, freePort, temporaryDirectory } from "./processes.js";

export const REFERENCE = process.env.REFERENCE === "1";

const referenceServer = fileURLToPath(new URL("../reference-server.js", import.meta.url));

function command(variable, referenceMode) {
  if (REFERENCE) return [process.execPath, [referenceServer, referenceMode]];
  const binary = process.env[variable];
  if (!binary) throw new Error(`${variable} is not set: run through tests/run, or with REFERENCE=1`);
  return [binary, []];
}

async function answers(url, status = 200) {
  const response = await fetch(url);
  await response.arrayBuffer();
  return response.status === status;
}

/** The server that embeds the library; its contract is in tests/README.md. */
export async function startTestServer(env = {}) {
  const port = await freePort();
  const [binary, args] = command("ROOMCAST_TESTSERVER_BIN", "testserver");
  const child = new Child(binary, args, { env: { PORT: String(port), ...env }, name: "testserver" });
  await child.ready(async () => (await fetch(`http://127.0.0.1:${port}/`)).status > 0);
  return { port, url: `http://127.0.0.1:${port}`, child, stop: () => child.stop() };
}

/**
 * One node of the gateway, ready to serve. `adapter` is `{kind, url}`; further settings go through `env`, or stand in a
 * `file`, or in `toml`, which is the text of one. `host` is another address of the loopback, for nodes with the same ports.
 * `ready(api port)` is asked instead of plain HTTP, where the API does not speak that.
 */
export async function startGateway({
  adapter = { kind: "memory" },
  env = {},
  file,
  toml,
  host = "127.0.0.1",
  port,
  apiPort,
  ready,
} = {}) {
  port ??= await freePort();
  apiPort ??= await freePort();
  const [binary, args] = command("ROOMCAST_BIN", "gateway");
  const settings = {
    ROOMCAST__PUBLIC__LISTEN: `${host}:${port}`,
    ROOMCAST__API__LISTEN: `${host}:${apiPort}`,
    ROOMCAST__ADAPTER__KIND: adapter.kind,
    // A node that a test stops has its clients still: only tests about that let them go in peace.
    ROOMCAST__DRAIN__DELAY: "0s",
    ROOMCAST__DRAIN__PERIOD: "0s",
    ROOMCAST__DRAIN__GRACE: "3s",
    ...(adapter.url ? { ROOMCAST__ADAPTER__URL: adapter.url } : {}),
    ...env,
  };
  if (toml !== undefined) writeFileSync((file = path.join(temporaryDirectory(), "roomcast.toml")), toml);
  const child = new Child(binary, file ? [...args, "--config", file] : args, { env: settings, name: "roomcast" });
  const api = `http://${host}:${apiPort}`;
  await child.ready(() => (ready ? ready(apiPort) : answers(`${api}/readyz`)));
  return { host, port, apiPort, url: `http://${host}:${port}`, api, child, stop: () => child.stop() };
}

/** Several nodes on one broker, started side by side. */
export function startNodes(count, options) {
  return Promise.all(Array.from({ length: count }, () => startGateway(options)));
}
