// The API listener of one node on the memory adapter.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { accepted, emit, get, post, roomSize } from "../helpers/api.js";
import { TRANSPORTS, ask, connect, gatewayAsk, join, record } from "../helpers/clients.js";
import { next, until } from "../helpers/deadline.js";
import { parseMetrics } from "../helpers/prometheus.js";
import { startGateway } from "../helpers/servers.js";

let node;
let unique = 0;
const room = () => `api:${unique++}`;
const open = () => connect(node.url, TRANSPORTS.websocket);

before(async () => (node = await startGateway()));
after(() => node.stop());

describe("verbs", () => {
  test("emit reaches a room, with text and binary, and answers an id", async () => {
    const [member, stranger, name] = [await open(), await open(), room()];
    await join(member, name);
    const [atMember, atStranger] = [record(member), record(stranger)];
    const answer = await emit(node, { rooms: [name] }, "news", { a: 1 }, { $bin: "AQI=" });
    assert.equal(typeof answer.id, "string");
    assert.ok(answer.id.length > 0);
    await emit(node, "all", "fence");
    await Promise.all([atMember.atLeast(2), atStranger.atLeast(1)]);
    assert.deepEqual(atMember, [["news", { a: 1 }, Buffer.from([1, 2])], ["fence"]]);
    assert.deepEqual(atStranger, [["fence"]]);
    member.disconnect();
    stranger.disconnect();
  });

  test("emit gives one copy to a socket in many of the rooms, and none to an exception", async () => {
    const [x, y, one, two] = [await open(), await open(), room(), room()];
    for (const socket of [x, y]) for (const name of [one, two]) await join(socket, name);
    const [atX, atY] = [record(x), record(y)];
    await emit(node, { rooms: [one, two], sockets: [x.id] }, "once");
    await accepted(node, "/v1/emit", {
      namespace: "/",
      event: "but",
      args: [],
      to: { rooms: [one] },
      except: { sockets: [y.id] },
    });
    await emit(node, { rooms: [two] }, "fence");
    await Promise.all([atX.atLeast(3), atY.atLeast(2)]);
    assert.deepEqual(atX, [["once"], ["but"], ["fence"]]);
    assert.deepEqual(atY, [["once"], ["fence"]]);
    x.disconnect();
    y.disconnect();
  });

  test("join, rooms and leave", async () => {
    const [socket, name] = [await open(), room()];
    assert.equal(await roomSize(node, name), 0);
    await accepted(node, "/v1/join", { to: { sockets: [socket.id] }, rooms: [name] });
    await until(async () => (await roomSize(node, name)) === 1, "a member");
    await accepted(node, "/v1/leave", { to: { rooms: [name] }, rooms: [name] });
    await until(async () => (await roomSize(node, name)) === 0, "an empty room");
    socket.disconnect();
  });

  test("a socket that disconnects leaves its rooms", async () => {
    const [socket, name] = [await open(), room()];
    await join(socket, name);
    assert.equal(await roomSize(node, name), 1);
    socket.disconnect();
    await until(async () => (await roomSize(node, name)) === 0, "an empty room");
  });

  test("disconnect ends a namespace or the connection", async () => {
    for (const close of [false, true]) {
      const [socket, name] = [await open(), room()];
      await join(socket, name);
      const gone = next(socket, "disconnect");
      await accepted(node, "/v1/disconnect", { to: { rooms: [name] }, close });
      assert.equal((await gone)[0], "io server disconnect");
      socket.disconnect();
    }
  });
});

