// Requests by hand that come to a node which does not have their session: what is on the wire is as if they had come to the
// right one, what ends here ends there, and nobody but a node can pass anything on.

import assert from "node:assert/strict";
import http from "node:http";
import { after, before, describe, test } from "node:test";
import { emit } from "../helpers/api.js";
import { startBroker } from "../helpers/brokers.js";
import { KINDS, stopAll } from "../helpers/cluster.js";
import { pause, until, within } from "../helpers/deadline.js";
import { allEnded, metric, passed, received, underWay } from "../helpers/forwards.js";
import { Child, freePort } from "../helpers/processes.js";
import { Poll, SOCKET_IO, Ws, polling, refusal, request, wsUrl } from "../helpers/raw.js";
import { REFERENCE, startGateway, startNodes } from "../helpers/servers.js";

const UNKNOWN_SID = '{"code":1,"message":"Session ID unknown"}';

/** A session of the first node whose requests go to the nodes in turn, never to the first one's own first. */
class Stray extends Poll {
  static async open(nodes) {
    const poll = await Poll.open(nodes[0]);
    return Object.assign(new Stray(nodes[0], SOCKET_IO, poll.handshake), { nodes, turn: 0 });
  }

  at(node) {
    return polling(node, SOCKET_IO, `&sid=${this.sid}`);
  }

  next() {
    return this.at(this.nodes[++this.turn % this.nodes.length]);
  }

  get(options) {
    return within(request(this.next(), options), "answer to a poll");
  }

  post(body, headers) {
    return within(request(this.next(), { method: "POST", body, headers }), "answer to a POST");
  }
}

