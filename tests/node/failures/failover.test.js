// Brokers of several processes of which one is killed, or out of reach: the others take over without anybody's help.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { until } from "../helpers/deadline.js";
import { agree, agreeOnRoom, logged, metrics, startCluster, underTraffic } from "../helpers/fault-cluster.js";
import { CLUSTER_KINDS, FAULTS } from "../helpers/faults.js";

const FAILOVERS = { "redis-sentinel": "sentinel-failover", "redis-cluster": "master-killed", "nats-cluster": "server-killed" };

/** A failover is detected, agreed upon and done within this, on a busy machine too. */
const FAILOVER_MS = 30_000;

for (const kind of CLUSTER_KINDS) {
  describe(`${kind} loses a server`, () => {
    let cluster;
    before(async () => {
      cluster = await startCluster(kind);
    });
    after(() => cluster?.stop());

    test(FAULTS[FAILOVERS[kind]].title, () =>
      underTraffic(cluster, FAILOVERS[kind], async (context) => {
        const primary = await context.deployment.primary();
        const figures = await failedOver(context, () => primary.kill());
        await primary.restart();
        return figures;
      }));
  });
}

if (CLUSTER_KINDS.includes("nats-cluster")) {
  describe("nats-cluster is partitioned from its clients", () => {
    let cluster;
    before(async () => {
      cluster = await startCluster("nats-cluster", { proxied: true });
    });
    after(() => cluster?.stop());

    // What was on its way to that server is refused, and may arrive from there when the partition is over.
    const options = { mayBeStale: true };
    const strike = async (context) => {
      const { nodes, deployment, traffic } = context;
      const { proxy } = await deployment.primary();
      // The server itself is well, and so are its routes to the others.
      const figures = await failedOver(context, () => proxy.stall());
      // Ready means ready, though one server is still out of reach: what is accepted from now on is judged.
      const first = traffic.emits.length;
      await until(() => traffic.emits.length > first + 200, "traffic while a server is out of reach");
      await proxy.heal();
      await agree(nodes);
      await agreeOnRoom(nodes, traffic.room, traffic.members.length);
      return figures;
    };
    test(FAULTS["server-partitioned"].title, () => underTraffic(cluster, "server-partitioned", strike, options));
  });
}

/** Strikes, and waits until the nodes have found another server. */
async function failedOver({ nodes, readiness, fault, recovered }, strike) {
  const outages = await metrics(nodes, "bus_down_total");
  const faultAt = fault();
  await strike();
  // In a NATS cluster only some of the nodes are connected to the server that is struck.
  const down = (await readiness.down(faultAt)) - faultAt;
  const readyAt = recovered(await readiness.allReady(undefined, FAILOVER_MS));
  await agree(nodes);
  assert.ok((await metrics(nodes, "bus_down_total")) > outages, "the loss is counted");
  const struck = nodes.filter((_, index) => readiness.changes[index].some(({ ready, at }) => !ready && at >= faultAt));
  for (const node of struck) await logged(node, /connected to the broker again/, faultAt);
  // Nobody has to heal anything: the time counts from the fault.
  return { down_ms: down, up_ms: readyAt - faultAt, struck: struck.length };
}
