// Nodes behind load balancers that stick to nothing: each request of a client goes to the next node. Unmodified clients
// work with every transport, meet across the nodes, and leave nothing behind.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { accepted, emit } from "../helpers/api.js";
import { startBroker } from "../helpers/brokers.js";
import { TRANSPORTS, connect, connected, client, gatewayAsk, join, record } from "../helpers/clients.js";
import { KINDS, plain, stopAll } from "../helpers/cluster.js";
import { until } from "../helpers/deadline.js";
import { allEnded, metric, passed } from "../helpers/forwards.js";
import { pythonListener } from "../helpers/python.js";
import { Poll } from "../helpers/raw.js";
import { ROUND_ROBIN, startRoundRobin } from "../helpers/round-robin.js";
import { REFERENCE, startNodes } from "../helpers/servers.js";

const CLIENTS = 9;
const MANY = 60;
const NODES = { haproxy: 3, nginx: 2 };

for (const kind of KINDS) {
  for (const balancerKind of ROUND_ROBIN) {
    describe(`behind ${balancerKind} without stickiness, over ${kind}`, () => {
      const stoppers = [];
      let nodes, balancer;

      before(async () => {
        const broker = await startBroker(kind);
        stoppers.push(broker.stop);
        nodes = await startNodes(NODES[balancerKind], { adapter: broker });
        stoppers.push(...nodes.map((node) => node.stop));
        balancer = await startRoundRobin(balancerKind, nodes);
        stoppers.push(balancer.stop);
      });
      after(() => stopAll(stoppers));

      // Why all of this is here: what breaks Node's servers.
      test("Node's servers are not reached by polling", { skip: !REFERENCE }, async () => {
        for (let attempt = 0; attempt < 6; attempt++) {
          await assert.rejects(connect(balancer.url, TRANSPORTS.polling));
        }
      });

      for (const [name, transport] of Object.entries(TRANSPORTS)) {
        test(`${name}: clients meet, with text and binary, and are acknowledged`, { skip: REFERENCE }, async () => {
          const room = `rr-${kind}-${balancerKind}-${name}-${balancer.port}`;
          // A poll of an earlier test may be late, a WebSocket is not.
          const figure = (node) => passed(node, name === "websocket" ? "upgraded" : undefined);
          const before = await total(nodes, figure);
          const sockets = await Promise.all(Array.from({ length: CLIENTS }, () => connect(balancer.url, transport)));
          const events = sockets.map((socket) => record(socket));
          await Promise.all(sockets.map((socket) => join(socket, room)));
          // By itself: python-socketio has a thread for each packet, which many binary ones at once confuse.
          const quiet = `${room}-quiet`;
          const python = await pythonListener(balancer.url, transport.transports, quiet);
          stoppers.push(python.stop);

          await Promise.all(
            sockets.map((socket, index) => gatewayAsk(socket, "room:emit", room, "hi", index, Buffer.from([index, 255]))),
          );
          await emit(nodes[0], { rooms: [room, quiet] }, "from a backend", { $bin: "AQI=" });
          await python.atLeast(1);
          await gatewayAsk(sockets[0], "room:emit", quiet, "hi", "text");

          const hi = sockets.map((_, index) => ["hi", index, { $bin: Buffer.from([index, 255]).toString("base64") }]);
          const fromBackend = ["from a backend", { $bin: "AQI=" }];
          for (const [index, seen] of events.entries()) {
            await seen.atLeast(CLIENTS);
            assert.deepEqual(sorted(seen), sorted([...hi.filter((_, other) => other !== index), fromBackend]));
          }
          await python.atLeast(2);
          assert.deepEqual(python.received, [fromBackend, ["hi", "text"]]);

          sockets.forEach((socket) => socket.disconnect());
          // Before it goes: a balancer may not tell the nodes of a client that is gone.
          await accepted(nodes[0], "/v1/disconnect", { to: { sockets: [python.id] }, close: true });
          const connections = () => total(nodes, (node) => metric(node, "roomcast_connections"));
          await until(async () => (await connections()) === 0, "end of all connections");
          await python.stop();
          await allEnded(nodes);
          // Otherwise the balancer did stick, and nothing was tested. A handshake alone needs nobody else.
          const forwarded = (await total(nodes, figure)) - before;
          if (name === "websocket") assert.equal(forwarded, 0);
          else assert.ok(forwarded > CLIENTS, `${forwarded} requests were passed on`);
        });

        test(`${name}: large messages go both ways`, { skip: REFERENCE }, async () => {
          const room = `rr-large-${kind}-${balancerKind}-${name}-${balancer.port}`;
          const [sender, receiver] = await Promise.all([1, 2].map(() => connect(balancer.url, transport)));
          const seen = record(receiver);
          await join(receiver, room);
          const text = "ä".repeat(450_000);
          // Base64 makes it longer in a poll, and the limit is 1,000,000.
          const binary = Buffer.alloc(700_000, 7);
          await gatewayAsk(sender, "room:emit", room, "text", text);
          await gatewayAsk(sender, "room:emit", room, "binary", binary);
          await seen.atLeast(2);
          assert.ok(seen[0][1] === text && binary.equals(seen[1][1]));
          [sender, receiver].forEach((socket) => socket.disconnect());
          await allEnded(nodes);
        });
      }

      test("many clients at once, of every transport", { skip: REFERENCE }, async () => {
        const room = `rr-many-${kind}-${balancerKind}-${balancer.port}`;
        const all = Object.values(TRANSPORTS);
        const sockets = await Promise.all(
          Array.from({ length: MANY }, (_, index) => connect(balancer.url, all[index % all.length])),
        );
        const seen = sockets.map((socket) => record(socket));
        await Promise.all(sockets.map((socket) => join(socket, room)));
        await Promise.all(sockets.map((socket, index) => gatewayAsk(socket, "room:emit", room, "hi", index)));
        for (const [index, events] of seen.entries()) {
          await events.atLeast(MANY - 1);
          const others = sockets.map((_, other) => ["hi", other]).filter((_, other) => other !== index);
          assert.deepEqual(sorted(events), sorted(others));
        }
        sockets.forEach((socket) => socket.disconnect());
        await allEnded(nodes);
      });

      test("clients of a node that is killed come back elsewhere", { skip: REFERENCE }, async () => {
        const options = { ...TRANSPORTS.polling, reconnection: true, reconnectionDelay: 50, reconnectionDelayMax: 200 };
        const sockets = Array.from({ length: CLIENTS }, () => client(balancer.url, options));
        await Promise.all(sockets.map(connected));
        const tagOf = (socket) => socket.io.engine.id.slice(0, 4);
        const tags = new Map();
        for (const node of nodes) tags.set(await tagAt(node), node);
        const dead = tags.get(tagOf(sockets[0]));
        const alive = nodes.filter((node) => node !== dead);
        await dead.child.stop("SIGKILL");
        const isBack = (socket) => socket.connected && alive.includes(tags.get(tagOf(socket)));
        await until(() => sockets.every(isBack), "connection of every client to a node that lives");
        // They work, and not only seem to.
        const room = `rr-killed-${kind}-${balancerKind}-${balancer.port}`;
        const seen = sockets.map((socket) => record(socket, "after"));
        await Promise.all(sockets.map((socket) => join(socket, room)));
        await emit(alive[0], { rooms: [room] }, "after");
        await Promise.all(seen.map((events) => events.atLeast(1)));
        sockets.forEach((socket) => socket.disconnect());
        await allEnded(alive);
      });
    });
  }
}

const sorted = (events) => [...events].map((event) => JSON.stringify(plain(event))).sort();

async function total(nodes, figure) {
  const figures = await Promise.all(nodes.map((node) => figure(node)));
  return figures.reduce((sum, figure) => sum + figure, 0);
}

/** The first characters of the ids that a node gives out. */
async function tagAt(node) {
  const poll = await Poll.open(node);
  await poll.post("1");
  return poll.sid.slice(0, 4);
}
