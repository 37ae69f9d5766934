// What goes through this node, line by line, while somebody looks. Arguments are the users' own: they are shown only to
// those who ask for them.

import { $, bytes, clock, el, json } from "./dom.js";
import { Refused, ask, isLocked, sentence, withQuery } from "./session.js";

const KEPT = 500;
/** A line that is longer than this is not held in memory until it ends. */
const MAX_LINE = 4_000_000;

let running = null;

function state(text, isBad = false) {
  $("tail-state").textContent = text;
  $("tail-state").className = isBad ? "note bad" : "note";
  $("tail-start").textContent = running ? "Stop" : "Start";
}

/** Whom an emit is for, in words. */
function whom({ to, except = [] }) {
  const target = Array.isArray(to) ? to.join(", ") : typeof to === "object" ? to.socket : String(to);
  return except.length ? `${target} except ${except.join(", ")}` : target;
}

function row(line) {
  if (line.kind === "lost") return el("li", { class: "err" }, `${line.count} left out: this page reads too slowly`);
  const isEmit = line.kind === "emit";
  return el("li", { class: isEmit ? "out" : "in" },
    el("time", { datetime: line.time }, clock(new Date(line.time))),
    el("span", { class: "kind" }, isEmit ? "emit" : "event"),
    el("b", {}, line.event),
    el("span", {}, isEmit ? `to ${whom(line)}` : `from ${line.socket}`),
    el("span", { class: "quiet" }, `${line.namespace} ${bytes(line.bytes).join(" ")}`),
    line.args === undefined ? null : el("code", {}, json(line.args)));
}

function add(line) {
  const box = $("tail-log");
  const isAtEnd = box.scrollTop + box.clientHeight >= box.scrollHeight - 8;
  box.append(row(line));
  while (box.children.length > KEPT) box.firstChild.remove();
  if (isAtEnd) box.scrollTop = box.scrollHeight;
}

/** Gives each line of a stream to `take`. */
async function read(body, take) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    if (rest.length > MAX_LINE) rest = "";
    for (const line of lines) if (line) take(JSON.parse(line));
  }
}

async function run() {
  const mine = new AbortController();
  running = mine;
  state("Waiting for the node…");
  const query = {
    namespace: $("tail-namespace").value,
    room: $("tail-room").value.trim(),
    event: $("tail-event").value.trim(),
    payload: $("tail-payload").checked ? "true" : "",
  };
  let end = ["The node ended the stream."];
  try {
    const response = await ask(withQuery("v1/tail", query), { signal: mine.signal });
    if (!response.ok) throw new Refused(response.status, await response.json().catch(() => undefined));
    state("Showing what goes through this node.");
    await read(response.body, (line) => running === mine && add(line));
  } catch (error) {
    end = mine.signal.aborted ? ["Stopped."] : [sentence(error), true];
  }
  if (running !== mine) return;
  running = null;
  state(...end);
}

function stop() {
  running?.abort();
  running = null;
  state("Stopped.");
}

export function start() {
  $("tail-form").onsubmit = (event) => {
    event.preventDefault();
    if (running) stop();
    else if (isLocked()) state("The node wants a key first.", true);
    else run();
  };
  // Another question is another stream.
  $("tail-form").onchange = () => {
    if (!running) return;
    running.abort();
    run();
  };
  $("tail-clear").onclick = () => $("tail-log").replaceChildren();
}
