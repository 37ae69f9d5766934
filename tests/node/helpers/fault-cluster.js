// A cluster to be broken: nodes of the gateway over a broker of the test's own, watched from outside while something is
// done to it.

import assert from "node:assert/strict";
import { get, roomSize } from "./api.js";
import { stopAll } from "./cluster.js";
import { pause, until } from "./deadline.js";
import { startDeployment } from "./deployments.js";
import { recordRow } from "./faults.js";
import { portOpen } from "./processes.js";
import { startProxy } from "./proxy.js";
import { startGateway } from "./servers.js";
import { Traffic, judge } from "./traffic.js";

export { metric, metrics } from "./api.js";

/** Short, so that tests need not wait; long enough that a busy machine makes nobody look dead. */
export const HEARTBEAT_MS = 250;
export const EXPIRY_MS = 2_000;
export const LEASE_MS = 5_000;
/** Longer than the expiry and the lease, so that one can tell by which of them a request ended. */
export const REQUEST_TIMEOUT_MS = 12_000;
/** What a busy machine may add to any time. */
export const MARGIN_MS = 6_000;
/** A pause of local delivery that no busy machine explains. */
const PAUSE_MS = 5_000;

const settings = {
  ROOMCAST__ADAPTER__HEARTBEAT: `${HEARTBEAT_MS}ms`,
  ROOMCAST__ADAPTER__EXPIRY: `${EXPIRY_MS}ms`,
  ROOMCAST__ADAPTER__REQUEST_TIMEOUT: `${REQUEST_TIMEOUT_MS}ms`,
  ROOMCAST__ADAPTER__LEASE: `${LEASE_MS}ms`,
};

/**
 * Nodes over a broker. With `proxied`, the last one reaches a single server through a proxy, by which it alone can be cut
 * off; each server of a cluster has a proxy of its own.
 * `env` has further settings, or gives those of a node by its index.
 */
export async function startCluster(kind, { count = 3, proxied = false, env = {} } = {}) {
  const stoppers = [];
  try {
    const deployment = await startDeployment(kind, { proxied });
    stoppers.push(deployment.stop);
    let proxy;
    if (proxied && deployment.through) {
      proxy = await startProxy(deployment.servers[0].port);
      stoppers.push(() => proxy.stop());
    }
    const start = (index) => {
      const adapter = proxy && index === count - 1 ? deployment.through(proxy) : deployment.adapter;
      const further = typeof env === "function" ? env(index) : env;
      return startGateway({ adapter, env: { ...settings, ...further } });
    };
    const nodes = await Promise.all(Array.from({ length: count }, (_, index) => start(index)));
    stoppers.push(...nodes.map((node) => node.stop));
    for (const node of nodes) node.lines = linesOf(node.child);
    for (const node of nodes) node.tag = (await get(node, "/v1/nodes")).body.node;
    await agree(nodes);
    const stop = async () => {
      if (process.env.FAILURE_LOGS) nodes.forEach(printLog);
      await stopAll(stoppers);
    };
    return { kind, deployment, proxy, nodes, stop };
  } catch (error) {
    await stopAll(stoppers);
    throw error;
  }
}

/** The log from now on, as it grows. */
function linesOf(child) {
  const lines = [];
  let rest = "";
  child.process.stderr.on("data", (data) => {
    const parts = (rest + data).split("\n");
    rest = parts.pop();
    lines.push(...parts.map((text) => ({ at: performance.now(), text })));
  });
  return lines;
}

function printLog(node) {
  console.log(`log of ${node.tag}:\n${node.lines.map(({ text }) => text).join("\n")}`);
}

/** Fails unless a node has written a line since `at` that the pattern fits. */
export const logged = (node, pattern, at) =>
  until(() => node.lines.some((line) => line.at >= at && pattern.test(line.text)), `log line ${pattern}`, 5_000);

/** Until each of the nodes knows all of them, and nobody else. */
export async function agree(nodes, ms) {
  const expected = nodes.map((node) => node.tag).filter(Boolean).sort();
  for (const node of nodes) {
    await until(
      async () => {
        const tags = (await get(node, "/v1/nodes")).body.nodes.map(({ id }) => id).sort();
        return tags.length === nodes.length && (expected.length < nodes.length || tags.join() === expected.join());
      },
      `${nodes.length} nodes in the eyes of ${node.tag}`,
      ms,
    );
  }
}

/** Until each of the nodes counts so many sockets in a room. */
export async function agreeOnRoom(nodes, room, count, ms) {
  for (const node of nodes) {
    await until(async () => (await roomSize(node, room)) === count, `${count} members in the eyes of ${node.tag}`, ms);
  }
}

/** Watches /readyz of every node, as a load balancer does, only more often. */
export class Readiness {
  #stopped = false;

  constructor(nodes) {
    this.changes = nodes.map(() => []);
    this.watches = nodes.map((node, index) => this.#watch(node, this.changes[index]));
  }

  async #watch(node, changes) {
    while (!this.#stopped) {
      const ready = await isReady(node);
      if (changes.at(-1)?.ready !== ready) changes.push({ ready, at: performance.now() });
      await pause(10);
    }
  }

