// One trace over clients, backends and nodes, as an OpenTelemetry collector sees it.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import Redis from "ioredis";
import { connect as connectNats, headers as newHeaders } from "nats";
import { startBroker, startOwnBroker } from "../helpers/brokers.js";
import { TRANSPORTS, ask, connect, join, record } from "../helpers/clients.js";
import { startCollector, traceparent } from "../helpers/collector.js";
import { until } from "../helpers/deadline.js";
import { metric } from "../helpers/fault-cluster.js";
import { ingestUp } from "../helpers/ingest.js";
import { freePort } from "../helpers/processes.js";
import { backendOf, configuration, startReceiver } from "../helpers/receiver.js";
import { startGateway, startNodes } from "../helpers/servers.js";

const websocket = TRANSPORTS.websocket;

/** One after the other, so that nothing stops what it rests on. */
async function stopAll(stoppers) {
  for (const stop of stoppers.splice(0).reverse()) await stop();
}

/** The settings of a node that sends its traces to a collector. */
const traced = (collector, more = {}) => ({
  endpoint: collector.url,
  sample: 1,
  service_name: "gateway",
  headers: ["x-tenant=acme"],
  ...more,
});

const namespace = (backend) => [
  {
    name: "/",
    room: [{ match: "*", join: "open", emit: "open" }],
    route: backend
      ? [
          { event: "note", mode: "notify", to: backend },
          { event: "order", mode: "call", to: backend },
        ]
      : [],
  },
];

/** The span of a name, of which there has to be one. */
function only(spans, name, more = () => true) {
  const found = spans.filter((span) => span.name === name && more(span));
  assert.equal(found.length, 1, `${name} among ${JSON.stringify(spans)}`);
  return found[0];
}

/** Emits until the nodes tell each other of traces: that takes until each knows the version of the others. */
async function untilTold(collector, node) {
  await until(async () => {
    const { header } = traceparent();
    await post(node, { event: "warm", to: { rooms: ["board"] } }, { traceparent: header });
    return collector.spans.some((span) => span.name === "deliver");
  }, "remote delivery in a trace");
}

async function post(node, body, headers = {}) {
  const response = await fetch(`${node.api}/v1/emit`, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify(body),
  });
  await response.arrayBuffer();
  assert.equal(response.status, 202);
  return response.headers;
}

