// What happens to the broker, or to a node's way to it. One cluster per kind of broker is broken again and again: each
// fault begins when the last one is over, and ends with a cluster that is whole.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { get, post } from "../helpers/api.js";
import { TRANSPORTS, ask, connect } from "../helpers/clients.js";
import { until } from "../helpers/deadline.js";
import {
  EXPIRY_MS,
  MARGIN_MS,
  REQUEST_TIMEOUT_MS,
  agree,
  agreeOnRoom,
  logged,
  metric,
  metrics,
  startCluster,
  underTraffic,
} from "../helpers/fault-cluster.js";
import { FAULTS, SINGLE_KINDS } from "../helpers/faults.js";

for (const kind of SINGLE_KINDS) {
  describe(`${kind} fails`, () => {
    let cluster;
    before(async () => {
      // The last node goes through a proxy.
      cluster = await startCluster(kind, { proxied: true });
    });
    after(() => cluster?.stop());
    const title = (fault) => FAULTS[fault].title;

    test(title("broker-killed"), () =>
      underTraffic(cluster, "broker-killed", async ({ nodes, deployment, readiness, traffic, fault, recovered }) => {
        const before = await counted(nodes);
        const [broker] = deployment.servers;
        const faultAt = fault();
        await broker.kill();
        for (const index of nodes.keys()) await readiness.down(faultAt, index);
        const down = (await readiness.down(faultAt)) - faultAt;
        await assertAwayAnswers(nodes, traffic.room);
        for (const node of nodes) await logged(node, /lost the broker/, faultAt);

        const healedAt = performance.now();
        await broker.restart();
        const readyAt = recovered(await readiness.allReady());
        await agree(nodes);
        await assertCounted(nodes, before, { down: nodes.length, refused: 1 });
        for (const node of nodes) await logged(node, /connected to the broker again/, healedAt);
        return { down_ms: down, up_ms: readyAt - healedAt };
      }));

    test(title("broker-hung"), () =>
      underTraffic(cluster, "broker-hung", async ({ nodes, deployment, readiness, fault, recovered }) => {
        const before = await counted(nodes);
        const [broker] = deployment.servers;
        const faultAt = fault();
        broker.hang();
        for (const index of nodes.keys()) await readiness.down(faultAt, index);
        const down = (await readiness.down(faultAt)) - faultAt;
        for (const node of nodes) await logged(node, /lost the broker.*(not confirmed|does not answer)/, faultAt);
        const healedAt = performance.now();
        broker.thaw();
        const readyAt = recovered(await readiness.allReady());
        await agree(nodes);
        await assertCounted(nodes, before, { down: nodes.length, refused: 1 });
        return { down_ms: down, up_ms: readyAt - healedAt };
      }));

    test(title("subscription-killed"), () =>
      underTraffic(cluster, "subscription-killed", async ({ nodes, deployment, proxy, readiness, fault, recovered }) => {
        // Redis kills those of all nodes; of NATS, which has no such command, the one of the last node is reset.
        const struck = deployment.killSubscriptions ? nodes : nodes.slice(-1);
        const before = await counted(struck);
        const faultAt = fault();
        if (deployment.killSubscriptions) await deployment.killSubscriptions();
        else assert.equal(proxy.reset((said) => said.includes("SUB roomcast.%-.all ")), 1, "one subscribing connection");
        for (const node of struck) await readiness.down(faultAt, nodes.indexOf(node));
        const down = (await readiness.down(faultAt)) - faultAt;
        const readyAt = recovered(await readiness.allReady());
        await agree(nodes);
        await assertCounted(struck, before, { down: struck.length, refused: 0 });
        // Nothing has to be healed: the time counts from the fault.
        return { down_ms: down, up_ms: readyAt - faultAt };
      }));

    test(title("connection-reset"), () =>
      underTraffic(cluster, "connection-reset", async ({ nodes, proxy, readiness, fault, recovered }) => {
        const last = nodes.length - 1;
        const before = await counted([nodes[last]]);
        const others = await metrics(nodes.slice(0, last), "bus_down_total");
        const faultAt = fault();
        assert.equal(proxy.reset(), 3, "two connections of the adapter, one for backends");
        const down = (await readiness.down(faultAt, last)) - faultAt;
        const readyAt = recovered(await readiness.allReady());
        await agree(nodes);
        await assertCounted([nodes[last]], before, { down: 1, refused: 0 });
        assert.equal(await metrics(nodes.slice(0, last), "bus_down_total"), others, "the others noticed nothing");
        return { down_ms: down, up_ms: readyAt - faultAt };
      }));

    test(title("connection-stalled"), () =>
      underTraffic(cluster, "connection-stalled", async ({ nodes, proxy, readiness, fault, recovered }) => {
        const last = nodes.length - 1;
        const before = await counted([nodes[last]]);
        const faultAt = fault();
        proxy.stall();
        const down = (await readiness.down(faultAt, last)) - faultAt;
        await logged(nodes[last], /lost the broker.*(not confirmed|does not answer)/, faultAt);
        const healedAt = performance.now();
        await proxy.heal();
        const readyAt = recovered(await readiness.allReady());
        await agree(nodes);
        await assertCounted([nodes[last]], before, { down: 1, refused: 1 });
        return { down_ms: down, up_ms: readyAt - healedAt };
      }));

    /** The last node is cut off for so long; its sockets are out of the others' counts and come back. */
    async function partition({ nodes, proxy, traffic, readiness, fault, recovered }, ms) {
      const [rest, apart] = [nodes.slice(0, -1), nodes.at(-1)];
      const members = traffic.members.length;
      const theirs = traffic.socketsOf(nodes.length - 1).length;
      await agreeOnRoom(nodes, traffic.room, members);
      const before = await counted([apart]);
      const left = await metrics(rest, "cluster_members_left_total");
      const faultAt = fault();
      await proxy.cut();
      const down = (await readiness.down(faultAt, nodes.length - 1)) - faultAt;
      await agree(rest, EXPIRY_MS + MARGIN_MS);
      const expired = performance.now() - faultAt;
      await agreeOnRoom(rest, traffic.room, members - theirs, MARGIN_MS);
      assert.ok((await metrics(rest, "cluster_members_left_total")) > left, "the loss of a member is counted");
      // Alone, a node counts nobody as dead, and names those whom it cannot ask.
      const alone = (await get(apart, `/v1/rooms/${traffic.room}`)).body;
      assert.equal(alone.exact, false, JSON.stringify(alone));
      await until(() => performance.now() - faultAt > ms, "end of the partition", ms + MARGIN_MS);

      const healedAt = performance.now();
      await proxy.heal();
      const readyAt = recovered(await readiness.allReady());
      await assertCounted([apart], before, { down: 1, refused: 1 });
      return { down, expired, healedAt, readyAt, members };
    }

    test(title("node-partitioned"), () =>
      underTraffic(cluster, "node-partitioned", async (context) => {
        const { nodes, traffic } = context;
        const { down, expired, healedAt, readyAt, members } = await partition(context, EXPIRY_MS);
        await agree(nodes);
        await agreeOnRoom(nodes, traffic.room, members);
        return { down_ms: down, up_ms: readyAt - healedAt, expired_ms: Math.round(expired), agreed_ms: Math.round(performance.now() - healedAt) };
      }));
  });
}