  /** When one of the nodes, or a certain one, was first seen not ready at or after `since`. */
  async down(since, index) {
    const watched = index === undefined ? this.changes : [this.changes[index]];
    const found = () => watched.flat().find(({ ready, at }) => !ready && at >= since);
    await until(found, "a node that is not ready");
    return found().at;
  }

  /** Until all nodes, or those of the list, are ready: when they all were. */
  async allReady(indexes = [...this.changes.keys()], ms = undefined) {
    const watched = indexes.map((index) => this.changes[index]);
    await until(() => watched.every((changes) => changes.at(-1).ready), "nodes that are ready again", ms);
    return Math.max(...watched.map((changes) => changes.at(-1).at));
  }

  async stop() {
    this.#stopped = true;
    await Promise.all(this.watches);
  }
}

async function isReady(node) {
  try {
    const response = await fetch(`${node.api}/readyz`, { signal: AbortSignal.timeout(1_000) });
    await response.arrayBuffer();
    return response.status === 200;
  } catch {
    return false;
  }
}

/**
 * Runs one fault under traffic. `inject(context)` does it and undoes it; it returns the row's figures that it knows
 * (`down_ms`, `up_ms`), and calls `context.fault()` when it strikes and `context.recovered(at)` when the cluster is whole
 * again. Everything that holds for every fault is asserted here, and the row is written. `frozen` nodes cannot serve
 * their own clients meanwhile; with `mayBeStale`, emits that were refused may arrive late, behind later ones.
 */
export async function underTraffic(cluster, fault, inject, { frozen = [], mayBeStale = false } = {}) {
  const { nodes } = cluster;
  const traffic = await Traffic.start(nodes);
  const readiness = new Readiness(nodes);
  const times = {};
  const context = {
    ...cluster,
    traffic,
    readiness,
    fault: () => (times.faultAt = performance.now()),
    recovered: (at = performance.now()) => (times.recoveredAt = at),
  };
  try {
    const figures = await inject(context);
    // So that there is something that was accepted afterwards.
    const enough = () => traffic.emits.filter((emit) => emit.sentAt > times.recoveredAt && emit.answeredAt).length > 300;
    await until(enough, "traffic after the recovery");
    await traffic.stop();
    const verdict = judge(traffic, { ...times, frozen });
    const { down_ms, up_ms, ...more } = figures;
    recordRow(cluster.kind, fault, {
      down_ms,
      up_ms,
      refused: verdict.refused,
      lost_in_fault: verdict.lost_in_fault.length,
      lost_after_recovery: verdict.lost_after_recovery.length,
      duplicates: verdict.duplicates,
      longest_local_gap_ms: verdict.longest_local_gap_ms,
      more: { accepted: verdict.accepted, after: verdict.accepted_after_recovery, stale: verdict.stale.length, ...more },
    });
    assertSound(verdict, traffic);
    if (!mayBeStale) assert.deepEqual(verdict.stale.slice(0, 5), [], "refused emits that came late");
    return verdict;
  } catch (error) {
    // One fault that was not survived must not make the next ones fail.
    await mend(cluster).catch(() => {});
    throw error;
  } finally {
    await readiness.stop();
    traffic.close();
  }
}

/** Undoes whatever a test that failed has left. */
async function mend({ deployment, proxy, nodes }) {
  for (const server of deployment.servers) {
    server.thaw();
    if (!(await portOpen(server.port))) await server.restart();
    await server.proxy?.heal();
  }
  await proxy?.heal();
  for (const node of nodes) node.child.kill("SIGCONT");
  await Promise.all(nodes.map((node) => until(() => isReady(node), "a mended node")));
}

/** What holds whatever happened. */
function assertSound(verdict, traffic) {
  const few = (emits) => emits.slice(0, 5).map((emit) => emit.key ?? emit);
  assert.deepEqual(few(verdict.broken.map(({ key, detail }) => `${key}: ${detail}`)), [], "emits with an answer that no page tells of");
  assert.deepEqual(few(verdict.not_local), [], "emits that members of their own node missed");
  assert.equal(verdict.duplicates, 0, "emits that came twice");
  assert.deepEqual(few(verdict.disorder), [], "emits out of order");
  assert.deepEqual(few(verdict.lost_before), [], "emits lost before the fault");
  assert.deepEqual(few(verdict.lost_after_recovery), [], "emits lost after the recovery");
  assert.ok(verdict.accepted_after_recovery > 0, "nothing was accepted after the recovery");
  assert.ok(verdict.longest_local_gap_ms < PAUSE_MS, `local delivery paused for ${verdict.longest_local_gap_ms} ms`);
  // However slow the machine: an answer may wait for the broker, the node's own clients must not.
  const { count, answer, local } = verdict.waits;
  assert.ok(count < 20 || local < answer / 2, `local delivery took ${local} ms while the answer took ${answer} ms`);
  const gone = traffic.surprises.filter(({ node }) => !traffic.dead.has(node));
  assert.deepEqual(gone, [], "clients that lost their connection");
}
