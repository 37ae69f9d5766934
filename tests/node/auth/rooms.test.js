// Rooms of users, and what a token grants. Two nodes: what holds on one holds for clients of the other.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { emit } from "../helpers/api.js";
import { startBroker } from "../helpers/brokers.js";
import { TRANSPORTS, ask, client, connect, connected, join, record } from "../helpers/clients.js";
import { KINDS, stopAll } from "../helpers/cluster.js";
import { startGateway, startNodes } from "../helpers/servers.js";
import { refused, signer, withSecret } from "../helpers/tokens.js";

const FORBIDDEN = [{ error: { code: "forbidden", status: 403 } }];
const OK = [{ ok: true }];

const rules = `
[backend.away]
webhook = "http://127.0.0.1:9/"
secrets = ["whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3"]
[[namespace]]
name = "/"
[[namespace.room]]
match = "order:{id}"
join = "claims"
emit = "members"
[[namespace.room]]
match = "desk:*"
join = "never"
emit = "claims"
[[namespace.room]]
match = "asked:*"
join = "webhook"
[[namespace.room]]
match = "*"
`;

for (const kind of KINDS) {
  describe(`rooms of users over ${kind}`, () => {
    const stoppers = [];
    let a, b, shared;
    before(async () => {
      const broker = await startBroker(kind);
      stoppers.push(broker.stop);
      [a, b] = await startNodes(2, { adapter: broker, env: withSecret, toml: rules });
      stoppers.push(a.stop, b.stop);
      shared = await signer("HS256");
    });
    after(() => stopAll(stoppers));

    const as = async (node, user, roomcast, options = TRANSPORTS.websocket) =>
      connect(node.url, { ...options, auth: { token: await shared.token(user, roomcast ? { roomcast } : {}) } });

    for (const [name, options] of Object.entries(TRANSPORTS)) {
      test(`${name}: a user is reached on all sockets from the moment they are connected`, async () => {
        const user = `u-${kind}-${name}-${a.port}`;
        const token = await shared.token(user);
        const one = client(a.url, { ...options, auth: { token } });
        const first = record(one);
        await connected(one);
        // Emitted on the other node at once.
        await emit(b, { users: [user] }, "hello", 1);
        await first.atLeast(1);
        const two = await as(b, user, undefined, options);
        const second = record(two);
        await emit(a, { users: [user] }, "both", 2);
        await Promise.all([first.atLeast(2), second.atLeast(1)]);
        assert.deepEqual(first, [["hello", 1], ["both", 2]]);
        assert.deepEqual(second, [["both", 2]]);
        one.disconnect();
        two.disconnect();
      });
    }

    test("nobody joins, leaves or writes into the room of a user", async () => {
      const [ada, eve] = [await as(a, "ada"), await as(a, "eve", { join: ["*"], emit: ["*"] })];
      for (const room of ["user:ada", "user:eve", "user:"]) {
        assert.deepEqual(await ask(eve, "room:join", room), FORBIDDEN, room);
        assert.deepEqual(await ask(eve, "room:leave", room), FORBIDDEN, room);
        assert.deepEqual(await ask(eve, "room:emit", room, "x"), FORBIDDEN, room);
      }
      // Nor the room of another socket, though writing to a socket is as free as the rule.
      assert.deepEqual(await ask(eve, "room:join", ada.id), FORBIDDEN);
      assert.deepEqual(await ask(eve, "room:leave", ada.id), FORBIDDEN);
      assert.deepEqual(await ask(eve, "room:leave", eve.id), FORBIDDEN);
      const events = record(ada);
      assert.deepEqual(await ask(eve, "room:emit", ada.id, "hi"), OK);
      await emit(b, { users: ["ada"] }, "fence");
      await events.atLeast(2);
      assert.deepEqual(events, [["hi"], ["fence"]]);
      ada.disconnect();
      eve.disconnect();
    });

    test("claims grant joins and emits", async () => {
      const buyer = await as(a, "buyer", { join: ["order:42"] });
      const other = await as(b, "other", { join: ["order:{id}:x"], emit: ["desk:1"] });
      assert.deepEqual(await ask(buyer, "room:join", "order:42"), OK);
      assert.deepEqual(await ask(buyer, "room:join", "order:43"), FORBIDDEN);
      assert.deepEqual(await ask(other, "room:join", "order:42"), FORBIDDEN);
      // Members may emit, others not.
      assert.deepEqual(await ask(buyer, "room:emit", "order:42", "x"), OK);
      assert.deepEqual(await ask(other, "room:emit", "order:42", "x"), FORBIDDEN);
      assert.deepEqual(await ask(other, "room:emit", "desk:1", "x"), OK);
      assert.deepEqual(await ask(other, "room:emit", "desk:2", "x"), FORBIDDEN);
      assert.deepEqual(await ask(buyer, "room:emit", "desk:1", "x"), FORBIDDEN);
      assert.deepEqual(await ask(other, "room:join", "desk:1"), FORBIDDEN);
      buyer.disconnect();
      other.disconnect();
    });

    test("a claim puts the client into rooms before it is connected", async () => {
      const room = `lobby-${kind}-${a.port}`;
      const token = await shared.token("guest", { roomcast: { rooms: [room] } });
      const guest = client(b.url, { ...TRANSPORTS.websocket, auth: { token } });
      const events = record(guest);
      await connected(guest);
      await emit(a, { rooms: [room] }, "welcome");
      await events.atLeast(1);
      assert.deepEqual(events, [["welcome"]]);
      // It is a room like others: it can be left.
      assert.deepEqual(await ask(guest, "room:leave", room), OK);
      guest.disconnect();
    });

    test("a refresh replaces what the token grants", async () => {
      const socket = await as(a, "buyer", { join: ["order:1"] });
      assert.deepEqual(await ask(socket, "room:join", "order:2"), FORBIDDEN);
      const [answer] = await ask(socket, "auth:refresh", await shared.token("buyer", { roomcast: { join: ["order:2"] } }));
      assert.equal(answer.ok, true);
      assert.deepEqual(await ask(socket, "room:join", "order:2"), OK);
      assert.deepEqual(await ask(socket, "room:join", "order:1"), FORBIDDEN);
      socket.disconnect();
    });

    test("a room that the backend has to allow is closed while the backend is away", async () => {
      const socket = await as(a, "u");
      const answer = await ask(socket, "room:join", "asked:1");
      assert.deepEqual(answer, [{ error: { code: "backend_unavailable", status: 503 } }]);
      await join(socket, "free");
      socket.disconnect();
    });

    test("a claim that cannot be read refuses the client", async () => {
      const token = await shared.token("u", { roomcast: { join: "order:*" } });
      const { data } = await refused(a.url, { auth: { token } });
      assert.deepEqual(data, { code: "token_invalid", status: 401 });
    });
  });
}

