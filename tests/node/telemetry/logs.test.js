// Logs for collectors: a JSON object in each line, with the trace it belongs to, at a level that changes while the node runs.

import assert from "node:assert/strict";
import { renameSync, writeFileSync } from "node:fs";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { traceparent } from "../helpers/collector.js";
import { until } from "../helpers/deadline.js";
import { temporaryDirectory } from "../helpers/processes.js";
import { startGateway } from "../helpers/servers.js";

describe("logs in JSON", () => {
  const file = path.join(temporaryDirectory(), "roomcast.json");
  let gateway;

  function write(level) {
    writeFileSync(`${file}.new`, JSON.stringify({ log: { format: "json", level }, reload: { interval: "0s" } }));
    renameSync(`${file}.new`, file);
  }

  const lines = () =>
    gateway.child.output
      .split("\n")
      .slice(0, -1)
      .filter((line) => line)
      .map((line) => JSON.parse(line));

  async function emit(header) {
    const response = await fetch(`${gateway.api}/v1/emit`, {
      method: "POST",
      headers: { "content-type": "application/json", traceparent: header },
      body: JSON.stringify({ event: "said", to: "all" }),
    });
    await response.arrayBuffer();
    assert.equal(response.status, 202);
  }

  before(async () => {
    write("info");
    gateway = await startGateway({ file });
  });
  after(() => gateway?.stop());

  test("each line is an object with a time, a level, a target and a message", () => {
    assert.ok(lines().length > 0);
    for (const line of lines()) {
      assert.ok(!Number.isNaN(Date.parse(line.timestamp)), JSON.stringify(line));
      assert.match(line.level, /^(INFO|WARN|ERROR)$/);
      assert.ok(line.target.startsWith("roomcast"));
      assert.equal(typeof line.fields.message, "string");
    }
  });

  test("SIGHUP has another level taken, and lines of a call name its trace", async () => {
    const quiet = traceparent();
    await emit(quiet.header);
    write("debug");
    gateway.child.kill("SIGHUP");
    const loud = traceparent();
    const of = ({ trace }) => lines().filter((line) => line.span?.trace_id === trace);
    await until(async () => {
      await emit(loud.header);
      return of(loud).length > 0;
    }, "line of the call");
    assert.deepEqual(of(quiet), []);
    const [line] = of(loud);
    assert.deepEqual([line.level, line.span.name, line.span.call], ["DEBUG", "call", "emit"]);

    write("info");
    gateway.child.kill("SIGHUP");
    await until(async () => {
      const again = traceparent();
      await emit(again.header);
      return of(again).length === 0;
    }, "call without a line");
  });
});