/** The handshake, a namespace, and a room. */
async function joined(nodes, room) {
  const poll = await Stray.open(nodes);
  assert.equal((await poll.post("40")).text, "ok");
  assert.match((await poll.receiveAll(1))[0], /^40\{"sid":/);
  await poll.post(`421["room:join","${room}"]`);
  assert.match((await poll.receiveAll(1))[0], /^431\[/);
  return poll;
}

const connections = (node) => metric(node, "roomcast_connections");
const ended = (node) => until(async () => (await connections(node)) === 0, "end of the session");

describe("requests that come to the wrong node", { skip: REFERENCE }, () => {
  for (const kind of KINDS) {
    describe(`over ${kind}`, () => {
      const stoppers = [];
      let nodes, peerPort;

      before(async () => {
        const broker = await startBroker(kind);
        stoppers.push(broker.stop);
        peerPort = await freePort();
        const env = {
          ROOMCAST__CORS__ORIGINS: '["https://shop.example"]',
          ROOMCAST__ENGINE__PER_MESSAGE_DEFLATE__ENABLED: "true",
        };
        const first = startGateway({ adapter: broker, env: { ...env, ROOMCAST__PEER__LISTEN: `127.0.0.1:${peerPort}` } });
        const others = startNodes(2, { adapter: broker, env });
        nodes = [await first, ...(await others)];
        stoppers.push(...nodes.map((node) => node.stop));
      });
      after(() => stopAll(stoppers));

      test("every request of a session may come to another node", async () => {
        const [a, b] = [await joined(nodes, "alternating"), await joined([...nodes].reverse(), "alternating")];
        const message = '["room:emit","alternating","e","text"]';
        for (let round = 0; round < 6; round++) {
          await a.post(`42${message}`);
          assert.deepEqual(await b.receiveAll(1), ['42["e","text"]']);
          await b.post('451-["room:emit","alternating","e",{"_placeholder":true,"num":0}]\x1ebAQI=');
          assert.deepEqual(await a.receiveAll(2), ['451-["e",{"_placeholder":true,"num":0}]', "bAQI="]);
        }
        await a.post("1");
        await b.post("1");
        await allEnded(nodes);
      });

      test("an answer is the one of the node that has the session", async () => {
        const headers = { origin: "https://shop.example" };
        const answers = [];
        for (const node of nodes.slice(0, 2)) {
          const poll = await Stray.open(nodes);
          const send = (options) => request(poll.at(node), { headers, ...options });
          const posted = await send({ method: "POST", body: "40" });
          const polled = await send({});
          const tooLong = await send({ method: "POST", body: "4".repeat(1_000_001) });
          const wrong = await send({ method: "PUT", body: "x" });
          answers.push([posted, polled, tooLong, wrong].map((answer) => [answer.status, shape(answer.headers)]));
          await poll.post("1");
        }
        assert.deepEqual(answers[1], answers[0]);
        assert.deepEqual(answers[0].map(([status]) => status), [200, 200, 413, 500]);
        assert.equal(answers[1][1][1]["access-control-allow-origin"], "https://shop.example");
      });

      test("a WebSocket is passed on, with compression and in both kinds of frames", async () => {
        const poll = await joined(nodes, "upgrading");
        const held = poll.get();
        const query = `EIO=4&transport=websocket&sid=${poll.sid}`;
        const ws = new Ws(wsUrl(nodes[1], SOCKET_IO, query), { perMessageDeflate: { threshold: 0 } });
        await within(ws.opened, "opening of the WebSocket");
        assert.match(ws.socket.extensions, /permessage-deflate/);
        ws.send("2probe");
        assert.equal(await ws.receive(), "3probe");
        assert.equal((await held).text, "6");
        ws.send("5");
        const other = await joined([nodes[2], nodes[0]], "upgrading");
        await other.post('451-["room:emit","upgrading","e",{"_placeholder":true,"num":0}]\x1ebAQI=');
        assert.equal(await ws.receive(), '451-["e",{"_placeholder":true,"num":0}]');
        assert.deepEqual(await ws.receive(), Buffer.from([1, 2]));
        ws.send('42["room:emit","upgrading","back","x"]');
        assert.deepEqual(await other.receiveAll(1), ['42["back","x"]']);
        assert.ok((await passed(nodes[1], "upgraded")) >= 1);
        // The close goes both ways, with its code.
        ws.close();
        assert.equal(await ws.closeCode(), 1005);
        await other.post("1");
        await Promise.all(nodes.map(ended));
        await allEnded(nodes);
      });

      test("a WebSocket that is cut ends its session", async () => {
        const poll = await joined(nodes, "cut");
        const ws = new Ws(wsUrl(nodes[1], SOCKET_IO, `EIO=4&transport=websocket&sid=${poll.sid}`));
        await within(ws.opened, "opening of the WebSocket");
        ws.send("2probe");
        assert.equal(await ws.receive(), "3probe");
        ws.send("5");
        await until(() => metric(nodes[0], "roomcast_connections", "websocket"), "upgrade");
        ws.terminate();
        await ended(nodes[0]);
        await allEnded(nodes);
      });

      test("a poll that is aborted ends its session", async () => {
        const poll = await joined(nodes, "aborted");
        const abort = new AbortController();
        const before = await passed(nodes[1], "aborted");
        const held = fetch(poll.at(nodes[1]), { signal: abort.signal });
        await underWay(nodes[1], 1);
        await until(async () => (await metric(nodes[0], "roomcast_forwards_active", "owner")) === 1, "poll at its node");
        abort.abort();
        await assert.rejects(held);
        await ended(nodes[0]);
        assert.equal((await passed(nodes[1], "aborted")) - before, 1);
        const answer = await request(poll.at(nodes[1]));
        assert.deepEqual([answer.status, answer.text], [400, UNKNOWN_SID]);
        await allEnded(nodes);
      });

      test("a POST that is aborted ends its session", async () => {
        const poll = await joined(nodes, "half");
        const post = http.request(poll.at(nodes[1]), { method: "POST", headers: { "content-length": 100 } });
        post.on("error", () => {});
        post.write("4");
        await underWay(nodes[1], 1);
        post.destroy();
        await ended(nodes[0]);
        await allEnded(nodes);
      });

      test("two polls at once end the session, whichever nodes they come to", async () => {
        const poll = await joined(nodes, "overlap");
        const held = request(poll.at(nodes[1]));
        await underWay(nodes[1], 1);
        assert.equal((await request(poll.at(nodes[2]))).status, 400);
        await held;
        await ended(nodes[0]);
      });

      test("a session that no node has is unknown", async () => {
        for (const sid of ["AAAAaaaaaaaaaaaaaaaa", "short", `${"é".repeat(20)}`]) {
          const answer = await request(polling(nodes[1], SOCKET_IO, `&sid=${encodeURIComponent(sid)}`));
          assert.deepEqual([answer.status, answer.text], [400, UNKNOWN_SID]);
        }
        const poll = await Stray.open(nodes);
        const gone = poll.sid.slice(0, 4) + "a".repeat(16);
        const answer = await request(polling(nodes[1], SOCKET_IO, `&sid=${gone}`));
        assert.deepEqual([answer.status, answer.text], [400, UNKNOWN_SID]);
        const upgrade = await refusal(wsUrl(nodes[1], SOCKET_IO, `EIO=4&transport=websocket&sid=${gone}`));
        assert.deepEqual([upgrade.status, upgrade.text], [400, "Session ID unknown"]);
        await poll.post("1");
      });

      test("the listener for nodes takes nothing from others", async () => {
        const poll = await Stray.open(nodes);
        const at = `http://127.0.0.1:${peerPort}`;
        const target = `${SOCKET_IO}?EIO=4&transport=polling`;
        const stamp = `1;${poll.sid.slice(0, 4)};${Date.now()};10.9.9.9:1;1;${"A".repeat(43)}`;
        const cases = [
          [target, {}, "unsigned"],
          [`${target}&sid=${poll.sid}`, {}, "unsigned"],
          ["/", {}, "unsigned"],
          ["/metrics", {}, "unsigned"],
          [`${target}&sid=${poll.sid}`, { "roomcast-forwarded": stamp }, "forged"],
          [target, { "roomcast-forwarded": "1" }, "forged"],
        ];
        for (const [path, headers, reason] of cases) {
          const count = await received(nodes[0], reason);
          const answer = await request(at + path, { headers });
          assert.deepEqual([answer.status, answer.text, answer.headers.get("roomcast-refused")], [403, "", reason]);
          assert.equal((await received(nodes[0], reason)) - count, 1);
        }
        // It is not waited for a body that never comes.
        const post = http.request(`${at}${target}`, { method: "POST", headers: { "content-length": 100 } });
        post.flushHeaders();
        const [answer] = await within(new Promise((resolve) => post.on("response", (...args) => resolve(args))), "answer");
        assert.equal(answer.statusCode, 403);
        post.on("error", () => {}).destroy();
        await poll.post("1");
      });

      test("a client that says to be a node is heard like any other", async () => {
        const headers = { "roomcast-forwarded": "1;AAAA;0;10.9.9.9:1;1;AAAA" };
        const poll = await Stray.open(nodes);
        assert.equal((await poll.post("40", headers)).status, 200);
        assert.equal((await poll.get({ headers })).status, 200);
        const open = await request(polling(nodes[1], SOCKET_IO), { headers });
        assert.equal(open.status, 200);
        assert.equal(open.headers.get("roomcast-refused"), null);
        await new Poll(nodes[1], SOCKET_IO, JSON.parse(open.text.slice(1))).post("1");
        await poll.post("1");
      });
    });
  }
});

describe("when passing on does not work", { skip: REFERENCE }, () => {
  const stoppers = [];
  let broker;

  before(async () => {
    broker = await startBroker("redis");
    stoppers.push(broker.stop);
  });
  after(() => stopAll(stoppers));

  const start = async (count, env, prefix) => {
    const nodes = await startNodes(count, { adapter: broker, env: { ...env, ROOMCAST__ADAPTER__PREFIX: prefix } });
    stoppers.push(...nodes.map((node) => node.stop));
    return nodes;
  };

  test("what is more than may be under way gets 503, and its turn later", async () => {
    const nodes = await start(2, { ROOMCAST__PEER__MAX_REQUESTS: "2" }, "bound");
    const polls = [];
    while (polls.length < 3) polls.push(await joinedQuietly(nodes));
    const aborts = [new AbortController(), new AbortController()];
    const held = polls.slice(0, 2).map((poll, at) => fetch(poll.at(nodes[1]), { signal: aborts[at].signal }).catch(() => {}));
    await underWay(nodes[1], 2);
    const refused = await request(polls[2].at(nodes[1]));
    assert.deepEqual([refused.status, refused.headers.get("retry-after")], [503, "1"]);
    assert.equal(JSON.parse(refused.text).code, "full");
    assert.equal(await passed(nodes[1], "full"), 1);
    aborts.forEach((abort) => abort.abort());
    await Promise.all(held);
    await allEnded(nodes);
    assert.equal((await request(polls[2].at(nodes[1]), { method: "POST", body: "1" })).status, 200);
  });

  test("a node that is killed in the middle of a poll is a clean error, one that left is unknown", async () => {
    const nodes = await start(3, { ROOMCAST__CORS__ORIGINS: '["https://shop.example"]' }, "killed");
    const [killed, left] = [await joinedQuietly(nodes), await joinedQuietly([nodes[2], nodes[1]])];
    const held = request(killed.at(nodes[1]), { headers: { origin: "https://shop.example" } });
    await underWay(nodes[1], 1);
    await nodes[0].child.stop("SIGKILL");
    const answer = await within(held, "answer");
    assert.deepEqual([answer.status, JSON.parse(answer.text).code], [502, "broken"]);
    assert.equal(answer.headers.get("access-control-allow-origin"), "https://shop.example");
    // Until its silence is noticed.
    const next = await request(killed.at(nodes[1]));
    assert.deepEqual([next.status, JSON.parse(next.text).code], [502, "unreachable"]);
    const upgrade = await refusal(wsUrl(nodes[1], SOCKET_IO, `EIO=4&transport=websocket&sid=${killed.sid}`));
    assert.equal(upgrade.status, 502);

    const last = request(left.at(nodes[1]));
    await underWay(nodes[1], 1);
    await nodes[2].stop();
    assert.deepEqual([(await last).status, (await last).text], [200, "1"]);
    const unknown = await request(left.at(nodes[1]));
    assert.deepEqual([unknown.status, unknown.text], [400, UNKNOWN_SID]);
    await allEnded([nodes[1]]);
  });

  test("a node that hangs is given up", async () => {
    const env = { ROOMCAST__ENGINE__PING_INTERVAL: "300ms", ROOMCAST__ENGINE__PING_TIMEOUT: "200ms" };
    const nodes = await start(2, env, "hanging");
    const poll = await joinedQuietly(nodes);
    nodes[0].child.kill("SIGSTOP");
    const answer = await within(request(poll.at(nodes[1])), "answer");
    nodes[0].child.kill("SIGCONT");
    assert.deepEqual([answer.status, JSON.parse(answer.text).code], [504, "timed_out"]);
    await ended(nodes[0]);
    await allEnded(nodes);
  });

  test("a node that has to go at once leaves nobody waiting", async () => {
    const nodes = await start(2, {}, "stopping");
    const [poll, upgraded] = [await joinedQuietly(nodes), await joinedQuietly(nodes)];
    const ws = new Ws(wsUrl(nodes[1], SOCKET_IO, `EIO=4&transport=websocket&sid=${upgraded.sid}`));
    await within(ws.opened, "opening of the WebSocket");
    ws.send("2probe");
    assert.equal(await ws.receive(), "3probe");
    ws.send("5");
    const held = request(poll.at(nodes[1])).catch((error) => ({ error }));
    await underWay(nodes[1], 2);
    // Two of them mean at once: there is no time to give polls back.
    for (const signal of ["SIGTERM", "SIGINT"]) nodes[1].child.kill(signal);
    await within(nodes[1].child.ended, "end of the node");
    const answer = await within(held, "answer");
    assert.ok(answer.error || answer.status === 503, String(answer.status));
    assert.equal(await ws.closeCode(), 1006);
    await ended(nodes[0]);
  });

  test("a node that ends in peace gives polls back, and ends WebSockets one after the other", async () => {
    const env = { ROOMCAST__DRAIN__PERIOD: "3s", ROOMCAST__DRAIN__GRACE: "1h" };
    const nodes = await start(2, env, "peace");
    const sockets = [];
    for (let i = 0; i < 8; i++) {
      const session = await joinedQuietly(nodes);
      const ws = new Ws(wsUrl(nodes[1], SOCKET_IO, `EIO=4&transport=websocket&sid=${session.sid}`));
      await within(ws.opened, "opening of the WebSocket");
      ws.send("2probe");
      assert.equal(await ws.receive(), "3probe");
      ws.send("5");
      sockets.push(ws);
    }
    const poll = await joinedQuietly(nodes);
    const held = request(poll.at(nodes[1]));
    await underWay(nodes[1], 9);
    const closes = sockets.map((ws) => within(ws.closed, "close of the WebSocket").then(() => performance.now()));
    nodes[1].child.kill("SIGTERM");
    const times = await Promise.all(closes);
    assert.ok(Math.max(...times) - Math.min(...times) > 300, "all at once");
    // There is nothing to say: its client is to ask again, elsewhere.
    const answer = await within(held, "answer");
    assert.deepEqual([answer.status, answer.text], [200, "6"]);
    assert.equal(answer.headers.get("connection"), "close");
    assert.deepEqual(await within(nodes[1].child.ended, "end of the node"), { code: 0, signal: null });
    assert.equal(await connections(nodes[0]), 1);
    await emit(nodes[0], "all", "news", 1);
    assert.equal((await request(poll.at(nodes[0]))).text, '42["news",1]');
    // Nobody polls for its session any more: it would wait for that.
    await nodes[0].child.stop("SIGKILL");
  });

  test("a node that ends lets a WebSocket become its session's transport first", async () => {
    const env = { ROOMCAST__DRAIN__PERIOD: "1ms", ROOMCAST__DRAIN__GRACE: "1h" };
    const nodes = await start(2, env, "becoming");
    const session = await joinedQuietly(nodes);
    const ws = new Ws(wsUrl(nodes[1], SOCKET_IO, `EIO=4&transport=websocket&sid=${session.sid}`));
    await within(ws.opened, "opening of the WebSocket");
    ws.send("2probe");
    assert.equal(await ws.receive(), "3probe");
    // A stock client has put its polling aside now: without this WebSocket it would be deaf and dumb for 45 seconds.
    nodes[1].child.kill("SIGTERM");
    await until(() => nodes[1].child.output.includes("closing the connections"), "the turn of what is passed on");
    await pause(300);
    ws.send("5");
    await until(() => metric(nodes[0], "roomcast_connections", "websocket"), "upgrade");
    await within(ws.closed, "close of the WebSocket");
    assert.deepEqual(await within(nodes[1].child.ended, "end of the node"), { code: 0, signal: null });
    await ended(nodes[0]);
  });

  test("without it, each node knows its own sessions only", async () => {
    const nodes = await start(2, { ROOMCAST__PEER__ENABLED: "false" }, "off");
    const poll = await Poll.open(nodes[0]);
    const answer = await request(polling(nodes[1], SOCKET_IO, `&sid=${poll.sid}`));
    assert.deepEqual([answer.status, answer.text], [400, UNKNOWN_SID]);
    await poll.post("1");
  });

  test("an address that is taken ends the start", async () => {
    const [node] = await start(1, {}, "taken");
    const env = {
      ROOMCAST__PUBLIC__LISTEN: "127.0.0.1:0",
      ROOMCAST__API__LISTEN: "127.0.0.1:0",
      ROOMCAST__ADAPTER__KIND: "redis",
      ROOMCAST__ADAPTER__URL: broker.url,
      ROOMCAST__PEER__LISTEN: `127.0.0.1:${node.port}`,
    };
    const child = new Child(process.env.ROOMCAST_BIN, [], { env });
    const { code } = await within(child.ended, "end of the process");
    assert.equal(code, 1);
    assert.match(child.output, new RegExp(`cannot listen on 127.0.0.1:${node.port} \\(peer.listen\\)`));
  });
});

/** A session of the first node that has nothing to say. */
async function joinedQuietly(nodes) {
  const poll = await Stray.open(nodes);
  await poll.post("40");
  await poll.receiveAll(1);
  return poll;
}

/** The headers that say something of the answer, and not of the connection. */
function shape(headers) {
  const { date: _date, connection: _connection, "keep-alive": _keepAlive, ...rest } = Object.fromEntries(headers);
  return rest;
}