describe("room events of clients", () => {
  test("an emit reaches the room without a copy for the sender", async () => {
    const [sender, member, name] = [await open(), await open(), room()];
    await join(sender, name);
    await join(member, name);
    const [atSender, atMember] = [record(sender), record(member)];
    await gatewayAsk(sender, "room:emit", name, "news", "text", Buffer.from([1]), { deep: [Buffer.from([2])] });
    await emit(node, { rooms: [name] }, "fence");
    await Promise.all([atSender.atLeast(1), atMember.atLeast(2)]);
    assert.deepEqual(atMember, [["news", "text", Buffer.from([1]), { deep: [Buffer.from([2])] }], ["fence"]]);
    assert.deepEqual(atSender, [["fence"]]);
    sender.disconnect();
    member.disconnect();
  });

  test("an emit needs no acknowledgement", async () => {
    const [sender, member, name] = [await open(), await open(), room()];
    await join(member, name);
    const arrived = next(member, "news");
    sender.emit("room:emit", name, "news");
    assert.deepEqual(await arrived, []);
    sender.disconnect();
    member.disconnect();
  });

  test("who left hears no more", async () => {
    const [socket, name] = [await open(), room()];
    await join(socket, name);
    await gatewayAsk(socket, "room:leave", name);
    const events = record(socket);
    await emit(node, { rooms: [name] }, "lost");
    await emit(node, { sockets: [socket.id] }, "fence");
    await events.atLeast(1);
    assert.deepEqual(events, [["fence"]]);
    socket.disconnect();
  });

  test("nonsense is refused by the acknowledgement, and the socket lives", async (t) => {
    if (process.env.REFERENCE === "1") return t.skip("the reference gateway takes anything as a room");
    const [socket, name] = [await open(), room()];
    for (const args of [["room:join"], ["room:join", { a: 1 }], ["room:emit", name], ["room:emit", name, 7]]) {
      const [answer] = await ask(socket, ...args);
      assert.equal(typeof answer?.error?.code, "string", JSON.stringify(args));
      assert.equal(typeof answer.error.status, "number");
    }
    await join(socket, name);
    socket.disconnect();
  });
});

describe("errors", () => {
  const valid = { event: "x", args: [], to: "all" };
  for (const [name, path, body, statuses] of [
    ["emit without to", "/v1/emit", { ...valid, to: undefined }, [422]],
    ["emit with empty to", "/v1/emit", { ...valid, to: {} }, [422]],
    ["emit with no rooms in to", "/v1/emit", { ...valid, to: { rooms: [], users: [], sockets: [] } }, [422]],
    ["emit without event", "/v1/emit", { ...valid, event: undefined }, [400, 422]],
    ["join without to", "/v1/join", { rooms: ["x"] }, [422]],
    ["leave without to", "/v1/leave", { rooms: ["x"] }, [422]],
    ["disconnect without to", "/v1/disconnect", { close: true }, [422]],
    ["bad JSON", "/v1/emit", '{"event":', [400]],
  ]) {
    test(`${name} is refused with a problem document`, async () => {
      const answer = await post(node, path, body);
      assert.ok(statuses.includes(answer.status), `${answer.status} ${answer.text}`);
      assert.match(answer.type, /^application\/problem\+json/);
      assert.equal(answer.body.code, "invalid_request");
    });
  }

  test("an unknown path is 404", async () => {
    assert.equal((await get(node, "/v1/nothing")).status, 404);
  });

  test("the public listener carries none of it", async () => {
    for (const path of ["/metrics", "/readyz", "/livez", "/console", "/v1/rooms/x"]) {
      const response = await fetch(node.url + path);
      await response.arrayBuffer();
      assert.equal(response.status, 404, path);
    }
  });
});

describe("watching", () => {
  test("livez and readyz", async () => {
    assert.equal((await get(node, "/livez")).status, 200);
    assert.equal((await get(node, "/readyz")).status, 200);
  });

  test("metrics are in the Prometheus text format and count connections", async () => {
    const socket = await open();
    const answer = await get(node, "/metrics");
    assert.equal(answer.status, 200);
    assert.match(answer.type, /^text\/plain; version=0\.0\.4/);
    const families = parseMetrics(answer.text);
    const connections = families.get("roomcast_connections");
    assert.equal(connections?.type, "gauge");
    assert.ok(connections.samples.reduce((sum, { value }) => sum + value, 0) >= 1);
    socket.disconnect();
  });

  test("console is one page", async () => {
    const answer = await get(node, "/console");
    assert.equal(answer.status, 200);
    assert.match(answer.type, /^text\/html/);
  });
});
