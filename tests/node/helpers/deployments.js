// Brokers of several processes, as they are run in production: Sentinel, Redis Cluster, a NATS cluster. Beside the single
// servers of brokers.js, all behind the one face that the fault tests use:
//
//   adapter    {kind, url} for a gateway node
//   through    the adapter of a node that goes through a proxy, {port} of which is given (single servers only)
//   servers    the processes, each with kill, restart, hang, thaw
//   primary    a function: the server that one must kill to hurt most, at this moment
//   publish    puts payloads on a subject of the cluster, past every node
//   stop       ends everything

import { writeFileSync } from "node:fs";
import path from "node:path";
import Redis from "ioredis";
import { startOwnBroker, startServer } from "./brokers.js";
import { natsPublish, redisChannel } from "./bus.js";
import { until } from "./deadline.js";
import { Child, freePort, portOpen, program, temporaryDirectory } from "./processes.js";
import { startProxy } from "./proxy.js";

/** `proxied` puts a proxy before each server of a NATS cluster; it is the server's `proxy`. */
export const startDeployment = (kind, options = {}) => starters[kind](options);

const starters = {
  redis: async () => {
    const server = await startOwnBroker("redis");
    return {
      ...single("redis", server),
      publish: (subject, payloads) => redisPublish(server.port, subject, payloads),
      killSubscriptions: () => redisCommand(server.port, "CLIENT", "KILL", "TYPE", "pubsub"),
    };
  },
  nats: async () => {
    const server = await startOwnBroker("nats");
    return { ...single("nats", server), publish: (subject, payloads) => natsPublish(server.port, subject, payloads) };
  },
  "redis-sentinel": startSentinel,
  "redis-cluster": startRedisCluster,
  "nats-cluster": startNatsCluster,
};

const single = (kind, server) => ({
  kind,
  adapter: { kind, url: server.url },
  through: (proxy) => ({ kind, url: `${kind}://127.0.0.1:${proxy.port}` }),
  servers: [server],
  primary: async () => server,
  stop: server.stop,
});

/** One command on a connection of its own. */
export const redisCommand = (port, ...command) => withRedis(port, (client) => client.callBuffer(...command));

const redisPublish = (port, subject, payloads) =>
  withRedis(port, (client) => Promise.all(payloads.map((payload) => client.publish(redisChannel(subject), payload))));

async function withRedis(port, act) {
  const client = new Redis({ port, host: "127.0.0.1", lazyConnect: true, retryStrategy: () => null });
  client.on("error", () => {});
  try {
    await client.connect();
    return await act(client);
  } finally {
    client.disconnect();
  }
}

const stopServers = (servers) => async () => {
  await Promise.all(servers.map((server) => server.stop()));
};

const ports = (count) => Promise.all(Array.from({ length: count }, freePort));

/** A master, a replica and three sentinels that agree by two. */
async function startSentinel() {
  const [first, second, ...sentinelPorts] = await ports(5);
  const quick = ["--repl-diskless-sync-delay", 0];
  const servers = [await startServer("redis", first, quick)];
  servers.push(await startServer("redis", second, [...quick, "--replicaof", "127.0.0.1", first]));
  const sentinels = await Promise.all(sentinelPorts.map((port) => launchSentinel(port, first)));
  const state = async (port) => {
    const pairs = await redisCommand(port, "SENTINEL", "MASTER", "roomcast");
    const texts = pairs.map(String);
    return Object.fromEntries(texts.flatMap((text, at) => (at % 2 ? [] : [[text, texts[at + 1]]])));
  };
  for (const port of sentinelPorts) {
    await until(async () => {
      const { "num-slaves": replicas, "num-other-sentinels": others, flags } = await state(port);
      return replicas === "1" && others === "2" && flags === "master";
    }, "sentinels that know each other and the replica");
  }
  const addresses = sentinelPorts.map((port) => `127.0.0.1:${port}`).join(",");
  const primary = async () => {
    const { port } = await state(sentinelPorts[0]);
    return servers.find((server) => String(server.port) === port);
  };
  return {
    kind: "redis-sentinel",
    adapter: { kind: "redis", url: `redis-sentinel://${addresses}?sentinelServiceName=roomcast` },
    servers,
    primary,
    publish: async (subject, payloads) => redisPublish((await primary()).port, subject, payloads),
    stop: async () => {
      await stopServers(sentinels)();
      await stopServers(servers)();
    },
  };
}

