// Brokers of several processes of which one is killed: the others take over without anybody's help. Only deployments
// whose driver exists are tested; helpers/faults.js says which do not.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { agree, logged, metrics, startCluster, underTraffic } from "../helpers/fault-cluster.js";
import { FAILURE_KINDS, FAULTS } from "../helpers/faults.js";

const FAILOVERS = { "redis-sentinel": "sentinel-failover", "redis-cluster": "master-killed", "nats-cluster": "server-killed" };

/** A failover is detected, agreed upon and done within this, on a busy machine too. */
const FAILOVER_MS = 30_000;

for (const kind of FAILURE_KINDS.filter((kind) => kind in FAILOVERS)) {
  describe(`${kind} loses a server`, () => {
    let cluster;
    before(async () => {
      cluster = await startCluster(kind);
    });
    after(() => cluster?.stop());

    test(FAULTS[FAILOVERS[kind]].title, () =>
      underTraffic(cluster, FAILOVERS[kind], async ({ nodes, deployment, readiness, fault, recovered }) => {
        const outages = await metrics(nodes, "bus_down_total");
        const primary = await deployment.primary();
        const faultAt = fault();
        await primary.kill();
        // In a NATS cluster only some of the nodes are connected to the one that died.
        const down = (await readiness.down(faultAt)) - faultAt;
        const readyAt = recovered(await readiness.allReady(undefined, FAILOVER_MS));
        await agree(nodes);
        assert.ok((await metrics(nodes, "bus_down_total")) > outages, "the loss is counted");
        const struck = nodes.filter((_, index) => readiness.changes[index].some(({ ready, at }) => !ready && at >= faultAt));
        for (const node of struck) await logged(node, /connected to the broker again/, faultAt);
        await primary.restart();
        // Nobody has to heal anything: the time counts from the fault.
        return { down_ms: down, up_ms: readyAt - faultAt, struck: struck.length };
      }));
  });
}
