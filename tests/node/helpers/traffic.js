// Steady traffic through a cluster, and what became of each emit.
//
// Every node has members of one room and two emitters: one calls POST /v1/emit, as a backend does, without waiting for
// the answer of the call before; one is a socket that sends room:emit with an ack. Both go on through every fault. The
// ledger knows of each emit when it was sent and how it was answered, and of each member what came, when and in which
// order. Judging is pure: `judge` reads the ledger and touches nothing.

import http from "node:http";
import { TRANSPORTS, client, connect, join } from "./clients.js";
import { until } from "./deadline.js";

const HTTP_EVERY_MS = 20;
const SOCKET_EVERY_MS = 10;

/** What an emitter was told. */
const ACCEPTED = "accepted";
const REFUSED = "refused";
const BROKEN = "broken";

let rooms = 0;

export class Traffic {
  /** Members on every node, all in the room, and the emitters running. */
  static async start(nodes, { polling = true } = {}) {
    const traffic = new Traffic(nodes, `traffic-${process.pid}-${rooms++}`);
    await traffic.#begin(polling);
    return traffic;
  }

  constructor(nodes, room) {
    Object.assign(this, { nodes, room, emits: [], members: [], talkers: [], surprises: [] });
    this.dead = new Set();
    this.timers = [];
    this.agent = new http.Agent({ keepAlive: true });
  }

  async #begin(polling) {
    for (const [index, node] of this.nodes.entries()) {
      await this.#member(index, TRANSPORTS.websocket);
      // One polling client is enough to have the transport judged too.
      if (polling && index === 0) await this.#member(index, TRANSPORTS.polling);
      this.talkers[index] = await connect(node.url, TRANSPORTS.websocket);
      this.talkers[index].on("disconnect", (reason) => this.#silenced(index, reason));
    }
    for (const index of this.nodes.keys()) {
      const sequence = { http: 0, socket: 0 };
      this.timers.push(
        setInterval(() => this.#post(index, sequence.http++), HTTP_EVERY_MS),
        setInterval(() => this.#talk(index, sequence.socket++), SOCKET_EVERY_MS),
      );
    }
    await until(() => this.#arrivedEverywhere(), "traffic from every node at every member");
  }

  async #member(index, transport) {
    const socket = client(this.nodes[index].url, transport);
    const member = { node: index, socket, arrivals: [], fences: new Set() };
    socket.on("n", (from, source, seq) => member.arrivals.push({ key: `${from}/${source}/${seq}`, at: performance.now() }));
    socket.on("fence", (from) => member.fences.add(from));
    socket.on("disconnect", (reason) => this.surprises.push({ node: index, reason, at: performance.now() }));
    await new Promise((resolve, reject) => socket.once("connect", resolve).once("connect_error", reject));
    await join(socket, this.room);
    this.members.push(member);
  }

  #emit(from, source, seq) {
    const emit = { key: `${from}/${source}/${seq}`, from, source, seq, sentAt: performance.now() };
    this.emits.push(emit);
    return (outcome, detail) => {
      if (!emit.outcome) Object.assign(emit, { outcome, detail, answeredAt: performance.now() });
    };
  }

  #post(index, seq) {
    const answered = this.#emit(index, "http", seq);
    const body = JSON.stringify({ event: "n", args: [index, "http", seq], to: { rooms: [this.room] } });
    this.#call(index, body).then(
      ({ status, text }) => {
        if (status === 202) answered(ACCEPTED);
        else if (status === 503 && JSON.parse(text).code === "broker_unavailable") answered(REFUSED, "broker_unavailable");
        else answered(BROKEN, `${status} ${text}`);
      },
      (error) => answered(BROKEN, error.code ?? error.message),
    );
  }

  #call(index, body) {
    return new Promise((resolve, reject) => {
      const headers = { "content-type": "application/json", "content-length": Buffer.byteLength(body) };
      const { apiPort: port } = this.nodes[index];
      const request = http.request({ port, host: "127.0.0.1", path: "/v1/emit", method: "POST", agent: this.agent, headers });
      request.on("response", (response) => {
        let text = "";
        response.setEncoding("utf8").on("data", (data) => (text += data));
        response.on("end", () => resolve({ status: response.statusCode, text }));
        response.on("error", reject);
      });
      request.on("error", reject);
      request.end(body);
    });
  }

  #talk(index, seq) {
    const talker = this.talkers[index];
    if (!talker.connected) return;
    const answered = this.#emit(index, "socket", seq);
    talker.emit("room:emit", this.room, "n", index, "socket", seq, (answer) => {
      if (!answer.error) answered(ACCEPTED);
      else if (answer.error.code === "broker_unavailable" && answer.error.status === 503) answered(REFUSED, answer.error.code);
      else answered(BROKEN, JSON.stringify(answer.error));
    });
  }

  /** What a socket had asked for when it was cut off is never answered. */
  #silenced(index, reason) {
    const open = this.emits.filter((emit) => emit.from === index && emit.source === "socket" && !emit.outcome);
    for (const emit of open) Object.assign(emit, { outcome: BROKEN, detail: reason, answeredAt: performance.now() });
  }

  #arrivedEverywhere() {
    const alive = [...this.nodes.keys()].filter((index) => !this.dead.has(index));
    return this.members.every((member) =>
      alive.every((from) => ["http", "socket"].every((source) => member.arrivals.some(({ key }) => key.startsWith(`${from}/${source}/`)))),
    );
  }

  /** The members' sockets of a node. */
  socketsOf(index) {
    return this.members.filter((member) => member.node === index).map((member) => member.socket);
  }

  /** A node is gone for good: nothing is sent to it any more, and nothing is expected of its members. */
  bury(index) {
    this.dead.add(index);
    this.timers.slice(2 * index, 2 * index + 2).forEach(clearInterval);
  }

  /** Ends the emitters, and waits until every living member has what the living nodes still had to say. */
  async stop() {
    this.timers.forEach(clearInterval);
    await until(() => this.emits.every((emit) => emit.outcome || this.dead.has(emit.from)), "an answer to every emit");
    const alive = [...this.nodes.keys()].filter((index) => !this.dead.has(index));
    for (const index of alive) {
      const { status, text } = await this.#call(index, JSON.stringify({ event: "fence", args: [index], to: { rooms: [this.room] } }));
      if (status !== 202) throw new Error(`the fence of node ${index}: ${status} ${text}`);
    }
    const living = this.members.filter((member) => !this.dead.has(member.node));
    await until(() => living.every((member) => alive.every((index) => member.fences.has(index))), "the fences at every member");
  }

  close() {
    this.timers.forEach(clearInterval);
    for (const socket of [...this.members.map((member) => member.socket), ...this.talkers]) socket?.disconnect();
    this.agent.destroy();
  }
}

