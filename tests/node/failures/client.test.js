// Clients that do not take what they are sent: one reads nothing, one is gone without a word.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { post } from "../helpers/api.js";
import { TRANSPORTS, connect, join } from "../helpers/clients.js";
import { stopAll } from "../helpers/cluster.js";
import { next, pause, until } from "../helpers/deadline.js";
import { MARGIN_MS, agreeOnRoom, metric, startCluster } from "../helpers/fault-cluster.js";
import { FAULTS, recordRow, SINGLE_KINDS } from "../helpers/faults.js";
import { startProxy } from "../helpers/proxy.js";
import { startTicker } from "../helpers/ticker.js";

const PING_INTERVAL_MS = 1_000;
const PING_TIMEOUT_MS = 3_000;
/** Several of the batches that are emitted at once, so that who reads is never too slow. */
const MAILBOX_BYTES = 4 * 1024 * 1024;
/** The buffers of the system hold megabytes before a mailbox fills. */
const BLOCK = "x".repeat(64_000);
/** Generous: whoever waited for the client that does not read would wait until it is ended. */
const P99_MS = 5_000;
const MEMBERS = 4;

/** Only the second node misses its pongs soon: on the first one, the mailbox has to be what ends a client. */
const settings = (index) => ({
  ROOMCAST__MAILBOX__MAX_BYTES: String(MAILBOX_BYTES),
  ...(index === 1 && {
    ROOMCAST__ENGINE__PING_INTERVAL: `${PING_INTERVAL_MS}ms`,
    ROOMCAST__ENGINE__PING_TIMEOUT: `${PING_TIMEOUT_MS}ms`,
  }),
});

for (const kind of SINGLE_KINDS) {
  describe(`clients fail over ${kind}`, () => {
    const stoppers = [];
    let a, b, nodes, small;

    before(async () => {
      const cluster = await startCluster(kind, { count: 2, env: settings });
      stoppers.push(cluster.stop);
      nodes = cluster.nodes;
      [a, b] = nodes;
      small = await startTicker("watched", [a, a, b, b], b);
      stoppers.push(async () => small.stop());
    });
    after(() => stopAll(stoppers));

    const dropped = (reason) => metric(a, "dropped_total", { reason });
    const ended = (node, reason) => metric(node, "disconnects_total", { reason });

    async function emit(count, volatile) {
      const body = { event: "block", args: [BLOCK], to: { rooms: ["watched"] }, volatile };
      const answers = await Promise.all(Array.from({ length: count }, () => post(b, "/v1/emit", body)));
      assert.ok(answers.every(({ status }) => status === 202));
    }

    test(FAULTS["slow-client"].title, async () => {
      const slow = await connect(a.url, TRANSPORTS.websocket);
      await join(slow, "watched");
      await agreeOnRoom(nodes, "watched", MEMBERS + 1);
      const quiet = await small.during(() => pause(500));
      const stopped = performance.now();
      // A stock client on a thread that hangs.
      const stream = slow.io.engine.transport.ws._socket;
      stream.pause();
      let volatileDrops;
      const loud = await small.during(async () => {
        // What may be dropped is dropped, and the client stays.
        await until(async () => (await emit(20, true), (await dropped("volatile")) > 0), "volatile drops");
        volatileDrops = await dropped("volatile");
        assert.deepEqual([await dropped("slow_consumer"), await ended(a, "slow_consumer")], [0, 0]);
        await agreeOnRoom(nodes, "watched", MEMBERS + 1);
        // What may not be dropped ends it, once it is more than the mailbox holds.
        await until(async () => (await emit(20, false), (await ended(a, "slow_consumer")) === 1), "end of the slow client");
      });
      const down = performance.now() - stopped;
      assert.equal(await dropped("slow_consumer"), 1);
      assert.equal(await metric(a, "connections_closed_total", { reason: "slow_consumer" }), 1);
      await agreeOnRoom(nodes, "watched", MEMBERS);
      const told = next(slow, "disconnect");
      stream.resume();
      const [reason] = await told;
      recordRow(kind, "slow-client", {
        down_ms: down,
        lost_in_fault: loud.lost,
        duplicates: loud.twice,
        longest_local_gap_ms: loud.gap,
        more: { reason, p99_quiet: quiet.p99, p99_slow: loud.p99, volatile: volatileDrops },
      });
      assert.equal(reason, "transport close");
      assertUndisturbed(loud);
    });

    test(FAULTS["dead-client"].title, async () => {
      const proxy = await startProxy(b.port);
      stoppers.push(() => proxy.stop());
      const dead = await connect(`http://127.0.0.1:${proxy.port}`, TRANSPORTS.websocket);
      await join(dead, "watched");
      await agreeOnRoom(nodes, "watched", MEMBERS + 1);
      let down;
      const loud = await small.during(async () => {
        const stalled = performance.now();
        proxy.stall();
        await until(async () => (await ended(b, "ping_timeout")) === 1, "ping timeout", PING_INTERVAL_MS + PING_TIMEOUT_MS + MARGIN_MS);
        down = performance.now() - stalled;
        await agreeOnRoom(nodes, "watched", MEMBERS);
      });
      recordRow(kind, "dead-client", {
        down_ms: down,
        lost_in_fault: loud.lost,
        duplicates: loud.twice,
        longest_local_gap_ms: loud.gap,
        more: { p99: loud.p99 },
      });
      assert.equal(await metric(b, "connections_closed_total", { reason: "ping_timeout" }), 1);
      assertUndisturbed(loud);
      dead.disconnect();
    });
  });
}

/** The others in the room notice nothing. */
function assertUndisturbed(figures) {
  assert.deepEqual([figures.lost, figures.twice, figures.disorder], [0, 0, 0]);
  assert.ok(figures.p99 < P99_MS, `p99 of the others: ${figures.p99} ms`);
}