for (const kind of ["redis", "nats"]) {
  describe(`a trace over ${kind}`, () => {
    const stoppers = [];
    let collector, receiver, nodes, far, heard;
    before(async () => {
      const broker = await startBroker(kind);
      stoppers.push(() => broker.stop());
      collector = await startCollector();
      stoppers.push(collector.stop);
      receiver = await startReceiver();
      stoppers.push(receiver.stop);
      const { file } = configuration({
        adapter: { prefix: `trace-${process.pid}` },
        trace: traced(collector, { trust_clients: true }),
        backend: { orders: backendOf(receiver) },
        namespace: namespace("orders"),
      });
      nodes = await startNodes(2, { adapter: broker, file });
      nodes.forEach((node) => stoppers.push(node.stop));
      far = await connect(nodes[1].url, websocket);
      stoppers.push(async () => far.disconnect());
      await join(far, "board");
      heard = record(far, "placed", "said", "told");
      await untilTold(collector, nodes[0]);
    });
    after(async () => {
      await stopAll(stoppers);
      assert.deepEqual(receiver?.problems, []);
      assert.deepEqual(collector?.problems, []);
    });

    test("holds an event, its webhook, the emit of the reply, and its delivery on another node", async () => {
      receiver.answer = () => ({ ack: ["done"], emit: [{ event: "placed", to: { rooms: ["board"] } }] });
      const near = await connect(nodes[0].url, websocket);
      const seen = heard.length;
      assert.deepEqual(await ask(near, "order", { id: 7 }), ["done"]);
      await heard.atLeast(seen + 1);
      near.disconnect();
      const request = receiver.requests.at(-1);
      const [, trace, parent] = request.headers.traceparent.split("-");
      assert.equal(request.events[0].traceparent, request.headers.traceparent);
      const spans = await collector.trace(trace, 4);
      const event = only(spans, "client event");
      const call = only(spans, "ask backend");
      const emit = only(spans, "emit");
      const delivery = only(spans, "deliver");
      assert.deepEqual([event.kind, call.kind, emit.kind, delivery.kind], ["SERVER", "CLIENT", "PRODUCER", "CONSUMER"]);
      assert.equal(event.parent, undefined);
      assert.equal(call.parent, event.id);
      assert.equal(call.id, parent);
      assert.equal(emit.parent, event.id);
      assert.equal(delivery.parent, emit.id);
      assert.equal(delivery.attributes["roomcast.sockets"], 1);
      assert.ok(delivery.attributes["roomcast.travelled"] > 0);
      assert.equal(event.attributes["roomcast.event"], "order");
      assert.equal(call.attributes["roomcast.backend"], "orders");
      assert.equal(emit.attributes["roomcast.event"], "placed");
      assert.ok(event.start <= call.start && call.end <= event.end && emit.end <= event.end);
      assert.ok(spans.every((span) => span.resource["service.name"] === "gateway" && span.error === undefined));
      assert.ok(collector.requests.every(({ url, headers }) => url === "/v1/traces" && headers["x-tenant"] === "acme"));
    });

    test("begins with the handshake of a client that has one", async () => {
      const { header, trace, span } = traceparent();
      const near = await connect(nodes[0].url, { ...websocket, extraHeaders: { traceparent: header } });
      await ask(near, "room:emit", "board", "said", 1);
      near.emit("note", 2);
      const spans = await collector.trace(trace, 5);
      const emitted = only(spans, "client event", (one) => one.attributes["roomcast.event"] === "room:emit");
      const noted = only(spans, "client event", (one) => one.attributes["roomcast.event"] === "note");
      assert.deepEqual([emitted.parent, noted.parent], [span, span]);
      const emit = only(spans, "emit");
      assert.equal(emit.parent, emitted.id);
      assert.equal(only(spans, "deliver").parent, emit.id);
      const told = only(spans, "tell backend");
      assert.equal(told.parent, noted.id);
      await until(() => receiver.of("event").some((event) => event.traceparent === `00-${trace}-${told.id}-01`), "note");
      near.disconnect();
    });

    test("goes on from a call of the API, and comes back in its answer", async () => {
      const { header, trace, span } = traceparent();
      const seen = heard.length;
      const answered = await post(nodes[0], { event: "told", to: { rooms: ["board"] } }, { traceparent: header });
      assert.equal(answered.get("traceparent"), header);
      await heard.atLeast(seen + 1);
      const spans = await collector.trace(trace, 3);
      const call = only(spans, "call");
      assert.deepEqual([call.kind, call.parent, call.attributes["roomcast.call"]], ["SERVER", span, "emit"]);
      assert.equal(only(spans, "emit").parent, call.id);
      assert.equal(only(spans, "deliver").parent, only(spans, "emit").id);
    });

    test("holds an emit with acks, its delivery on another node, and the answers that came", async () => {
      far.removeAllListeners("asked").on("asked", (ack) => ack("yes"));
      for (const accept of ["application/json", "application/x-ndjson"]) {
        const { header, trace, span } = traceparent();
        const response = await fetch(`${nodes[0].api}/v1/request`, {
          method: "POST",
          headers: { "content-type": "application/json", accept, traceparent: header },
          body: JSON.stringify({ event: "asked", to: { rooms: ["board"] } }),
        });
        assert.match(await response.text(), /"yes"/);
        const spans = await collector.trace(trace, 3);
        const [call, emit, delivery] = ["call", "emit", "deliver"].map((name) => only(spans, name));
        assert.deepEqual([call.parent, emit.parent, delivery.parent], [span, call.id, emit.id]);
        assert.deepEqual([call.kind, call.attributes["roomcast.call"]], ["SERVER", "request"]);
        assert.deepEqual([emit.attributes["roomcast.acks.expected"], emit.attributes["roomcast.acks.received"]], [1, 1]);
        assert.deepEqual([delivery.kind, delivery.attributes["roomcast.sockets"]], ["CONSUMER", 1]);
        assert.equal(delivery.attributes["roomcast.travelled"], undefined);
        assert.ok(call.end >= emit.end);
      }
    });

    test("holds a call without a body, and what was wrong with it", async () => {
      for (const [path, name, error] of [["rooms/board", "room"], ["nodes", "nodes"], ["rooms?limit=0", "rooms", "invalid_request"]]) {
        const { header, trace, span } = traceparent();
        const response = await fetch(`${nodes[0].api}/v1/${path}`, { headers: { traceparent: header } });
        await response.arrayBuffer();
        const call = only(await collector.trace(trace, 1), "call");
        assert.deepEqual([call.parent, call.attributes["roomcast.call"], call.error], [span, name, error]);
      }
    });

    test("is not recorded when whoever began it says so, and goes to the backend all the same", async () => {
      receiver.answer = () => ({ ack: ["done"] });
      const { header, trace } = traceparent({ sampled: false });
      const near = await connect(nodes[0].url, { ...websocket, extraHeaders: { traceparent: header } });
      await ask(near, "order");
      near.disconnect();
      assert.equal(receiver.requests.at(-1).headers.traceparent, header);
      // A later one is there: the first would be.
      const later = traceparent();
      await post(nodes[0], { event: "told", to: "all" }, { traceparent: later.header });
      await collector.trace(later.trace, 2);
      assert.deepEqual(collector.spans.filter((span) => span.trace === trace), []);
    });

    test("says what failed", async () => {
      receiver.answer = () => ({ status: 500 });
      const { header, trace } = traceparent();
      const near = await connect(nodes[0].url, { ...websocket, extraHeaders: { traceparent: header } });
      const [answer] = await ask(near, "order");
      near.disconnect();
      const spans = await collector.trace(trace, 2);
      const call = only(spans, "ask backend");
      assert.equal(call.error, answer.error.code);
      assert.equal(call.attributes["error.type"], answer.error.code);
    });
  });
}

