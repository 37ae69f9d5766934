// docs/operations/failure-modes.md against the tests and the code: every fault has its section and its measured rows, and
// what the page quotes exists.

import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { test } from "node:test";
import { FAULTS, KINDS, faultsOf } from "../helpers/faults.js";

const root = new URL("../../../", import.meta.url);
const read = (path) => readFileSync(new URL(path, root), "utf8");
const page = read("docs/operations/failure-modes.md");
const sections = page.split(/^## /m).slice(1);

for (const id of new Set(KINDS.flatMap(faultsOf))) {
  const { title } = FAULTS[id];
  test(`"${title}" is described and measured`, () => {
    const section = sections.find((text) => text.startsWith(`${title}\n`));
    assert.ok(section, "a section");
    for (const who of ["Client", "Emitter", "Operator"]) assert.match(section, new RegExp(`^- \\*\\*${who}\\*\\*: `, "m"));
    for (const kind of KINDS.filter((kind) => faultsOf(kind).includes(id))) {
      assert.ok(page.includes(`\n| ${title} | ${kind} |`), `a row for ${kind}`);
    }
  });
}

test("every test file injects faults that the list knows", () => {
  const files = readdirSync(new URL("tests/node/failures/", root)).filter((file) => file.endsWith(".test.js") && file !== "page.test.js");
  const text = files.map((file) => read(`tests/node/failures/${file}`)).join("\n");
  for (const id of Object.keys(FAULTS)) {
    assert.ok(text.includes(`"${id}"`) || text.includes(`FAULTS.${id}.`), `a test of ${id}`);
  }
});

test("the log lines that the page quotes are written somewhere", () => {
  const quoted = [...page.matchAll(/`(?:ERROR|WARN|INFO) ([^`]+)`/g)].map(([, message]) => message.replace(/\s+/g, " "));
  assert.ok(quoted.length > 5);
  const sources = ["adapter/src", "gateway/src"].map(everything).join("\n");
  for (const message of quoted) assert.ok(sources.includes(`"${message}"`), message);
});

test("the metrics that the page names are exported", () => {
  const names = new Set([...page.matchAll(/roomcast_[a-z_]+/g)].map(([name]) => name));
  assert.ok(names.size > 5);
  const metrics = read("docs/operations/metrics.md");
  for (const name of names) assert.ok(metrics.includes(`\`${name}\``), name);
});

/** The Rust source below a folder. */
function everything(folder) {
  const entries = readdirSync(new URL(`${folder}/`, root), { withFileTypes: true });
  return entries
    .map((entry) => {
      if (entry.isDirectory()) return everything(`${folder}/${entry.name}`);
      return entry.name.endsWith(".rs") ? read(`${folder}/${entry.name}`) : "";
    })
    .join("\n");
}
