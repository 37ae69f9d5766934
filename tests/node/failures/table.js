// Writes what the fault tests have measured into docs/operations/failure-modes.md, between its two markers:
//
//     UPDATE_FAILURE_TABLE=1 ./tests/run failures

import { readFileSync, writeFileSync } from "node:fs";
import os from "node:os";
import { EXPIRY_MS, HEARTBEAT_MS, LEASE_MS } from "../helpers/fault-cluster.js";
import { faultTable, floodTable, readRows } from "../helpers/faults.js";

const page = new URL("../../../docs/operations/failure-modes.md", import.meta.url);
const BEGIN = "<!-- measured: begin -->";
const END = "<!-- measured: end -->";

const rows = readRows();
const gib = Math.round(os.totalmem() / 2 ** 30);
const measured = `${BEGIN}
Measured on ${new Date().toISOString().slice(0, 10)}: ${os.cpus().length} cores, ${gib} GiB, everything on one machine, a debug build;
\`heartbeat\` ${HEARTBEAT_MS} ms, \`expiry\` ${EXPIRY_MS / 1_000} s, \`lease\` ${LEASE_MS / 1_000} s, three nodes, 450 emits a second.

${faultTable(rows)}

The floods:

${floodTable(rows)}
${END}`;

const text = readFileSync(page, "utf8");
const [begin, end] = [text.indexOf(BEGIN), text.indexOf(END)];
if (begin < 0 || end < begin) throw new Error("the page has lost its markers");
writeFileSync(page, text.slice(0, begin) + measured + text.slice(end + END.length));
console.log(`${rows.length} rows written`);
