// Emitters and the stream where Redis is several servers: they work, and do so again after the worst of them is killed.

import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import { Emitter } from "@socket.io/redis-emitter";
import Redis from "ioredis";
import { TRANSPORTS, connect, join, record } from "../helpers/clients.js";
import { stopAll } from "../helpers/cluster.js";
import { until, within } from "../helpers/deadline.js";
import { startDeployment } from "../helpers/deployments.js";
import { ingestUp } from "../helpers/ingest.js";
import { startNodes } from "../helpers/servers.js";

const SOURCES = ["redis_emitter", "redis_stream"];
const allUp = (nodes) => Promise.all(nodes.flatMap((node) => SOURCES.map((source) => ingestUp(node, source))));

/** A backend's connection, as it has to be for this deployment. */
const clients = {
  "redis-sentinel": ({ adapter }) => {
    const sentinels = addresses(adapter.url.replace(/\?.*/, ""));
    return new Redis({ sentinels, name: "roomcast", maxRetriesPerRequest: null });
  },
  "redis-cluster": ({ adapter }) => new Redis.Cluster(addresses(adapter.url), { redisOptions: { maxRetriesPerRequest: null } }),
};
const addresses = (url) =>
  url
    .replace(/^.*:\/\//, "")
    .split(",")
    .map((address) => ({ host: "127.0.0.1", port: Number(address.split(":")[1]) }));

for (const kind of Object.keys(clients)) {
  describe(kind, () => {
    const stoppers = [];
    after(() => stopAll(stoppers));

    test("emitters and the stream reach the clients of all nodes, also after a failover", async () => {
      const deployment = await startDeployment(kind);
      stoppers.push(deployment.stop);
      const env = { ROOMCAST__INGEST__STREAM__ENABLED: "true", ROOMCAST__INGEST__STREAM__CLAIM_AFTER: "1s" };
      const nodes = await startNodes(2, { adapter: deployment.adapter, env });
      nodes.forEach((node) => stoppers.push(node.stop));
      await allUp(nodes);
      const redis = clients[kind](deployment);
      redis.on("error", () => {});
      stoppers.push(() => redis.disconnect());
      const emitter = new Emitter(redis);
      const sockets = await Promise.all(nodes.map((node) => connect(node.url, TRANSPORTS.websocket)));
      sockets.forEach((socket) => stoppers.push(() => socket.disconnect()));
      for (const socket of sockets) await join(socket, "r");
      const received = sockets.map((socket) => record(socket));
      const body = (event) => JSON.stringify({ event, args: [], to: { rooms: ["r"] } });

      emitter.to("r").emit("emitted", Buffer.from([1]));
      await redis.xadd("roomcast:emit", "*", "body", body("written"), "key", "k");
      await redis.xadd("roomcast:emit", "*", "body", body("written"), "key", "k");
      // The dead ones may be on another server.
      await redis.xadd("roomcast:emit", "*", "body", "nonsense");
      await until(async () => (await redis.xlen("roomcast:emit:dead")) === 1, "a dead entry");
      await until(async () => (await redis.xlen("roomcast:emit")) === 0, "an empty stream");
      for (const events of received) {
        await events.atLeast(2);
        assert.deepEqual(events.map(([event]) => event).sort(), ["emitted", "written"]);
      }

      const primary = await deployment.primary();
      await primary.kill();
      await until(async () => {
        await within(redis.xadd("roomcast:emit", "*", "body", body("after"), "key", "after"), "an answer", 2000);
        return true;
      }, "a write after the failover", 40_000);
      await until(() => received.every((events) => events.some(([event]) => event === "after")), "the entry", 40_000);
      await until(async () => {
        emitter.to("r").emit("again");
        return received.every((events) => events.some(([event]) => event === "again"));
      }, "an emit after the failover", 40_000);
      await allUp(nodes);
    });
  });
}
