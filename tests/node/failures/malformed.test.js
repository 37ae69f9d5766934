// What others put on the broker. Real messages of a node are overheard, cut and spoilt, and published again on every
// subject that a node listens to: each is counted under its reason, dropped, and has no effect.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { accepted } from "../helpers/api.js";
import { bucketSubject, overhear, subjectsOf } from "../helpers/bus.js";
import { TRANSPORTS, connect, join, record } from "../helpers/clients.js";
import { until } from "../helpers/deadline.js";
import { agree, metric, metrics, startCluster, underTraffic } from "../helpers/fault-cluster.js";
import { FAULTS, SINGLE_KINDS } from "../helpers/faults.js";

/** Places in the head of a message: the magic bytes, the version, the kind, the sender. */
const MAGIC = 0;
const VERSION = 2;
const KIND = 3;
const TAG = 4;
const TAG_LENGTH = 4;
const HEAD = 16;
const HEARTBEAT = 1;
/** An emit, and one that tells its age, as nodes send it once they know that all others read it. */
const BROADCASTS = [3, 48];
/** In front of what such a one has of an emit: whether a trace follows, and four bytes of age. */
const AGE = 5;
const BUCKETS = 64;
const REASONS = ["foreign", "version", "truncated", "invalid"];

for (const kind of SINGLE_KINDS) {
  describe(`malformed messages over ${kind}`, () => {
    let cluster;
    before(async () => {
      cluster = await startCluster(kind, { count: 2 });
    });
    after(() => cluster?.stop());

    test(FAULTS["malformed-messages"].title, () =>
      underTraffic(cluster, "malformed-messages", async ({ nodes, deployment, traffic, readiness, fault, recovered }) => {
        const [a, b] = nodes;
        const messages = await realMessages(deployment, a, traffic.room);
        const bad = spoilt(messages);
        // Somebody whom a message that passed after all would reach.
        const witnesses = await Promise.all(nodes.map((node) => connect(node.url, TRANSPORTS.websocket)));
        const heard = [];
        for (const witness of witnesses) {
          await join(witness, traffic.room);
          witness.onAny((event) => ["n", "fence"].includes(event) || heard.push(event));
          witness.on("disconnect", (reason) => heard.push(reason));
        }
        const outages = await metrics(nodes, "bus_down_total");
        const conflicts = await metrics(nodes, "cluster_tag_conflicts_total");
        const before = await dropped(b);

        fault();
        const subjects = subjectsOf(b.tag, traffic.room);
        for (const subject of subjects) await deployment.publish(subject, bad);
        const expected = before.total + bad.length * subjects.length;
        await until(async () => (await dropped(b)).total >= expected, `${expected} dropped messages`);
        const now = await dropped(b);
        recovered();

        assert.equal(now.total, expected, "each is counted once");
        const counted = Object.fromEntries(REASONS.map((reason) => [reason, now[reason] - before[reason]]));
        for (const reason of REASONS) assert.ok(counted[reason] >= subjects.length, `${reason}: ${counted[reason]}`);
        assert.deepEqual(heard, [], "what reached clients");
        await agree(nodes);
        assert.equal(await metrics(nodes, "bus_down_total"), outages);
        assert.equal(await metrics(nodes, "cluster_tag_conflicts_total"), conflicts);
        const unready = readiness.changes.flat().filter(({ ready }) => !ready);
        assert.deepEqual(unready, [], "the nodes were ready all the time");
        witnesses.forEach((witness) => witness.off("disconnect").disconnect());
        return { malformed: counted };
      }));

    test("a malformed message does not use up the numbers of its sender", async () => {
      const [a, b] = cluster.nodes;
      const member = await connect(b.url, TRANSPORTS.websocket);
      try {
        await join(member, "numbers");
        const received = record(member, "fence");
        const broadcast = broadcastOf(await realMessages(cluster.deployment, a, "numbers"));
        const spoilt = Buffer.from(broadcast.subarray(0, broadcast.length - 1));
        // Behind the namespace, which is its length and "/".
        const number = emitAt(broadcast) + 5;
        spoilt.fill(0xff, number, number + 8);
        const before = await malformed(b);
        await cluster.deployment.publish("all", [spoilt]);
        await until(async () => (await malformed(b)) > before, "a malformed message");
        await accepted(a, "/v1/emit", { event: "fence", args: [], to: { rooms: ["numbers"] } });
        await until(() => received.length === 1, "an emit after it", 3_000);
      } finally {
        member.disconnect();
      }
    });

    test("malformed messages on the subject of a bucket of rooms", async () => {
      const env = { ROOMCAST__ADAPTER__MAX_ROOM_SUBJECTS: "0", ROOMCAST__ADAPTER__HASHED_SUBJECTS: String(BUCKETS) };
      const hashed = await startCluster(kind, { count: 2, env });
      try {
        const [a, b] = hashed.nodes;
        const member = await connect(b.url, TRANSPORTS.websocket);
        const heard = [];
        member.onAny((event) => heard.push(event));
        await join(member, "bucket");
        for (const node of hashed.nodes) await until(async () => (await metric(node, "cluster_rooms_hashed")) === 1, "buckets");
        const bad = spoilt(await realMessages(hashed.deployment, a, "nobody"));
        const before = await dropped(b);
        await hashed.deployment.publish(bucketSubject(BUCKETS, "bucket"), bad);
        await until(async () => (await dropped(b)).total >= before.total + bad.length, "all of them");
        const now = await dropped(b);
        assert.equal(now.total, before.total + bad.length, "each is counted once");
        for (const reason of REASONS) assert.ok(now[reason] > before[reason], reason);
        await accepted(a, "/v1/emit", { event: "fence", args: [], to: { rooms: ["bucket"] } });
        await until(() => heard.length > 0, "an emit after them");
        assert.deepEqual(heard, ["fence"]);
        member.disconnect();
      } finally {
        await hashed.stop();
      }
    });
  });
}

