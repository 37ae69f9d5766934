// What happens to a node: it hangs, it is cut off for so long that the others bury it, it is killed. The last node of a
// cluster is the one that suffers, and the tests are in this order because the last one leaves it dead.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { accepted, get, post } from "../helpers/api.js";
import { TRANSPORTS, connect, join } from "../helpers/clients.js";
import { next, until } from "../helpers/deadline.js";
import {
  EXPIRY_MS,
  LEASE_MS,
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
  describe(`a node over ${kind} fails`, () => {
    let cluster;
    before(async () => {
      cluster = await startCluster(kind, { proxied: true });
    });
    after(() => cluster?.stop());
    const title = (fault) => FAULTS[fault].title;

    test(title("node-hung"), () =>
      underTraffic(
        cluster,
        "node-hung",
        async ({ nodes, traffic, readiness, fault, recovered }) => {
          const [rest, hung] = [nodes.slice(0, -1), nodes.at(-1)];
          const members = traffic.members.length;
          const theirs = traffic.socketsOf(nodes.length - 1);
          const ids = theirs.map((socket) => socket.id);
          await agreeOnRoom(nodes, traffic.room, members);
          const hangs = await metric(hung, "cluster_hung_total");
          const faultAt = fault();
          hung.child.kill("SIGSTOP");
          const waited = await assertRequestsEnd(rest, hung.tag, traffic.room);
          await agree(rest, EXPIRY_MS + MARGIN_MS);
          await agreeOnRoom(rest, traffic.room, members - theirs.length, MARGIN_MS);
          const expired = performance.now() - faultAt;

          const healedAt = performance.now();
          hung.child.kill("SIGCONT");
          await agree(nodes);
          await agreeOnRoom(nodes, traffic.room, members);
          const readyAt = recovered(Math.max(performance.now(), await readiness.allReady()));
          assert.equal((await metric(hung, "cluster_hung_total")) - hangs, 1);
          await logged(hung, /this node did not run/, healedAt);
          // Before the lease is over nothing of it is lost.
          assert.equal(await metric(hung, "cluster_fenced_total"), 0);
          assert.deepEqual(theirs.map((socket) => socket.connected && socket.id), ids);
          return { down_ms: expired, up_ms: readyAt - healedAt, waited };
        },
        { frozen: [2] },
      ));

    test(title("node-hung-beyond-lease"), () =>
      buried(cluster, "node-hung-beyond-lease", (node) => node.child.kill("SIGSTOP"), (node) => node.child.kill("SIGCONT")));

    test(title("node-partitioned-beyond-lease"), () =>
      buried(cluster, "node-partitioned-beyond-lease", () => cluster.proxy.cut(), () => cluster.proxy.heal()));

    test(title("node-killed"), () =>
      underTraffic(cluster, "node-killed", async ({ nodes, traffic, fault, recovered }) => {
        const [rest, killed] = [nodes.slice(0, -1), nodes.at(-1)];
        const members = traffic.members.length;
        const theirs = traffic.socketsOf(nodes.length - 1);
        await agreeOnRoom(nodes, traffic.room, members);
        const left = await metrics(rest, "cluster_members_left_total");
        const gone = Promise.all(theirs.map((socket) => next(socket, "disconnect")));
        traffic.bury(nodes.length - 1);
        const faultAt = fault();
        await killed.child.stop("SIGKILL");
        assert.deepEqual((await gone).map(([reason]) => reason), theirs.map(() => "transport close"));
        const waited = await assertRequestsEnd(rest, killed.tag, traffic.room);
        await agree(rest, EXPIRY_MS + MARGIN_MS);
        await agreeOnRoom(rest, traffic.room, members - theirs.length, MARGIN_MS);
        const down = performance.now() - faultAt;
        recovered();
        for (const node of rest) await logged(node, new RegExp(`node left.*${killed.tag}`), faultAt);
        assert.equal((await metrics(rest, "cluster_members_left_total")) - left, rest.length);
        // What was asked for after that names nobody.
        const answer = await accepted(rest[0], "/v1/join", { to: { rooms: [traffic.room] }, rooms: ["elsewhere"] });
        assert.equal(answer.missing_nodes, undefined);
        return { down_ms: down, waited };
      }));
  });
}

/**
 * Requests to a cluster of which a node no longer answers: they end when its expiry is over, not when their own time is,
 * and name it. Gives how long they took.
 */
