// Stock clients that come back by themselves, and what each of them got while it was connected.
//
// A client knows since when it is in the room, and until when it was connected; an emit, when it was sent and when it was
// accepted. What was accepted well before a client was cut off, and sent after it had joined, has to be with that client.

import { TRANSPORTS, client } from "./clients.js";

export class Ledger {
  constructor(url, room) {
    Object.assign(this, { url, room, members: [], emits: [], closes: [], returns: [], reasons: {}, errors: 0 });
    /** By seq, when the last member got it. */
    this.lastReceipts = [];
  }

  /** Opens clients, so many of each transport; ready when all are in the room. */
  async open(counts, options = {}) {
    const opened = [];
    for (const [transport, count] of Object.entries(counts)) {
      for (let i = 0; i < count; i++) opened.push(this.#member(transport, options));
    }
    await Promise.all(opened);
  }

  #member(transport, options) {
    const socket = client(this.url, { reconnection: true, ...TRANSPORTS[transport], ...options });
    const member = { transport, socket, stays: [], received: new Set(), twice: 0, returning: false };
    this.members.push(member);
    socket.on("n", (seq) => {
      if (member.received.has(seq)) member.twice++;
      member.received.add(seq);
      this.lastReceipts[seq] = performance.now();
    });
    socket.io.on("reconnect_error", () => this.errors++);
    socket.on("disconnect", (reason) => {
      const stay = member.stays.at(-1);
      const at = performance.now();
      if (stay) stay.to ??= at;
      member.returning = true;
      this.closes.push(at);
      this.reasons[reason] = (this.reasons[reason] ?? 0) + 1;
    });
    return new Promise((resolve, reject) => {
      socket.on("connect", () => {
        if (member.returning) this.returns.push(performance.now());
        const { id } = socket;
        socket.emit("room:join", this.room, (answer) => {
          if (answer?.error) return reject(new Error(JSON.stringify(answer.error)));
          if (socket.id !== id) return;
          member.returning = false;
          member.stays.push({ id, from: performance.now() });
          resolve();
        });
      });
    });
  }

  /** Whether everybody is connected and in the room. */
  get complete() {
    return this.members.every(({ socket, stays }) => socket.connected && stays.at(-1)?.id === socket.id);
  }

  /** Emits by `send(body)`, which gives the status, every so many milliseconds. */
  begin(send, every) {
    this.timer = setInterval(() => {
      const emit = { seq: this.emits.length, sentAt: performance.now() };
      this.emits.push(emit);
      emit.answered = send({ event: "n", args: [emit.seq], to: { rooms: [this.room] } }).then(
        (status) => {
          if (status === 202) emit.acceptedAt = performance.now();
        },
        () => {},
      );
    }, every);
  }

  async end() {
    clearInterval(this.timer);
    await Promise.all(this.emits.map(({ answered }) => answered));
  }

  get accepted() {
    return this.emits.filter(({ acceptedAt }) => acceptedAt !== undefined);
  }

  /** What members did not get that was accepted so long before they were cut off. */
  lost(margin) {
    const lost = [];
    for (const member of this.members) {
      for (const { seq, sentAt, acceptedAt } of this.accepted) {
        const stay = member.stays.find(({ from, to }) => sentAt >= from && (to === undefined || acceptedAt + margin <= to));
        if (stay && !member.received.has(seq)) lost.push({ seq, transport: member.transport });
      }
    }
    return lost;
  }

  /** The longest that an accepted emit was seen on its way, in milliseconds. */
  get slowest() {
    return Math.max(0, ...this.accepted.map(({ seq, acceptedAt }) => (this.lastReceipts[seq] ?? acceptedAt) - acceptedAt));
  }

  close() {
    clearInterval(this.timer);
    this.members.forEach(({ socket }) => socket.disconnect());
  }
}

/** The most of these times that fall into one second. */
export function peak(times) {
  const sorted = times.toSorted((a, b) => a - b);
  let most = 0;
  for (let from = 0, to = 0; to < sorted.length; to++) {
    while (sorted[to] - sorted[from] >= 1000) from++;
    most = Math.max(most, to - from + 1);
  }
  return most;
}
