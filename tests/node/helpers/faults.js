// The faults that are injected, and the rows that the tests write about them.
//
// A fault is one line here, one test per broker in ../failures/, one section and one row per broker in
// docs/operations/failure-modes.md. failures/page.test.js holds them together.

import { appendFileSync, existsSync, readFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";

/** Brokers of one server, and of several. */
const SINGLE = ["redis", "nats"];
const SEVERAL = ["redis-sentinel", "redis-cluster", "nats-cluster"];

/** The deployments that are tested when nothing else is said, and that the page has rows of. */
export const KINDS = [...SINGLE, ...SEVERAL];

const chosen = process.env.FAILURE_KINDS?.split(",") ?? KINDS;
export const SINGLE_KINDS = SINGLE.filter((kind) => chosen.includes(kind));
export const CLUSTER_KINDS = SEVERAL.filter((kind) => chosen.includes(kind));

/**
 * Every fault: the title of its section, and the kinds of broker that it is injected on (those of one server, when not
 * said).
 */
export const FAULTS = {
  "broker-killed": { title: "The broker is killed and restarted" },
  "broker-hung": { title: "The broker hangs" },
  "subscription-killed": { title: "A subscribing connection is killed" },
  "connection-reset": { title: "The connections of one node are reset" },
  "connection-stalled": { title: "The connections of one node stall" },
  "node-partitioned": { title: "One node is partitioned from the broker" },
  "node-partitioned-beyond-lease": { title: "One node is partitioned for longer than the lease" },
  "node-killed": { title: "A node is killed" },
  "node-hung": { title: "A node hangs and goes on" },
  "node-hung-beyond-lease": { title: "A node hangs for longer than the lease" },
  flood: { title: "A flood in one room" },
  torrent: { title: "A flood that is more than a node can read" },
  "slow-client": { title: "A client that does not read" },
  "dead-client": { title: "A client that is gone without a word" },
  "malformed-messages": { title: "Malformed messages on the broker" },
  "sentinel-failover": { title: "Sentinel fails over", kinds: ["redis-sentinel"] },
  "master-killed": { title: "A master of Redis Cluster is killed", kinds: ["redis-cluster"] },
  "server-killed": { title: "One NATS server of three is killed", kinds: ["nats-cluster"] },
  "server-partitioned": { title: "One NATS server of three is out of reach", kinds: ["nats-cluster"] },
};

/** The faults that are injected on a kind of broker. */
export const faultsOf = (kind) =>
  Object.keys(FAULTS).filter((id) => (FAULTS[id].kinds ?? SINGLE).includes(kind));

/** Where the rows go, a JSON object on each line. */
export const rowsFile = process.env.FAILURE_ROWS ?? path.join(os.tmpdir(), `roomcast-failures-${process.ppid}.jsonl`);

const COLUMNS = ["down_ms", "up_ms", "refused", "lost_in_fault", "lost_after_recovery", "duplicates", "longest_local_gap_ms"];

/** Writes what a test has measured, and prints it. What a fault cannot have is null; `more` is for people. */
export function recordRow(broker, fault, figures) {
  if (!FAULTS[fault]) throw new Error(`no such fault: ${fault}`);
  const row = { broker, fault };
  for (const column of COLUMNS) {
    const value = figures[column] ?? null;
    row[column] = typeof value === "number" ? Math.round(value) : value;
  }
  if (figures.more) row.more = figures.more;
  appendFileSync(rowsFile, `${JSON.stringify(row)}\n`);
  console.log(JSON.stringify(row));
}

/** What was written so far, the latest of each broker and fault. */
export function readRows(file = rowsFile) {
  if (!existsSync(file)) return [];
  const rows = new Map();
  for (const line of readFileSync(file, "utf8").split("\n").filter(Boolean)) {
    const row = JSON.parse(line);
    rows.set(`${row.broker} ${row.fault}`, row);
  }
  const order = Object.keys(FAULTS);
  return [...rows.values()].sort((a, b) => order.indexOf(a.fault) - order.indexOf(b.fault) || (a.broker < b.broker ? 1 : -1));
}

const shown = (value) => (value === null || value === undefined ? "–" : String(value));

/** A table in Markdown, numbers to the right. */
function table(head, texts, lines) {
  const line = (cells) => `| ${cells.map(shown).join(" | ")} |`;
  return [line(head), line(head.map((_, at) => (at < texts ? "---" : "---:"))), ...lines.map(line)].join("\n");
}

/** The rows of all faults as a table. */
export function faultTable(rows) {
  const head = ["fault", "broker", "down ms", "up ms", "refused", "lost in fault", "lost after", "twice", "local gap ms"];
  return table(head, 2, rows.map((row) => [FAULTS[row.fault].title, row.broker, ...COLUMNS.map((column) => row[column])]));
}

/** What the floods did to a small room beside them. */
export function floodTable(rows) {
  const head = ["fault", "broker", "members", "emits", "shed", "p99 ms before", "p99 ms meanwhile", "MiB at most", "slow consumers"];
  const figures = (more) => [more.members, more.sent, more.shed, more.p99_quiet, more.p99_flood, more.peak, more.slow_consumers];
  const floods = rows.filter(({ fault }) => ["flood", "torrent"].includes(fault));
  return table(head, 2, floods.map(({ fault, broker, more }) => [FAULTS[fault].title, broker, ...figures(more)]));
}
