// A room that gets more than its node can deliver, beside a small one on the same nodes.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, test } from "node:test";
import { TRANSPORTS, connect, join } from "../helpers/clients.js";
import { stopAll } from "../helpers/cluster.js";
import { Crowd } from "../helpers/crowd.js";
import { pause, until } from "../helpers/deadline.js";
import { metric, metrics, startCluster } from "../helpers/fault-cluster.js";
import { FAILURE_KINDS, FAULTS, recordRow } from "../helpers/faults.js";

const MEMBERS = Number(process.env.FLOOD_MEMBERS ?? 1_000);
const SECONDS = Number(process.env.FLOOD_SECONDS ?? 5);
const BYTES = Number(process.env.FLOOD_BYTES ?? 512);

for (const kind of FAILURE_KINDS.filter((kind) => ["redis", "nats"].includes(kind))) {
  test(`${FAULTS.flood.title} over ${kind}`, async () => {
    const stoppers = [];
    try {
      const cluster = await startCluster(kind, { count: 2, env: { ROOMCAST__ENGINE__PING_INTERVAL: "120s", ...JSON.parse(process.env.FLOOD_ENV ?? "{}") } });
      stoppers.push(cluster.stop);
      const [a, b] = cluster.nodes;
      const [crowd, talkers] = [new Crowd(), new Crowd()];
      stoppers.push(() => crowd.stop(), () => talkers.stop());
      await crowd.join({ port: b.port, count: MEMBERS, room: "large" });
      const small = await smallRoom([a, a, b, b, b], a);
      stoppers.push(small.stop);
      const quiet = await small.during(async () => pause(1_500));
      const before = [rss(a), rss(b)];
      console.log({ quiet, before });
      await crowd.stopReading({count: 100});
      const flood = talkers.flood({ port: a.port, room: "large", bytes: BYTES, rate: process.env.RATE ? Number(process.env.RATE) : undefined });
      const loud = await small.during(async () => {
        await pause(SECONDS * 1_000);
        await talkers.calm();
        await flood;
      });
      console.log({ loud, sent: await flood, rss: [rss(a), rss(b)], peak: [peak(a), peak(b)], crowd: await crowd.report() });
      for (const node of [a, b]) console.log((await (await fetch(`${node.api}/metrics`)).text()).split("\n").filter((line) => /^roomcast_(dropped|bus_|deliver|disconnects|cluster)/.test(line) && !/ 0$/.test(line)).join("\n"));
      await pause(3000);
      console.log({ rss: [rss(a), rss(b)], crowd: await crowd.report() });
      for (const node of [a, b]) console.log(node.lines.slice(-8).map((l) => l.text).join("\n"));
    } finally {
      await stopAll(stoppers);
    }
  });
}

/** Members of a small room, and one that emits to it all the time; how long each emit is on its way to each. */
async function smallRoom(homes, origin) {
  const members = await Promise.all(homes.map((node) => connect(node.url, TRANSPORTS.websocket)));
  const talker = await connect(origin.url, TRANSPORTS.websocket);
  let latencies = [];
  let sent = 0;
  const arrived = members.map(() => new Set());
  for (const [index, member] of members.entries()) {
    await join(member, "small");
    member.on("tick", (seq, at) => {
      arrived[index].add(seq);
      latencies.push(performance.now() - at);
    });
  }
  return {
    members,
    stop: () => [...members, talker].forEach((socket) => socket.disconnect()),
    /** The latencies of what is emitted while `act` runs, once all of it has arrived. */
    async during(act) {
      latencies = [];
      const timer = setInterval(() => talker.emit("room:emit", "small", "tick", sent++, performance.now()), 20);
      await act();
      clearInterval(timer);
      await until(() => arrived.every((seqs) => seqs.size === sent), "every emit at every member of the small room", 15_000).catch(() => console.log("LOST", sent, arrived.map((s) => s.size), members.map(m=>m.connected)));
      latencies.sort((x, y) => x - y);
      const at = (share) => Math.round(latencies[Math.floor((latencies.length - 1) * share)] * 10) / 10;
      return { count: latencies.length, p50: at(0.5), p99: at(0.99), max: at(1) };
    },
  };
}

const status = (node, key) => Number(new RegExp(`${key}:\\s+(\\d+)`).exec(readFileSync(`/proc/${node.child.pid}/status`, "utf8"))[1]) / 1024;
const rss = (node) => Math.round(status(node, "VmRSS"));
const peak = (node) => Math.round(status(node, "VmHWM"));