test("a backend over NATS is a part of the trace, in both directions", async (t) => {
  const stoppers = [];
  t.after(() => stopAll(stoppers));
  const broker = await startBroker("nats");
  stoppers.push(() => broker.stop());
  const collector = await startCollector();
  stoppers.push(collector.stop);
  const prefix = `nats-trace-${process.pid}`;
  const { file } = configuration({
    adapter: { prefix },
    ingest: { nats: { prefix } },
    trace: traced(collector),
    backend: { orders: { nats: true } },
    namespace: namespace("orders"),
  });
  const gateway = await startGateway({ adapter: broker, file });
  stoppers.push(gateway.stop);
  await ingestUp(gateway, "nats");
  const nc = await connectNats({ servers: broker.url });
  stoppers.push(() => nc.close());
  const headers = [];
  nc.subscribe(`${prefix}.in.event.>`, {
    callback: (_, message) => {
      headers.push(message.headers.get("traceparent"));
      message.respond(JSON.stringify({ ack: ["done"] }));
    },
  });
  await nc.flush();
  const socket = await connect(gateway.url, websocket);
  stoppers.push(async () => socket.disconnect());
  assert.deepEqual(await ask(socket, "order"), ["done"]);
  const [, trace, parent] = headers[0].split("-");
  const spans = await collector.trace(trace, 2);
  assert.equal(only(spans, "ask backend").id, parent);
  assert.equal(only(spans, "ask backend").parent, only(spans, "client event").id);

  const calling = traceparent();
  const given = newHeaders();
  given.set("traceparent", calling.header);
  await nc.request(`${prefix}.emit`, JSON.stringify({ event: "told", to: "all" }), { headers: given, timeout: 5_000 });
  const called = await collector.trace(calling.trace, 2);
  assert.equal(only(called, "call").parent, calling.span);
  assert.equal(only(called, "emit").parent, only(called, "call").id);
});

test("an entry of a Redis stream is a part of the trace that it names", async (t) => {
  const stoppers = [];
  t.after(() => stopAll(stoppers));
  const broker = await startOwnBroker("redis");
  stoppers.push(() => broker.stop());
  const collector = await startCollector();
  stoppers.push(collector.stop);
  const { file } = configuration({ trace: traced(collector), ingest: { stream: { enabled: true } } });
  const gateway = await startGateway({ adapter: broker, file });
  stoppers.push(gateway.stop);
  await ingestUp(gateway, "redis_stream");
  const redis = new Redis(broker.url);
  stoppers.push(() => redis.quit());
  const { header, trace, span } = traceparent();
  const body = JSON.stringify({ event: "told", to: "all" });
  await redis.xadd("roomcast:emit", "*", "body", body, "traceparent", header);
  const spans = await collector.trace(trace, 2);
  assert.equal(only(spans, "call").parent, span);
  assert.equal(only(spans, "emit").parent, only(spans, "call").id);
});