/** The counters of an outage, before it. */
async function counted(nodes) {
  return {
    down: await metrics(nodes, "bus_down_total"),
    refused: await metrics(nodes, "bus_publish_refused_total"),
    unready: await metrics(nodes, "unready_seconds_total"),
  };
}

/** Each outage is counted once; `refused` is the least that has to be counted of what was not published. */
async function assertCounted(nodes, before, { down, refused }) {
  const now = await counted(nodes);
  assert.equal(now.down - before.down, down, "roomcast_bus_down_total");
  assert.ok(now.refused - before.refused >= refused, "roomcast_bus_publish_refused_total");
  assert.ok(now.unready > before.unready, "roomcast_unready_seconds_total");
  assert.equal(await metrics(nodes, "ready"), nodes.length, "roomcast_ready");
}

/** While the broker is away, everything is answered at once: done here, or refused, or with the missing nodes named. */
async function assertAwayAnswers(nodes, room) {
  const [node] = nodes;
  const others = nodes.slice(1).map((other) => other.tag).sort();
  const started = performance.now();
  assert.equal((await get(node, "/livez")).status, 200);
  const ready = await get(node, "/readyz");
  assert.deepEqual([ready.status, ready.body.ready, ready.body.reason], [503, false, "broker_unavailable"]);

  const emitted = await post(node, "/v1/emit", { event: "x", args: [], to: { rooms: ["nobody"] } });
  assert.deepEqual([emitted.status, emitted.body.code], [503, "broker_unavailable"]);
  const socket = await connect(node.url, TRANSPORTS.websocket);
  try {
    const refusal = { error: { code: "broker_unavailable", status: 503 } };
    assert.deepEqual(await ask(socket, "room:emit", "nobody", "x"), [refusal]);
    assert.deepEqual(await ask(socket, "room:join", "somebody"), [refusal]);
    // Refused, and done here all the same.
    const count = (await get(node, "/v1/rooms/somebody")).body;
    assert.deepEqual([count.sockets, count.exact, [...count.missing_nodes].sort()], [1, false, others]);
    for (const call of ["join", "leave"]) {
      const body = { to: { sockets: [socket.id] }, rooms: [`${room}-${call}`] };
      const { status, body: problem } = await post(node, `/v1/${call}`, body);
      assert.deepEqual([status, problem.code], [503, "broker_unavailable"], call);
    }
  } finally {
    socket.disconnect();
  }
  assert.ok(performance.now() - started < REQUEST_TIMEOUT_MS, "nothing waited for those who cannot answer");
}
