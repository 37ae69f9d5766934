// Redis, NATS and HAProxy for tests: each on a free loopback port, in a directory of its own, ended by pid.

import { writeFileSync } from "node:fs";
import path from "node:path";
import { Child, freePort, portOpen, program, temporaryDirectory } from "./processes.js";

const given = { redis: "ROOMCAST_TEST_REDIS_URL", nats: "ROOMCAST_TEST_NATS_URL" };

/** A broker of the kind: the one that the environment names, else an own process. */
export async function startBroker(kind) {
  const url = process.env[given[kind]];
  if (url) return { kind, url, stop: async () => {} };
  return startOwnBroker(kind);
}

/** A broker that the test may kill, hang, and start again on the same port. */
export async function startOwnBroker(kind) {
  const port = await freePort();
  const url = `${kind}://127.0.0.1:${port}`;
  return { kind, url, ...(await startServer(kind, port)) };
}

/** One server process with further arguments, under the control of the test. */
export async function startServer(kind, port, args = []) {
  // One directory for all lives: a server of a cluster has its name in it.
  const all = [...settings[kind](port), ...args].map(String);
  const launch = async () => new Child(await program(`${kind}-server`), all).ready(() => portOpen(port));
  let child = await launch();
  return {
    port,
    kill: () => child.stop("SIGKILL"),
    restart: async () => (child = await launch()),
    hang: () => child.kill("SIGSTOP"),
    thaw: () => child.kill("SIGCONT"),
    stop: () => child.stop(),
  };
}

const settings = {
  redis: (port) => {
    const directory = temporaryDirectory();
    return ["--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", directory];
  },
  nats: (port) => ["-a", "127.0.0.1", "-p", port],
};

/**
 * HAProxy in front of `nodes`, which asks them whether they are ready. Each client is kept on its node by a cookie, unless
 * there are to be none. `server` and `backend` are further settings.
 */
export async function startHaproxy(
  nodes,
  { balance = "roundrobin", cookies = true, server = "", backend = "" } = {},
) {
  const [port, statsPort] = [await freePort(), await freePort()];
  const configuration = path.join(temporaryDirectory(), "haproxy.cfg");
  const servers = nodes.map(
    ({ port, apiPort }, index) =>
      `  server node${index} 127.0.0.1:${port} cookie node${index} check port ${apiPort} inter 200ms rise 1 fall 2 ${server}`,
  );
  writeFileSync(
    configuration,
    `global
  maxconn 2000
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout tunnel 1h
frontend stats
  bind 127.0.0.1:${statsPort}
  stats enable
  stats uri /
frontend public
  bind 127.0.0.1:${port}
  default_backend roomcast
backend roomcast
  balance ${balance}
  option httpchk GET /readyz
  ${cookies ? "cookie io_node insert indirect nocache httponly" : ""}
  ${backend}
${servers.join("\n")}
`,
  );
  const child = new Child(await program("haproxy"), ["-db", "-f", configuration]);
  await child.ready(async () => {
    // A server is up only after its first check: all of them have to have answered before stickiness means anything.
    const table = await (await fetch(`http://127.0.0.1:${statsPort}/;csv`)).text();
    return table.split("\n").filter((line) => /^roomcast,node\d+,.*,UP,/.test(line)).length === nodes.length;
  });
  return { port, url: `http://127.0.0.1:${port}`, stop: () => child.stop() };
}