/** An emit that was answered so long before the fault has to be everywhere. */
const SETTLED_MS = 1_000;

/**
 * What became of the emits. `faultAt` and `recoveredAt` are instants of performance.now(); `frozen` names the nodes
 * that could not serve their own clients meanwhile.
 */
export function judge(traffic, { faultAt, recoveredAt, frozen = [] }) {
  const { emits, dead } = traffic;
  const living = traffic.members.filter((member) => !dead.has(member.node));
  const seen = new Map(traffic.members.map((member) => [member, new Set(member.arrivals.map(({ key }) => key))]));
  const from = emits.filter((emit) => !dead.has(emit.from));
  const answered = from.filter((emit) => emit.outcome !== BROKEN);
  const missing = (emit, local) =>
    living.some((member) => (member.node === emit.from) === local && !seen.get(member).has(emit.key));

  const lost = answered.filter((emit) => emit.outcome === ACCEPTED && missing(emit, false));
  return {
    accepted: answered.filter((emit) => emit.outcome === ACCEPTED).length,
    refused: answered.filter((emit) => emit.outcome === REFUSED).length,
    broken: from.filter((emit) => emit.outcome === BROKEN),
    not_local: answered.filter((emit) => missing(emit, true)),
    lost_before: lost.filter((emit) => emit.answeredAt < faultAt - SETTLED_MS),
    lost_in_fault: lost.filter((emit) => emit.answeredAt >= faultAt - SETTLED_MS && emit.sentAt <= recoveredAt),
    lost_after_recovery: lost.filter((emit) => emit.sentAt > recoveredAt),
    accepted_after_recovery: answered.filter((emit) => emit.sentAt > recoveredAt && emit.outcome === ACCEPTED).length,
    duplicates: traffic.members.reduce((sum, member) => sum + member.arrivals.length - seen.get(member).size, 0),
    ...disorders(traffic),
    longest_local_gap_ms: Math.max(
      ...living.filter((member) => !frozen.includes(member.node)).map((member) => longestGap(member)),
    ),
    waits: waits(traffic, answered.filter((emit) => !frozen.includes(emit.from))),
  };
}

/** An answer that took so long has waited for the broker. */
const WAITED_MS = 1_000;

/**
 * Of emits whose answer waited for the broker: how long the answers took, and how long the way to a member of the same
 * node, each as the median.
 */
function waits(traffic, answered) {
  const slow = answered.filter((emit) => emit.answeredAt - emit.sentAt > WAITED_MS);
  const sentAt = new Map(slow.map((emit) => [emit.key, emit.sentAt]));
  const local = traffic.members.flatMap((member) =>
    member.arrivals.filter(({ key }) => key.startsWith(`${member.node}/`) && sentAt.has(key)).map(({ key, at }) => at - sentAt.get(key)),
  );
  const median = (values) => values.sort((x, y) => x - y)[Math.floor(values.length / 2)];
  return { count: slow.length, answer: median(slow.map((emit) => emit.answeredAt - emit.sentAt)), local: median(local) };
}

/**
 * What came behind what was emitted later. What had been refused and came all the same is `stale`: it waited on a way
 * that its node had given up.
 */
function disorders({ members, emits }) {
  const late = members.flatMap((member) => disorder(member, emits));
  const [stale, wrong] = [late.filter(({ refused }) => refused), late.filter(({ refused }) => !refused)];
  const text = ({ key, node }) => `${key} at a member of node ${node}`;
  return { disorder: wrong.map(text), stale: stale.map(text) };
}

/**
 * Pairs of emits of one node that came the wrong way round. Of a socket each emit has a place; of HTTP calls only those
 * have one of which the first was answered before the second was sent.
 */
function disorder(member, emits) {
  const byKey = new Map(emits.map((emit) => [emit.key, emit]));
  const latest = new Map();
  const wrong = [];
  for (const { key } of member.arrivals) {
    const emit = byKey.get(key);
    const stream = `${emit.from}/${emit.source}`;
    const before = latest.get(stream);
    const position = emit.source === "socket" ? emit.seq : emit.sentAt;
    const overtaken = emit.source === "socket" ? emit.seq < before : emit.answeredAt < before;
    if (overtaken) wrong.push({ key, node: member.node, refused: emit.outcome === REFUSED });
    if (before === undefined || position > before) latest.set(stream, position);
  }
  return wrong;
}

function longestGap(member) {
  const times = member.arrivals.filter(({ key }) => key.startsWith(`${member.node}/`)).map(({ at }) => at);
  return times.slice(1).reduce((longest, at, index) => Math.max(longest, at - times[index]), 0);
}
