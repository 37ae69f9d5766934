// Socket.IO v5 as its protocol document describes it, packet by packet, over polling and over WebSocket.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { Poll, connectWs, openWs } from "../helpers/raw.js";
import { startTestServer } from "../helpers/servers.js";

let server;
before(async () => (server = await startTestServer()));
after(() => server.stop());

/** The JSON behind the digits and the namespace of a packet. */
const payload = (packet) => JSON.parse(packet.slice(packet.search(/[[{]/)));

function assertConnected(packet, prefix) {
  assert.ok(packet.startsWith(prefix), packet);
  const reply = payload(packet);
  assert.deepEqual(Object.keys(reply), ["sid"]);
  assert.match(reply.sid, /^[A-Za-z0-9_-]{20}$/);
  return reply.sid;
}

describe("connect", () => {
  test("to the main namespace", async () => {
    const ws = await openWs(server);
    ws.send("40");
    const sid = assertConnected(await ws.receive(), "40{");
    assert.notEqual(sid, ws.handshake.sid, "the socket's id is public, the session's is secret");
    assert.equal(await ws.receive(), '42["auth",{}]');
    ws.close();
  });

  test("to the main namespace with a payload", async () => {
    const ws = await openWs(server);
    ws.send('40{"token":"123","deep":{"a":[1,null]}}');
    assertConnected(await ws.receive(), "40{");
    assert.equal(await ws.receive(), '42["auth",{"token":"123","deep":{"a":[1,null]}}]');
    ws.close();
  });

  test("to a custom namespace, with and without a payload", async () => {
    for (const [connect, auth] of [
      ["40/custom,", "{}"],
      ["40/custom", "{}"],
      ['40/custom,{"token":"abc"}', '{"token":"abc"}'],
    ]) {
      const ws = await openWs(server);
      ws.send(connect);
      assertConnected(await ws.receive(), "40/custom,{");
      assert.equal(await ws.receive(), `42/custom,["auth",${auth}]`);
      ws.close();
    }
  });

  test("to a namespace that a pattern makes", async () => {
    const ws = await openWs(server);
    ws.send("40/dynamic-101,");
    assertConnected(await ws.receive(), "40/dynamic-101,{");
    assert.equal(await ws.receive(), '42/dynamic-101,["auth",{}]');
    ws.send("40/dynamic-x,");
    assert.equal(await ws.receive(), '44/dynamic-x,{"message":"Invalid namespace"}');
    ws.close();
  });

  test("to several namespaces on one connection, with an id in each", async () => {
    const ws = await connectWs(server);
    ws.send("40/custom,");
    const id = assertConnected(await ws.receive(), "40/custom,{");
    assert.notEqual(id, payload(ws.connected).sid);
    await ws.receive();
    ws.send('42["message","main"]');
    ws.send('42/custom,["message","custom"]');
    assert.equal(await ws.receive(), '42["message-back","main"]');
    assert.equal(await ws.receive(), '42/custom,["message-back","custom"]');
    ws.close();
  });

  test("over polling", async () => {
    const session = await Poll.open(server);
    await session.post('40{"over":"polling"}');
    const [connected, auth] = await session.receiveAll(2);
    assertConnected(connected, "40{");
    assert.equal(auth, '42["auth",{"over":"polling"}]');
  });

  test("to an unknown namespace is an error and leaves the connection open", async () => {
    const ws = await openWs(server);
    ws.send("40/random,");
    assert.equal(await ws.receive(), '44/random,{"message":"Invalid namespace"}');
    ws.send("40");
    assertConnected(await ws.receive(), "40{");
    ws.close();
  });

  test("that a middleware refuses is an error with its data", async () => {
    const ws = await openWs(server);
    ws.send("40/forbidden,");
    assert.deepEqual(payload(await ws.receive()), { message: "not allowed", data: { code: "E1" } });
    ws.close();
  });

  test("with a malformed handshake packet closes the connection", async () => {
    for (const bad of ["4abc", "40{", "40[]", "4", "40/custom,[1]"]) {
      const ws = await openWs(server);
      ws.send(bad);
      assert.equal(await ws.closeCode(), 1005, bad);
    }
  });
});

describe("disconnect", () => {
  test("by the client leaves the other namespaces connected", async () => {
    const ws = await connectWs(server);
    ws.send("40/custom,");
    await ws.receive();
    await ws.receive();
    ws.send("41");
    ws.send('42/custom,1["message-with-ack"]');
    assert.equal(await ws.receive(), "43/custom,1[]");
    ws.close();
  });

  test("by the client lets it connect to the namespace again", async () => {
    const ws = await connectWs(server);
    ws.send("40/custom,");
    await ws.receive();
    await ws.receive();
    ws.send("41/custom,");
    // The fence: the main namespace answers after the disconnect has been done.
    ws.send('421["message-with-ack"]');
    assert.equal(await ws.receive(), "431[]");
    ws.send("40/custom,");
    assertConnected(await ws.receive(), "40/custom,{");
    ws.close();
  });

  test("by the server ends one namespace, or the connection", async () => {
    const ws = await connectWs(server);
    ws.send("40/custom,");
    await ws.receive();
    await ws.receive();
    ws.send('42["bye",false]');
    assert.equal(await ws.receive(), "41");
    ws.send('42/custom,["message","still here"]');
    assert.equal(await ws.receive(), '42/custom,["message-back","still here"]');
    ws.send('42/custom,["bye",true]');
    assert.equal(await ws.receive(), "41/custom,");
    assert.equal(await ws.closeCode(), 1005);
  });

  test("an event to a namespace that was left closes the connection", async () => {
    const ws = await connectWs(server);
    ws.send('42["bye",false]');
    assert.equal(await ws.receive(), "41");
    ws.send('42["message"]');
    assert.equal(await ws.closeCode(), 1005);
  });
});

describe("event", () => {
  const args = '1,"2",{"3":[true]},null,[[]],"€ 👋🏽 \\u0000",-1.5e-7';

  test("comes with all kinds of plain arguments", async () => {
    const ws = await connectWs(server);
    ws.send(`42["message",${args}]`);
    assert.deepEqual(payload(await ws.receive()), ["message-back", ...JSON.parse(`[${args}]`)]);
    ws.send('42["message"]');
    assert.equal(await ws.receive(), '42["message-back"]');
    ws.close();
  });

  test("in a custom namespace", async () => {
    const ws = await openWs(server);
    ws.send("40/custom,");
    await ws.receive();
    await ws.receive();
    ws.send('42/custom,["message",1,"2",{"3":[false]}]');
    assert.equal(await ws.receive(), '42/custom,["message-back",1,"2",{"3":[false]}]');
    ws.close();
  });

  test("with an acknowledgement gets one, under the same id", async () => {
    const ws = await connectWs(server);
    ws.send('42456["message-with-ack",1,"2",{"3":[false]}]');
    assert.equal(await ws.receive(), '43456[1,"2",{"3":[false]}]');
    ws.send('420["message-with-ack"]');
    assert.equal(await ws.receive(), "430[]");
    ws.send("40/custom,");
    await ws.receive();
    await ws.receive();
    ws.send('42/custom,7["message-with-ack",1]');
    assert.equal(await ws.receive(), "43/custom,7[1]");
    ws.close();
  });

  test("of the server asks for an acknowledgement and gets it", async () => {
    const ws = await connectWs(server);
    ws.send('42["ack-me"]');
    const ask = await ws.receive();
    const [, id] = /^42(\d+)\["ask"\]$/.exec(ask) ?? assert.fail(ask);
    ws.send(`43${id}["yes",{"n":1}]`);
    assert.equal(await ws.receive(), '42["answered","yes",{"n":1}]');
    // An id is good for one answer.
    ws.send(`43${id}["again"]`);
    ws.send('421["message-with-ack"]');
    assert.equal(await ws.receive(), "431[]");
    ws.close();
  });

  test("over polling: several in one payload, with acknowledgements", async () => {
    const session = await Poll.open(server);
    await session.post("40");
    await session.receiveAll(2);
    await session.post('42["message",1]\x1e423["message-with-ack",2]\x1e42["message",3]');
    assert.deepEqual(await session.receiveAll(3), ['42["message-back",1]', "433[2]", '42["message-back",3]']);
  });
});

describe("binary", () => {
  const one = Buffer.from([1, 2, 3]);
  const two = Buffer.from([4, 5, 6]);
  const nested = '{"_placeholder":true,"num":0},{"deep":[{"_placeholder":true,"num":1}]}';

  test("event", async () => {
    const ws = await connectWs(server);
    ws.send(`452-["message",${nested}]`);
    ws.send(one);
    ws.send(two);
    assert.equal(await ws.receive(), `452-["message-back",${nested}]`);
    assert.deepEqual(await ws.receive(), one);
    assert.deepEqual(await ws.receive(), two);
    ws.close();
  });

  test("event in a custom namespace", async () => {
    const ws = await openWs(server);
    ws.send("40/custom,");
    await ws.receive();
    await ws.receive();
    ws.send('451-/custom,["message",{"_placeholder":true,"num":0}]');
    ws.send(one);
    assert.equal(await ws.receive(), '451-/custom,["message-back",{"_placeholder":true,"num":0}]');
    assert.deepEqual(await ws.receive(), one);
    ws.close();
  });

  test("acknowledgement of the server", async () => {
    const ws = await connectWs(server);
    ws.send(`452-789["message-with-ack",${nested}]`);
    ws.send(one);
    ws.send(two);
    assert.equal(await ws.receive(), `462-789[${nested}]`);
    assert.deepEqual(await ws.receive(), one);
    assert.deepEqual(await ws.receive(), two);
    ws.close();
  });

  test("acknowledgement of the client", async () => {
    const ws = await connectWs(server);
    ws.send('42["ack-me"]');
    const [, id] = /^42(\d+)/.exec(await ws.receive());
    ws.send(`461-${id}[{"_placeholder":true,"num":0}]`);
    ws.send(one);
    assert.equal(await ws.receive(), '451-["answered",{"_placeholder":true,"num":0}]');
    assert.deepEqual(await ws.receive(), one);
    ws.close();
  });

  test("over polling is base64", async () => {
    const session = await Poll.open(server);
    await session.post("40");
    await session.receiveAll(2);
    await session.post(`452-["message",${nested}]\x1ebAQID\x1ebBAUG`);
    assert.deepEqual(await session.receiveAll(3), [`452-["message-back",${nested}]`, "bAQID", "bBAUG"]);
  });

  test("ten attachments are allowed", async () => {
    const ws = await connectWs(server);
    const placeholders = Array.from({ length: 10 }, (_, num) => ({ _placeholder: true, num }));
    ws.send(`4510-["message",${JSON.stringify(placeholders)}]`);
    for (let i = 0; i < 10; i++) ws.send(Buffer.from([i]));
    assert.equal(await ws.receive(), `4510-["message-back",${JSON.stringify(placeholders)}]`);
    for (let i = 0; i < 10; i++) assert.deepEqual(await ws.receive(), Buffer.from([i]));
    ws.close();
  });
});

describe("rooms", () => {
  test("an emit to a room reaches the others in it, once, and nobody else", async () => {
    const [sender, member, stranger] = await Promise.all([connectWs(server), connectWs(server), connectWs(server)]);
    for (const [ws, id] of [[sender, 1], [member, 2]]) {
      ws.send(`42${id}["join","room-${server.port}"]`);
      assert.equal(await ws.receive(), `43${id}[]`);
    }
    sender.send(`42["broadcast","room-${server.port}","news",{"n":1}]`);
    assert.equal(await member.receive(), '42["news",{"n":1}]');
    for (const ws of [sender, member, stranger]) {
      // The fence: had another copy been on its way, it would stand before the answer.
      ws.send('429["message-with-ack"]');
      assert.equal(await ws.receive(), "439[]");
      ws.close();
    }
  });

  test("every socket is in the room of its id", async () => {
    const ws = await connectWs(server);
    const { sid } = payload(ws.connected);
    ws.send('421["who"]');
    assert.deepEqual(payload(await ws.receive()), [{ id: sid, rooms: [sid], transport: "websocket" }]);
    ws.close();
  });
});
