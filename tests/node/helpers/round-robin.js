// Load balancers that stick to nothing: each request goes to the next node. With configurations as short as they can be.

import { writeFileSync } from "node:fs";
import path from "node:path";
import { startHaproxy } from "./brokers.js";
import { Child, freePort, portOpen, program, temporaryDirectory } from "./processes.js";

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

async function startNginx(nodes) {
  const [port, directory] = [await freePort(), temporaryDirectory()];
  const file = path.join(directory, "nginx.conf");
  writeFileSync(file, nginx(port, nodes, directory));
  const command = await program("nginx", "nginx-light");
  const child = new Child(command, ["-e", "stderr", "-c", file], { cwd: directory, name: "nginx" });
  await child.ready(() => portOpen(port));
  return { port, url: `http://127.0.0.1:${port}`, stop: () => child.stop() };
}

const STARTERS = { haproxy: (nodes) => startHaproxy(nodes, { cookies: false }), nginx: startNginx };

/** The balancers by name. */
export const ROUND_ROBIN = Object.keys(STARTERS);

/** Starts one in front of the nodes. */
export const startRoundRobin = (kind, nodes) => STARTERS[kind](nodes);
