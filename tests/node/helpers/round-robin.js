// Load balancers that stick to nothing: each request goes to the next node. With configurations as short as they can be.

import { writeFileSync } from "node:fs";
import path from "node:path";
import { Child, freePort, portOpen, program, temporaryDirectory } from "./processes.js";

const haproxy = (port, nodes) => `
global
  maxconn 2000
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout tunnel 1h
frontend public
  bind 127.0.0.1:${port}
  default_backend roomcast
backend roomcast
  balance roundrobin
${nodes.map((node, index) => `  server node${index} 127.0.0.1:${node.port} check inter 200ms rise 1 fall 2`).join("\n")}
`;

const nginx = (port, nodes, directory) => `
daemon off;
pid ${directory}/nginx.pid;
worker_processes 1;
events { worker_connections 2000; }
http {
  access_log off;
${["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((name) => `  ${name}_temp_path ${directory}/${name};`).join("\n")}
  upstream roomcast {
${nodes.map((node) => `    server 127.0.0.1:${node.port};`).join("\n")}
  }
  map $http_upgrade $connection_upgrade { default upgrade; '' ''; }
  server {
    listen 127.0.0.1:${port};
    client_max_body_size 0;
    location / {
      proxy_pass http://roomcast;
      proxy_http_version 1.1;
      proxy_set_header Host $host;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
      proxy_buffering off;
      proxy_request_buffering off;
      proxy_read_timeout 60s;
    }
  }
}
`;

const BALANCERS = {
  haproxy: { text: haproxy, command: async (file) => [await program("haproxy"), ["-db", "-f", file]] },
  nginx: {
    text: nginx,
    command: async (file) => [await program("nginx", "nginx-light"), ["-e", "stderr", "-c", file]],
  },
};

/** The balancers by name. */
export const ROUND_ROBIN = Object.keys(BALANCERS);

/** Starts one in front of the nodes. */
export async function startRoundRobin(kind, nodes) {
  const [port, directory] = [await freePort(), temporaryDirectory()];
  const file = path.join(directory, `${kind}.conf`);
  writeFileSync(file, BALANCERS[kind].text(port, nodes, directory));
  const child = new Child(...(await BALANCERS[kind].command(file)), { cwd: directory, name: kind });
  await child.ready(async () => {
    if (!(await portOpen(port))) return false;
    // HAProxy takes a server into the round after its first check.
    for (let round = 0; round < nodes.length * 3; round++) {
      const response = await fetch(`http://127.0.0.1:${port}/socket.io/socket.io.js`, { method: "HEAD" });
      if (response.status >= 500) return false;
    }
    return true;
  });
  return { kind, port, url: `http://127.0.0.1:${port}`, stop: () => child.stop() };
}
