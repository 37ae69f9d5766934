// The calls of a backend on a cluster: repetitions, answers of clients, lists, whichever node is asked.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { accepted, emit, get, post } from "../helpers/api.js";
import { startBroker } from "../helpers/brokers.js";
import { TRANSPORTS, connect, join, record } from "../helpers/clients.js";
import { KINDS, stopAll } from "../helpers/cluster.js";
import { next, until, within } from "../helpers/deadline.js";
import { startGateway, startNodes } from "../helpers/servers.js";

/** Posts with headers. */
async function call(node, path, body, headers = {}, signal) {
  const response = await fetch(node.api + path, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify(body),
    signal,
  });
  return { status: response.status, response, body: headers.accept ? undefined : await response.json() };
}

for (const kind of KINDS) {
  describe(`calls over ${kind}`, () => {
    const stoppers = [];
    let broker;
    let nodes;
    let sockets;
    let unique = 0;
    // With colons: a name that looks like the id of a socket is no room that a client may join.
    const name = (what) => `${what}:${kind}:${nodes[0].port}:${unique++}`;
    const knowEachOther = (some) =>
      until(async () => {
        const lists = await Promise.all(some.map(async (node) => (await get(node, "/v1/nodes")).body.nodes.length));
        return lists.every((length) => length === lists[0]) && lists[0] >= some.length;
      }, "nodes that know each other");

    before(async () => {
      broker = await startBroker(kind);
      stoppers.push(broker.stop);
      nodes = await startNodes(3, { adapter: broker });
      stoppers.push(...nodes.map((node) => node.stop));
      await knowEachOther(nodes);
      sockets = await Promise.all(nodes.map((node) => connect(node.url, TRANSPORTS.websocket)));
      stoppers.push(() => sockets.forEach((socket) => socket.disconnect()));
    });
    after(() => stopAll(stoppers));

    /** Each socket joins, and every node counts all of them. */
    async function joinAll(room) {
      for (const socket of sockets) await join(socket, room);
      for (const node of nodes) {
        const count = async () => (await get(node, `/v1/rooms/${room}`)).body.sockets === sockets.length;
        await until(count, "members");
      }
    }

    test("a call with a key is carried out once, on whatever nodes it is repeated", async () => {
      const room = name("once");
      await joinAll(room);
      const records = sockets.map((socket) => record(socket, "paid", "fence"));
      for (let round = 0; round < 10; round++) {
        const headers = { "idempotency-key": name("key") };
        const body = { event: "paid", args: [round], to: { rooms: [room] } };
        // At once on all nodes, and once more on each.
        const answers = await Promise.all(nodes.map((node) => call(node, "/v1/emit", body, headers)));
        for (const node of nodes) answers.push(await call(node, "/v1/emit", body, headers));
        assert.deepEqual(answers.map(({ status }) => status), Array(6).fill(202), JSON.stringify(answers.map((a) => a.body)));
        assert.equal(new Set(answers.map(({ body }) => body.id)).size, 1);
        assert.equal(answers.filter(({ body }) => body.duplicate).length, 5);
        const other = await call(nodes[round % 3], "/v1/emit", { ...body, args: ["other"] }, headers);
        assert.deepEqual([other.status, other.body.code], [409, "idempotency_mismatch"]);
      }
      for (const node of nodes) await emit(node, { rooms: [room] }, "fence");
      for (const received of records) {
        await until(() => received.filter(([event]) => event === "fence").length === 3, "fences");
        const paid = received.filter(([event]) => event === "paid").map(([, round]) => round);
        assert.deepEqual(paid.sort((a, b) => a - b), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
      }
      sockets.forEach((socket) => socket.offAny());
    });

    test("a repetition is known when a node that knew of it was killed, and when others have come", async () => {
      const victim = await startGateway({ adapter: broker });
      stoppers.push(victim.stop);
      await knowEachOther([...nodes, victim]);
      const room = name("killed");
      const body = { event: "e", to: { rooms: [room] } };
      const keys = Array.from({ length: 30 }, () => ({ "idempotency-key": name("key") }));
      const first = await Promise.all(keys.map((key, at) => call([...nodes, victim][at % 4], "/v1/emit", body, key)));
      assert.ok(first.every(({ status }) => status === 202));
      await victim.child.stop("SIGKILL");
      await until(async () => (await get(nodes[0], "/v1/nodes")).body.nodes.length === 3, "the death of a node");
      const later = await startGateway({ adapter: broker });
      stoppers.push(later.stop);
      await knowEachOther([...nodes, later]);
      for (const [at, key] of keys.entries()) {
        const again = await call([...nodes, later][(at + 1) % 4], "/v1/emit", body, key);
        assert.deepEqual([again.status, again.body.id, again.body.duplicate], [202, first[at].body.id, true], `${at}`);
      }
      await later.stop();
      await until(async () => (await get(nodes[0], "/v1/nodes")).body.nodes.length === 3, "the goodbye of a node");
    });

    test("answers come from all nodes, in one answer and by lines", async () => {
      const room = name("asked");
      await joinAll(room);
      sockets.forEach((socket, at) => socket.on("which", (ack) => ack(at, Buffer.from([at]))));
      const { body } = await call(nodes[1], "/v1/request", { event: "which", to: { rooms: [room] } });
      assert.deepEqual([body.expected, body.received, body.timed_out, body.lost_nodes], [3, 3, [], []]);
      const byId = Object.fromEntries(body.acks.map(({ socket, args }) => [socket, args]));
      sockets.forEach((socket, at) => {
        assert.deepEqual(byId[socket.id], [at, { $bin: Buffer.from([at]).toString("base64") }]);
      });
      const lines = { accept: "application/x-ndjson" };
      const { response } = await call(nodes[2], "/v1/request", { event: "which", to: { rooms: [room] } }, lines);
      assert.equal(response.headers.get("content-type"), "application/x-ndjson");
      const parsed = (await response.text()).trimEnd().split("\n").map((line) => JSON.parse(line));
      assert.deepEqual(parsed.map((line) => Boolean(line.done)), [false, false, false, true]);
      assert.deepEqual(new Set(parsed.slice(0, 3).map(({ socket }) => socket)), new Set(sockets.map(({ id }) => id)));
      assert.deepEqual(parsed[3], { expected: 3, received: 3, timed_out: [], lost_nodes: [], done: true });
      const first = await call(nodes[0], "/v1/request", { event: "which", to: { rooms: [room] }, expect: "first" });
      assert.deepEqual([first.body.received, first.body.timed_out], [1, []]);
      sockets.forEach((socket) => socket.off("which"));
    });

    test("an ack is a line as it comes, and who does not answer is named at the end", async () => {
      const room = name("late");
      await joinAll(room);
      let answer;
      sockets[0].on("slow", (ack) => ack("at once"));
      sockets[1].on("slow", (ack) => (answer = ack));
      const body = { event: "slow", to: { rooms: [room] }, timeout: 3000 };
      const { response } = await call(nodes[2], "/v1/request", body, { accept: "application/x-ndjson" });
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      const line = async () => JSON.parse((await within(reader.read(), "a line")).value);
      assert.deepEqual(await line(), { socket: sockets[0].id, args: ["at once"] });
      // Nothing but this ack brings the next line.
      await until(() => answer, "the question");
      answer("later");
      assert.deepEqual(await line(), { socket: sockets[1].id, args: ["later"] });
      const last = await line();
      assert.deepEqual([last.done, last.expected, last.received, last.timed_out], [true, 3, 2, [sockets[2].id]]);
      sockets.forEach((socket) => socket.off("slow"));
    });

    test("a caller that goes away is waited for by nobody", async () => {
      const room = name("gone");
      await joinAll(room);
      let asked = 0;
      sockets.forEach((socket) => socket.on("never", () => asked++));
      const waiting = async (node) => {
        const { text } = await get(node, "/metrics");
        return Number(/^roomcast_acks_awaited (\d+)$/m.exec(text)[1]);
      };
      const gone = new AbortController();
      const body = { event: "never", to: { rooms: [room] }, timeout: 60000 };
      const request = call(nodes[0], "/v1/request", body, {}, gone.signal);
      await until(() => asked === 3, "the questions");
      assert.deepEqual(await Promise.all(nodes.map(waiting)), [1, 1, 1]);
      gone.abort();
      await assert.rejects(request, { name: "AbortError" });
      await until(async () => (await Promise.all(nodes.map(waiting))).every((count) => count === 0), "nobody waiting");
      sockets.forEach((socket) => socket.off("never"));
    });

    test("a node that was killed is named, and hides nothing of what the others said", async () => {
      const victim = await startGateway({ adapter: broker });
      stoppers.push(victim.stop);
      await knowEachOther([...nodes, victim]);
      const lost = (await get(victim, "/v1/nodes")).body.node;
      const there = await connect(victim.url, { ...TRANSPORTS.websocket, reconnection: false });
      const [room, id] = [name("lost"), there.id];
      for (const socket of [...sockets, there]) await join(socket, room);
      let asked;
      const killed = new Promise((resolve) => (asked = resolve));
      sockets.forEach((socket, at) => socket.on("who", (ack) => ack(at)));
      there.on("who", () => asked());
      const request = call(nodes[0], "/v1/request", { event: "who", to: { rooms: [room] }, timeout: 30000 });
      await within(killed, "the question on the node that dies");
      // What it emits now comes behind its word about whom it asked, which is known to the others then.
      const behind = next(sockets[0], "behind");
      await accepted(victim, "/v1/emit", { event: "behind", to: { rooms: [room] } });
      await behind;
      await victim.child.stop("SIGKILL");
      const { status, body } = await request;
      assert.equal(status, 200);
      assert.deepEqual([body.received, body.expected, body.lost_nodes], [3, 4, [lost]]);
      assert.deepEqual(body.timed_out, [id]);
      there.disconnect();
      sockets.forEach((socket) => socket.off("who"));
      await until(async () => (await get(nodes[0], "/v1/nodes")).body.nodes.length === 3, "the death of a node");
    });

    test("rooms are listed on every node, by pages, with counts of the cluster", async () => {
      const prefix = name("listed");
      const rooms = Array.from({ length: 7 }, (_, at) => `${prefix}:${at}`);
      for (const room of rooms) for (const socket of sockets) await join(socket, room);
      for (const node of nodes) {
        await until(async () => {
          const found = [];
          let cursor = prefix;
          while (cursor !== undefined) {
            const { status, body, text } = await get(node, `/v1/rooms?limit=3&cursor=${encodeURIComponent(cursor)}`);
            assert.equal(status, 200, text);
            assert.deepEqual(body.missing_nodes, []);
            found.push(...body.rooms);
            cursor = body.rooms.at(-1)?.room.startsWith(prefix) ? body.cursor : undefined;
          }
          const listed = found.filter(({ room }) => room.startsWith(prefix));
          return JSON.stringify(listed) === JSON.stringify(rooms.map((room) => ({ room, sockets: 3 })));
        }, "all rooms with all members");
      }
    });

    test("a socket and the sockets of a user are found and ended from any node", async () => {
      const user = name("u");
      await Promise.all([sockets[1], sockets[2]].map((socket) =>
        call(nodes[0], "/v1/join", { to: { sockets: [socket.id] }, rooms: [`user:${user}`] })));
      for (const node of nodes) {
        const { status, body } = await get(node, `/v1/sockets/${sockets[2].id}`);
        assert.deepEqual([status, body.id, body.node], [200, sockets[2].id, sockets[2].id.slice(0, 4)]);
        assert.ok(body.rooms.includes(`user:${user}`));
        const found = (await get(node, `/v1/users/${user}/sockets`)).body;
        assert.deepEqual(found.sockets.map(({ id }) => id), [sockets[1].id, sockets[2].id].sort());
      }
      const ends = [sockets[1], sockets[2]].map((socket) => new Promise((resolve) => socket.once("disconnect", resolve)));
      const response = await fetch(`${nodes[0].api}/v1/users/${user}/sockets`, { method: "DELETE" });
      assert.equal(response.status, 200, await response.text());
      assert.deepEqual(await within(Promise.all(ends), "disconnects"), Array(2).fill("io server disconnect"));
      assert.equal((await get(nodes[0], `/v1/sockets/${"A".repeat(20)}`)).status, 404);
      assert.equal((await post(nodes[0], "/v1/emit", {})).status, 422);
    });
  });
}