async function assertRequestsEnd(rest, tag, room) {
  const incomplete = await metrics(rest, "cluster_requests_incomplete_total");
  const nobody = { to: { rooms: ["nobody"] } };
  const requests = [
    ["/v1/join", { ...nobody, rooms: ["elsewhere"] }],
    ["/v1/leave", { ...nobody, rooms: ["elsewhere"] }],
    ["/v1/disconnect", nobody],
    ["/v1/request", { ...nobody, event: "x", args: [], timeout: 10_000 }],
    [`/v1/rooms/${room}/sockets`],
  ];
  const started = performance.now();
  const ended = requests.map(async ([path, body]) => {
    const answer = body ? await post(rest[0], path, body) : await get(rest[0], path);
    assert.ok(answer.status < 300, `${path}: ${answer.status} ${answer.text}`);
    assert.deepEqual(answer.body.missing_nodes ?? answer.body.lost_nodes, [tag], `${path}: ${answer.text}`);
    return performance.now() - started;
  });
  const longest = Math.max(...(await Promise.all(ended)));
  assert.ok(longest < EXPIRY_MS + MARGIN_MS && longest < REQUEST_TIMEOUT_MS, `a request took ${longest} ms`);
  assert.ok((await metrics(rest, "cluster_requests_incomplete_total")) > incomplete);
  return Math.round(longest);
}

/**
 * A node is away for longer than the lease: the others take its sockets for gone for good. Back again, it ends them, and
 * a stock client is there as a new socket.
 */
function buried(cluster, fault, strike, undo) {
  return underTraffic(cluster, fault, async ({ nodes, traffic, readiness, fault: struck, recovered }) => {
    const [rest, apart] = [nodes.slice(0, -1), nodes.at(-1)];
    const last = nodes.length - 1;
    const room = `guests-${fault}`;
    const guest = await connect(apart.url, { ...TRANSPORTS.websocket, reconnection: true, reconnectionDelay: 50 });
    try {
      await join(guest, room);
      const first = guest.id;
      await agreeOnRoom(nodes, room, 1);
      const gone = await metrics(rest, "cluster_members_gone_total");
      const fenced = await metric(apart, "cluster_fenced_total");
      const sockets = await metric(apart, "connections");
      const ends = await metric(apart, "disconnects_total", { reason: "node_fenced" });
      traffic.bury(last);
      const faultAt = struck();
      await strike(apart);
      await agree(rest, EXPIRY_MS + MARGIN_MS);
      await agreeOnRoom(rest, room, 0, MARGIN_MS);
      const expired = performance.now() - faultAt;
      await until(() => performance.now() - faultAt > LEASE_MS + EXPIRY_MS, "end of the lease", LEASE_MS + MARGIN_MS);

      const ended = next(guest, "disconnect");
      const back = next(guest, "connect");
      const healedAt = performance.now();
      await undo(apart);
      assert.equal((await ended)[0], "transport close");
      await back;
      assert.notEqual(guest.id, first, "a new socket");
      const readyAt = await readiness.allReady();
      // A new life may have a new name.
      apart.tag = (await get(apart, "/v1/nodes")).body.node;
      await agree(nodes);
      await agreeOnRoom(nodes, room, 0);
      await agreeOnRoom(nodes, traffic.room, traffic.members.length - traffic.socketsOf(last).length);
      recovered(Math.max(readyAt, performance.now()));
      assert.equal((await metrics(rest, "cluster_members_gone_total")) - gone, rest.length);
      assert.equal((await metric(apart, "cluster_fenced_total")) - fenced, 1);
      assert.equal((await metric(apart, "disconnects_total", { reason: "node_fenced" })) - ends, sockets);
      for (const node of rest) await logged(node, new RegExp(`node is gone for good.*${apart.tag}`), faultAt);
      await logged(apart, /the cluster took this node for dead/, healedAt);

      await join(guest, room);
      await agreeOnRoom(nodes, room, 1);
      for (const node of nodes) {
        const arrived = next(guest, "hello");
        await accepted(node, "/v1/emit", { event: "hello", args: [node.tag], to: { rooms: [room] } });
        assert.deepEqual(await arrived, [node.tag]);
      }
      return { down_ms: expired, up_ms: readyAt - healedAt };
    } finally {
      guest.disconnect();
    }
  });
}