test("goes where the platform says, unless the configuration says it", async (t) => {
  const [platform, own] = await Promise.all([startCollector(), startCollector()]);
  t.after(() => Promise.all([platform.stop(), own.stop()]));
  const given = { OTEL_EXPORTER_OTLP_ENDPOINT: platform.url, OTEL_SERVICE_NAME: "by-platform", OTEL_EXPORTER_OTLP_COMPRESSION: "gzip" };
  const runs = [
    [{ env: given }, platform, "/v1/traces", "by-platform"],
    [{ env: { ...given, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: `${platform.url}/at/this/path` } }, platform, "/at/this/path", "by-platform"],
    [{ env: { ...given, OTEL_EXPORTER_OTLP_PROTOCOL: "grpc" } }],
    [{ env: given, file: configuration({ trace: traced(own) }).file }, own, "/v1/traces", "gateway"],
  ];
  for (const [options, collector, url, service] of runs) {
    const gateway = await startGateway(options);
    const { header, trace } = traceparent();
    await post(gateway, { event: "told", to: "all" }, { traceparent: header });
    await gateway.stop();
    const found = [platform, own].flatMap(({ spans }) => spans.filter((span) => span.trace === trace));
    assert.equal(found.length, collector ? 2 : 0);
    if (!collector) continue;
    assert.equal(collector.requests.at(-1).url, url);
    assert.ok(found.every((span) => collector.spans.includes(span) && span.resource["service.name"] === service));
  }
});

test("without a collector the node goes on, and counts what it drops", async (t) => {
  const away = { url: `http://127.0.0.1:${await freePort()}` };
  const { file } = configuration({ trace: traced(away, { queue: 2, timeout: "500ms" }), namespace: namespace() });
  const gateway = await startGateway({ file });
  t.after(gateway.stop);
  const socket = await connect(gateway.url, websocket);
  await join(socket, "board");
  const dropped = (reason) => metric(gateway, "trace_spans_dropped_total", { reason });
  await until(async () => {
    await Promise.all(Array.from({ length: 20 }, (_, number) => ask(socket, "room:emit", "board", "said", number)));
    return (await dropped("queue")) > 0 && (await dropped("export")) > 0;
  }, "spans that were dropped");
  assert.equal(await metric(gateway, "trace_spans_exported_total"), 0);
  assert.match(gateway.child.output, /spans cannot be sent/);
  socket.disconnect();
});

test("the last spans are sent before the node ends", async (t) => {
  const collector = await startCollector();
  t.after(collector.stop);
  const { file } = configuration({ trace: traced(collector) });
  const gateway = await startGateway({ file });
  const { header, trace } = traceparent();
  await post(gateway, { event: "last", to: "all" }, { traceparent: header });
  await gateway.stop();
  assert.equal(collector.spans.filter((span) => span.trace === trace).length, 2);
});

test("a share of 0 records nothing that begins here", async (t) => {
  const collector = await startCollector();
  t.after(collector.stop);
  const { file } = configuration({ trace: traced(collector, { sample: 0 }), namespace: namespace() });
  const gateway = await startGateway({ file });
  const socket = await connect(gateway.url, websocket);
  for (let number = 0; number < 50; number += 1) await ask(socket, "room:emit", "board", "said", number);
  await post(gateway, { event: "told", to: "all" });
  socket.disconnect();
  // At its end a node sends what it has.
  await gateway.stop();
  assert.deepEqual([collector.spans, collector.requests], [[], []]);
});

test("a client has nothing recorded by saying so, and backends see its trace all the same", async (t) => {
  const stoppers = [];
  t.after(() => stopAll(stoppers));
  const [collector, receiver] = await Promise.all([startCollector(), startReceiver()]);
  stoppers.push(collector.stop, receiver.stop);
  receiver.answer = () => ({ ack: ["done"] });
  const { file } = configuration({
    trace: traced(collector, { sample: 0 }),
    backend: { orders: backendOf(receiver) },
    namespace: [{ ...namespace("orders")[0], connected: "orders", disconnected: "orders" }],
  });
  const gateway = await startGateway({ file });
  const { header, trace, span } = traceparent();
  const socket = await connect(gateway.url, { ...websocket, extraHeaders: { traceparent: header } });
  assert.deepEqual(await ask(socket, "order"), ["done"]);
  const { header: trusted, trace: ofCaller } = traceparent();
  await post(gateway, { event: "told", to: "all" }, { traceparent: trusted });
  socket.disconnect();
  await until(() => receiver.of("disconnected").length === 1, "disconnected");
  // At its end a node sends what it has.
  await gateway.stop();
  assert.deepEqual([...new Set(collector.spans.map((one) => one.trace))], [ofCaller]);
  const seen = ["connected", "event", "disconnected"].map((type) => receiver.of(type)[0].traceparent);
  assert.deepEqual(seen, Array(3).fill(`00-${trace}-${span}-00`));
});