test("open rooms are closed where they belong to users and sockets", async () => {
  const node = await startGateway();
  try {
    const [one, two] = [await connect(node.url, TRANSPORTS.websocket), await connect(node.url, TRANSPORTS.websocket)];
    const tag = one.id.slice(0, 4);
    for (const room of ["user:7", two.id, tag + "A".repeat(16)]) {
      assert.deepEqual(await ask(one, "room:join", room), FORBIDDEN, room);
      assert.deepEqual(await ask(one, "room:leave", room), FORBIDDEN, room);
    }
    assert.deepEqual(await ask(one, "room:emit", "user:7", "x"), FORBIDDEN);
    assert.deepEqual(await ask(one, "room:join", one.id), OK, "it is there already");
    const like = (tag === "AAAA" ? "B" : "A").repeat(20);
    assert.deepEqual(await ask(one, "room:join", like), OK, "of no node: a name like others");
    one.disconnect();
    two.disconnect();
  } finally {
    await node.stop();
  }
});

test("a rule that begins with user: opens writing to users", async () => {
  const toml = `[[namespace]]\nname = "/"\n[[namespace.room]]\nmatch = "user:{id}"\nemit = "claims"\n`;
  const node = await startGateway({ env: withSecret, toml });
  try {
    const shared = await signer("HS256");
    const token = (user, emits) => shared.token(user, { roomcast: { emit: emits } });
    const ada = await connect(node.url, { ...TRANSPORTS.websocket, auth: { token: await token("ada", []) } });
    const bob = await connect(node.url, { ...TRANSPORTS.websocket, auth: { token: await token("bob", ["user:ada"]) } });
    const events = record(ada);
    assert.deepEqual(await ask(bob, "room:emit", "user:ada", "hi", 1), OK);
    await events.atLeast(1);
    assert.deepEqual(events, [["hi", 1]]);
    assert.deepEqual(await ask(ada, "room:emit", "user:bob", "hi"), FORBIDDEN);
    assert.deepEqual(await ask(bob, "room:join", "user:ada"), FORBIDDEN);
    ada.disconnect();
    bob.disconnect();
  } finally {
    await node.stop();
  }
});