const malformed = (node) => metric(node, "bus_malformed_total");

/** A spoilt copy may be known as a copy before it is known as spoilt. */
async function dropped(node) {
  const counts = {};
  for (const reason of REASONS) counts[reason] = await metric(node, "bus_malformed_total", { reason });
  return { ...counts, total: (await malformed(node)) + (await metric(node, "bus_duplicates_total")) };
}

/** One message of each kind that node A says by itself or can be made to say. */
async function realMessages(deployment, a, room) {
  const said = (payload) => payload.subarray(TAG, TAG + TAG_LENGTH).toString() === a.tag;
  const act = async () => {
    await accepted(a, "/v1/join", { to: { rooms: ["nobody"] }, rooms: ["elsewhere"] });
    await accepted(a, "/v1/disconnect", { to: { rooms: ["nobody"] } });
    await accepted(a, "/v1/emit", { event: "overheard", args: [1, "two"], to: { rooms: [room, "another"] } });
  };
  const kinds = (payloads) => new Map(payloads.filter(said).map((payload) => [payload[KIND], payload]));
  const enough = (payloads) => kinds(payloads).has(HEARTBEAT) && broadcastOf(kinds(payloads)) && kinds(payloads).size >= 3;
  return kinds(await overhear(deployment, act, enough));
}

const broadcastOf = (messages) => BROADCASTS.map((kind) => messages.get(kind)).findLast((message) => message);

/** Where the emit begins in a message that carries one: its namespace. */
const emitAt = (broadcast) => (broadcast[KIND] === BROADCASTS[0] ? HEAD : HEAD + AGE);

/** Everything that can be wrong with a message and is seen before it has an effect. */
function spoilt(messages) {
  const changed = (message, at, byte) => {
    const copy = Buffer.from(message);
    copy[at] = byte;
    return copy;
  };
  const bad = [Buffer.alloc(0), Buffer.from("R"), Buffer.from('{"json":true}'), Buffer.alloc(900_000, "garbage")];
  for (const message of messages.values()) {
    bad.push(changed(message, MAGIC, 0x58));
    bad.push(changed(message, VERSION, 0), changed(message, VERSION, 255));
    bad.push(changed(message, KIND, 250), changed(message, TAG, 0xff));
  }
  const heartbeat = messages.get(HEARTBEAT);
  for (let length = 1; length < heartbeat.length; length++) bad.push(heartbeat.subarray(0, length));
  bad.push(Buffer.concat([heartbeat, Buffer.from([0])]));
  const broadcast = broadcastOf(messages);
  for (let length = 1; length < broadcast.length; length += 3) bad.push(broadcast.subarray(0, length));
  // A text that claims to be of four gigabytes, in front of much that is not.
  const head = broadcast.subarray(0, emitAt(broadcast));
  bad.push(Buffer.concat([head, Buffer.alloc(4, 0xff), Buffer.alloc(500_000)]));
  return bad;
}
