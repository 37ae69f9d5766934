// What nodes export under traffic, judged by Prometheus' own tool: nothing without a bound, nothing that does not add up.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { after, before, describe, test } from "node:test";
import { startBroker } from "../helpers/brokers.js";
import { TRANSPORTS, ask, connect, join, record } from "../helpers/clients.js";
import { emit, get, post } from "../helpers/api.js";
import { until } from "../helpers/deadline.js";
import { parseMetrics } from "../helpers/prometheus.js";
import { backendOf, configuration, startReceiver } from "../helpers/receiver.js";
import { startGateway, startNodes } from "../helpers/servers.js";

const websocket = TRANSPORTS.websocket;

/** The page of a node, which promtool has to find good. */
async function page(node) {
  const { text, status } = await get(node, "/metrics");
  assert.equal(status, 200);
  const checked = spawnSync("promtool", ["check", "metrics"], { input: text, encoding: "utf8" });
  assert.equal(checked.error, undefined);
  assert.equal(checked.status, 0, checked.stdout + checked.stderr);
  assert.equal(checked.stdout + checked.stderr, "");
  return parseMetrics(text);
}

/** The labels of each family but those of a histogram's buckets, and their values. */
function labels(families) {
  const found = {};
  for (const [name, { samples }] of families) {
    for (const { labels } of samples) {
      for (const [, label, value] of labels.matchAll(/(\w+)="([^"]*)"/g)) {
        if (label !== "le") (found[`${name} ${label}`] ??= new Set()).add(value);
      }
    }
  }
  return found;
}

for (const kind of ["redis", "nats"]) {
  describe(`two nodes over ${kind}`, () => {
    const stoppers = [];
    let nodes, receiver;
    before(async () => {
      const broker = await startBroker(kind);
      stoppers.push(() => broker.stop());
      receiver = await startReceiver();
      stoppers.push(receiver.stop);
      const { file } = configuration({
        adapter: { prefix: `metrics-${process.pid}` },
        backend: { orders: backendOf(receiver) },
        namespace: [
          {
            name: "/",
            room: [{ match: "*", join: "open", emit: "open" }],
            route: [{ event: "order", mode: "call", to: "orders" }],
          },
        ],
      });
      nodes = await startNodes(2, { adapter: broker, file });
      nodes.forEach((node) => stoppers.push(node.stop));
    });
    after(async () => {
      for (const stop of stoppers.reverse()) await stop();
    });

    test("emits of another node are measured from there", async () => {
      const far = await connect(nodes[1].url, websocket);
      await join(far, "board");
      const heard = record(far, "said");
      const count = async () => {
        const { samples } = (await page(nodes[1])).get("roomcast_remote_emit_to_write_seconds");
        const of = (suffix) => samples.find(({ name }) => name.endsWith(suffix)).value;
        return { count: of("_count"), sum: of("_sum") };
      };
      await until(async () => {
        const seen = heard.length;
        await emit(nodes[0], { rooms: ["board"] }, "said", 1);
        await heard.atLeast(seen + 1);
        return (await count()).count > 0;
      }, "emit with an age");
      const { count: writes, sum } = await count();
      assert.ok(sum > 0 && sum / writes < 20, `${sum} s in ${writes} writes`);
      far.disconnect();
    });

    test("signs of life come back from the broker", async () => {
      for (const node of nodes) {
        await until(async () => {
          const { samples } = (await page(node)).get("roomcast_bus_round_trip_seconds");
          return samples.find(({ name }) => name.endsWith("_count")).value > 0;
        }, "round trip");
      }
    });

    test("nothing that clients or callers choose makes a series", async () => {
      const [node] = nodes;
      const sockets = await Promise.all(Array.from({ length: 5 }, () => connect(node.url, websocket)));
      const before = labels(await page(node));
      for (const [number, socket] of sockets.entries()) {
        await join(socket, `room-${number}`);
        await ask(socket, "room:emit", `room-${number}`, `event-${number}`, number);
        await ask(socket, `unknown-${number}`);
        await ask(socket, "order", number);
        await post(node, `/v1/unknown-${number}`, {});
        await get(node, `/v1/rooms/room-${number}`);
        await get(node, `/v1/rooms/room-${number}?limit=x${number}`);
        await post(node, "/v1/emit", { event: `e-${number}`, to: { rooms: [`room-${number}`] } });
        await (await fetch(`${node.url}/socket.io/?EIO=${number + 5}&transport=t${number}`)).arrayBuffer();
      }
      sockets.forEach((socket) => socket.disconnect());
      const found = labels(await page(node));
      for (const [label, values] of Object.entries(found)) {
        assert.ok(values.size <= 30, `${label}: ${[...values]}`);
        for (const value of values) {
          assert.doesNotMatch(value, /room-|event-|unknown-|e-\d|t\d/, label);
        }
      }
      assert.deepEqual(
        Object.keys(found)
          .map((key) => key.split(" ")[1])
          .filter((label, index, all) => all.indexOf(label) === index)
          .sort(),
        // `source` are the ways in over brokers.
        ["backend", "call", "cause", "code", "commit", "features", "kind", "listener", "namespace", "of", "reason", "result", "rustc", "side", "source", "status", "transport", "type", "version"],
      );
      assert.deepEqual([...found["roomcast_backend_requests_total backend"]], ["orders"]);
      assert.ok(Object.keys(before).length > 10);
    });
  });
}

test("a node tells of its process, its runtime and its mailboxes", async (t) => {
  const gateway = await startGateway();
  t.after(gateway.stop);
  const socket = await connect(gateway.url, websocket);
  const value = (families, name) => families.get(name).samples.reduce((sum, sample) => sum + sample.value, 0);
  await until(async () => {
    const lag = (await page(gateway)).get("roomcast_event_loop_lag_seconds").samples;
    return lag.find(({ name }) => name.endsWith("_count")).value >= 2;
  }, "two looks at the event loop");
  const families = await page(gateway);
  assert.ok(value(families, "process_open_fds") > 5);
  assert.ok(value(families, "process_max_fds") > value(families, "process_open_fds"));
  assert.ok(value(families, "process_resident_memory_bytes") > 1_000_000);
  assert.ok(value(families, "process_threads") > 1);
  assert.ok(value(families, "roomcast_runtime_workers") >= 1);
  assert.ok(value(families, "roomcast_runtime_tasks") >= 1);
  assert.ok(value(families, "roomcast_runtime_busy_seconds_total") > 0);
  assert.equal(value(families, "roomcast_mailbox_packets"), 0);
  assert.equal(value(families, "roomcast_bus_outbox_messages"), 0);
  const build = families.get("roomcast_build_info").samples[0].labels;
  assert.match(build, /commit="\w+".*rustc="\d+\.\d+\.\d+[^"]*".*version="\d+\.\d+\.\d+"/);
  socket.disconnect();
});