async function launchSentinel(port, master) {
  const directory = temporaryDirectory();
  const file = path.join(directory, "sentinel.conf");
  const lines = [
    `port ${port}`,
    "bind 127.0.0.1",
    `dir ${directory}`,
    `sentinel monitor roomcast 127.0.0.1 ${master} 2`,
    "sentinel down-after-milliseconds roomcast 1000",
    "sentinel failover-timeout roomcast 3000",
  ];
  writeFileSync(file, `${lines.join("\n")}\n`);
  const child = new Child(await program("redis-server"), [file, "--sentinel"], { name: "sentinel" });
  return child.ready(() => portOpen(port));
}

/** Three masters and three replicas. */
async function startRedisCluster() {
  const six = await clusterPorts(6);
  const settings = ["--cluster-enabled", "yes", "--cluster-node-timeout", 1000, "--repl-diskless-sync-delay", 0];
  const servers = await Promise.all(six.map((port) => startServer("redis", port, settings)));
  const addresses = six.map((port) => `127.0.0.1:${port}`);
  const args = ["--cluster", "create", ...addresses, "--cluster-replicas", "1", "--cluster-yes"];
  const create = new Child(await program("redis-cli", "redis-tools"), args);
  const { code } = await create.ended;
  if (code !== 0) throw new Error(`redis-cli --cluster create: ${create.output}`);
  for (const port of six) {
    await until(async () => {
      const info = String(await redisCommand(port, "CLUSTER", "INFO"));
      const nodes = String(await redisCommand(port, "CLUSTER", "NODES"));
      return info.includes("cluster_state:ok") && (nodes.match(/\bslave\b/g) ?? []).length === 3;
    }, "a Redis Cluster that is well");
  }
  const masters = async () => {
    for (const port of six) {
      const nodes = await redisCommand(port, "CLUSTER", "NODES").catch(() => undefined);
      if (!nodes) continue;
      const lines = String(nodes).split("\n").filter((line) => /master/.test(line) && !/fail/.test(line));
      return lines.map((line) => servers.find((server) => line.includes(`:${server.port}@`)));
    }
    throw new Error("no server of the cluster answers");
  };
  return {
    kind: "redis-cluster",
    adapter: { kind: "redis", url: `redis-cluster://${addresses.join(",")}` },
    servers,
    primary: async () => (await masters())[0],
    publish: async (subject, payloads) => {
      const channel = redisChannel(subject);
      const cluster = new Redis.Cluster(addresses.map((address) => ({ host: "127.0.0.1", port: Number(address.split(":")[1]) })));
      try {
        for (const payload of payloads) {
          await cluster.spublish(channel, payload);
          await cluster.publish(channel, payload);
        }
      } finally {
        cluster.disconnect();
      }
    },
    stop: stopServers(servers),
  };
}

/** Ports whose cluster bus, 10000 above, is a valid port too. */
async function clusterPorts(count) {
  const found = new Set();
  while (found.size < count) {
    const port = await freePort();
    if (port < 22_000) found.add(port);
  }
  return [...found];
}

/** Three NATS servers with a route from each to each. */
async function startNatsCluster({ proxied }) {
  const [clients, routes, monitors] = [await ports(3), await ports(3), await ports(3)];
  const proxies = proxied ? await Promise.all(clients.map((port) => startProxy(port))) : [];
  const all = routes.map((port) => `nats://127.0.0.1:${port}`);
  // What clients are told to connect to.
  const open = clients.map((port, at) => proxies[at]?.port ?? port);
  const start = async (port, at) => {
    const cluster = ["-cluster_name", "roomcast", "-cluster", all[at], "-routes", all.join(","), "-m", monitors[at]];
    const server = await startServer("nats", port, [...cluster, "-client_advertise", `127.0.0.1:${open[at]}`]);
    return { ...server, proxy: proxies[at] };
  };
  const servers = await Promise.all(clients.map(start));
  for (const port of monitors) {
    await until(async () => {
      const { num_routes: count } = await (await fetch(`http://127.0.0.1:${port}/routez`)).json();
      return count >= 2;
    }, "routes between the NATS servers");
  }
  return {
    kind: "nats-cluster",
    adapter: { kind: "nats", url: open.map((port) => `nats://127.0.0.1:${port}`).join(",") },
    servers,
    primary: async () => {
      // Clients choose among the servers: whom most of the nodes have chosen. Each of them has a probe at every other one.
      const nodesAt = async (port) => {
        const { connections } = await (await fetch(`http://127.0.0.1:${port}/connz`)).json();
        return connections.filter(({ name }) => name === "roomcast").length;
      };
      const counts = await Promise.all(monitors.map(nodesAt));
      return servers[counts.indexOf(Math.max(...counts))];
    },
    publish: (subject, payloads) => natsPublish(clients[2], subject, payloads),
    stop: async () => {
      await Promise.all(proxies.map((proxy) => proxy.stop()));
      await stopServers(servers)();
    },
  };
}
