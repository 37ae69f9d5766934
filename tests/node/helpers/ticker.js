// A small room in which somebody speaks all the time: how long a word is on its way while something else goes on.

import { TRANSPORTS, connect, join } from "./clients.js";
import { until } from "./deadline.js";

const EVERY_MS = 20;

/** Members on the nodes of `homes`, and one on `origin` that emits. */
export async function startTicker(room, homes, origin) {
  const talker = await connect(origin.url, TRANSPORTS.websocket);
  const members = await Promise.all(homes.map((node) => connect(node.url, TRANSPORTS.websocket)));
  const arrivals = members.map(() => []);
  for (const [index, member] of members.entries()) {
    await join(member, room);
    member.on("tick", (seq, sentAt) => arrivals[index].push({ seq, at: performance.now(), latency: performance.now() - sentAt }));
  }
  return {
    room,
    members,
    stop: () => [...members, talker].forEach((socket) => socket.disconnect()),
    /** Runs `act` under ticks and waits, for a bounded time, until all of them have come. */
    async during(act, patience = 20_000) {
      arrivals.forEach((list) => list.splice(0));
      let sent = 0;
      const timer = setInterval(() => talker.emit("room:emit", room, "tick", sent++, performance.now()), EVERY_MS);
      try {
        await act();
      } finally {
        clearInterval(timer);
      }
      const complete = () => arrivals.every((list) => list.length >= sent);
      const started = performance.now();
      await until(complete, "every tick at every member", patience).catch(() => {});
      return { ...figures(arrivals, sent), drained_ms: Math.round(performance.now() - started) };
    },
  };
}

function figures(arrivals, sent) {
  const latencies = arrivals.flat().map(({ latency }) => latency).sort((x, y) => x - y);
  const share = (part) => Math.round(latencies[Math.floor((latencies.length - 1) * part)] ?? Infinity);
  const distinct = arrivals.map((list) => new Set(list.map(({ seq }) => seq)).size);
  const total = (numbers) => numbers.reduce((sum, number) => sum + number, 0);
  return {
    ticks: sent,
    p50: share(0.5),
    p99: share(0.99),
    max: share(1),
    lost: total(distinct.map((count) => sent - count)),
    twice: total(arrivals.map((list, index) => list.length - distinct[index])),
    disorder: total(arrivals.map((list) => list.filter(({ seq }, at) => at > 0 && seq < list[at - 1].seq).length)),
    gap: Math.max(...arrivals.map((list) => Math.max(0, ...list.slice(1).map(({ at }, index) => at - list[index].at)))),
  };
}
