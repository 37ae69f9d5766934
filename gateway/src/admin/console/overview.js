// What the node counts, and who is in its cluster. Totals that only grow become rates here.

import { $, brief, bytes, clock, count, duration, el, many, options, rate, show } from "./dom.js";
import { Plot } from "./plot.js";
import { Refused, askJson, isLocked, onUnlock } from "./session.js";

/** How long figures are kept, in seconds. */
const KEPT = 300;
/** Spans that a plot may show, in seconds: the first that holds what there is. */
const SPANS = [60, 120, 300];
/** Latencies are of the writes of so many seconds. */
const LATENCY_WINDOW = 10;
/** A node whose last sign is older is late: nodes give one each second unless they are configured otherwise. */
const LATE = 3;
/** How long a node that is gone stays in the table, in milliseconds. */
const GONE_SHOWN = 600_000;

const REASONS = {
  not_serving: "not ready: not serving",
  draining: "draining",
  broker_unavailable: "not ready: broker away",
  full: "not ready: full",
};

const perSecond = (value) => `${rate(value)} /s`;
const joined = ([number, unit]) => `${number} ${unit}`;

const FIGURES = [
  {
    name: "connections", title: "Connections", axis: count,
    series: [{ name: "WebSocket", at: (p) => p.websocket }, { name: "polling", at: (p) => p.polling }],
    value: (p) => [count(p.websocket + p.polling), ""],
  },
  { name: "sockets", title: "Sockets", axis: count, series: [{ at: (p) => p.sockets }], value: (p) => [count(p.sockets), ""] },
  { name: "rooms", title: "Rooms", axis: count, series: [{ at: (p) => p.rooms }], value: (p) => [count(p.rooms), ""] },
  {
    name: "traffic", title: "Traffic", axis: (value) => `${joined(bytes(value))}/s`, least: 100,
    series: [{ name: "in", at: (p) => p.bytesIn }, { name: "out", at: (p) => p.bytesOut }],
    value: (p) => unitPerSecond(bytes((p.bytesIn ?? 0) + (p.bytesOut ?? 0))),
  },
  { name: "events", title: "Events in", axis: perSecond, series: [{ at: (p) => p.eventsIn }], value: (p) => [rate(p.eventsIn ?? 0), "/s"] },
  { name: "deliveries", title: "Events out", axis: perSecond, series: [{ at: (p) => p.eventsOut }], value: (p) => [rate(p.eventsOut ?? 0), "/s"] },
  { name: "drops", title: "Not delivered", axis: perSecond, series: [{ at: (p) => p.dropped }], value: (p) => [rate(p.dropped ?? 0), "/s"] },
  {
    name: "latency", title: "Emit to write", axis: (value) => joined(brief(value)), least: 0.0001,
    series: [{ name: "median", at: (p) => p.p50 }, { name: "99 of 100", at: (p) => p.p99 }],
    value: (p) => (p.p50 === null ? ["–", ""] : brief(p.p50)),
  },
];

const unitPerSecond = ([number, unit]) => [number, `${unit}/s`];

const points = [];
const samples = [];
const seen = new Map();
let process = "";
let stats = null;

/** The namespaces of the node, for those who let one be chosen. */
const namespaceListeners = new Set();
export const onNamespaces = (listener) => namespaceListeners.add(listener);

function card(figure) {
  const plot = new Plot({ title: figure.title, series: figure.series, axis: figure.axis, least: figure.least });
  const key = figure.series.length < 2 ? null : el("div", { class: "legend" },
    ...figure.series.map(({ name }, index) => el("span", { class: `s${index}` }, name)));
  figure.plot = plot;
  return el("article", { class: "card figure" },
    el("h3", {}, figure.title),
    el("div", { class: "value" },
      el("span", { "data-metric": figure.name }, "–"), el("small", { "data-metric": `${figure.name}-unit` })),
    key,
    plot.element,
    el("p", { class: "note", "data-metric": `${figure.name}-note` }));
}

/** A point of the plots, from two samples. */
function point(sample, before) {
  const { stats: { connections, sockets, rooms, totals }, t } = sample;
  const per = (name) => (before ? Math.max(0, totals[name] - before.stats.totals[name]) / (t - before.t) : null);
  const first = samples.find((one) => one.t >= t - LATENCY_WINDOW) ?? sample;
  const times = first === sample ? null : quantiles(first.stats.totals, totals);
  return {
    t, ...connections, sockets, rooms,
    eventsIn: per("events_received"), eventsOut: per("deliveries"), dropped: per("dropped"),
    bytesIn: per("bytes_received"), bytesOut: per("bytes_sent"),
    p50: times?.[0] ?? null, p99: times?.[1] ?? null,
  };
}

/** The median and the 99th percentile of what was timed between two totals, as a histogram tells them. */
function quantiles(from, to) {
  const buckets = to.emit_to_write_buckets.map(([bound, upTo], index) => [bound, upTo - from.emit_to_write_buckets[index][1]]);
  const all = buckets.at(-1)[1];
  if (!(all > 0)) return null;
  return [0.5, 0.99].map((share) => {
    const wanted = share * all;
    const index = buckets.findIndex(([, upTo]) => upTo >= wanted);
    const [low, below] = index ? buckets[index - 1] : [0, 0];
    const [high, upTo] = buckets[index];
    // Beyond the last bound nothing more is known than that it was longer.
    return high === null ? low : low + ((high - low) * (wanted - below)) / (upTo - below);
  });
}

function take(fresh) {
  const t = performance.now() / 1000;
  // Another process begins to count anew.
  const now = `${fresh.node} ${fresh.version}`;
  const restarted = stats && (now !== process || fresh.uptime_seconds < stats.uptime_seconds);
  if (restarted) points.length = samples.length = 0;
  [process, stats] = [now, fresh];
  const sample = { t, stats: fresh };
  points.push(point(sample, samples.at(-1)));
  samples.push(sample);
  while (points[0].t < t - KEPT) points.shift();
  while (samples[0].t < t - LATENCY_WINDOW - 1) samples.shift();
}

function renderFigures() {
  const now = points.at(-1);
  for (const figure of FIGURES) {
    const [number, unit] = figure.value(now);
    show(figure.name, number);
    show(`${figure.name}-unit`, unit);
  }
  const { connections: { websocket, polling }, namespaces, totals } = stats;
  show("connections-note", `${count(websocket)} WebSocket, ${count(polling)} polling`);
  show("sockets-note", namespaces.map(({ name, sockets }) => `${name} ${count(sockets)}`).join(", "));
  show("rooms-note", "with members on this node");
  show("traffic-note", `${joined(bytes(totals.bytes_received))} in, ${joined(bytes(totals.bytes_sent))} out since start`);
  show("events-note", `${count(totals.events_received)} since start`);
  show("deliveries-note", `${count(totals.deliveries)} since start`);
  show("drops-note", `${count(totals.dropped)} since start, for all reasons`);
  show("latency-note", now.p99 === null ? `no writes in ${LATENCY_WINDOW} s` : `99 of 100 within ${joined(brief(now.p99))}`);
  renderPlots();
}

function renderPlots() {
  if (!points.length || $("overview").hidden) return;
  const now = points.at(-1).t;
  const span = SPANS.find((one) => points[0].t >= now - one) ?? SPANS.at(-1);
  for (const { plot } of FIGURES) plot.render(points, now, span);
}

function readiness(state, text) {
  $("ready-pill").className = `pill ${state}`;
  show("ready", text);
}

function renderHead() {
  readiness(stats.ready ? "good" : "bad", stats.ready ? "ready" : (REASONS[stats.reason] ?? `not ready: ${stats.reason}`));
  show("node", stats.node);
  show("adapter", stats.adapter);
  show("version", stats.version);
  show("uptime", duration(stats.uptime_seconds));
}

/** Who is there, and who was there a short time ago. */
function nodes() {
  const now = Date.now();
  for (const node of stats.nodes) seen.set(node.id, { ...node, at: now });
  for (const [id, { at }] of seen) if (now - at > GONE_SHOWN) seen.delete(id);
  const live = new Set(stats.nodes.map(({ id }) => id));
  return [...seen.values()].map((node) => ({ ...node, live: live.has(node.id) })).sort((a, b) => (a.id < b.id ? -1 : 1));
}

function stateOf(node) {
  if (node.id === stats.node) return stats.ready ? ["good", "ready"] : ["bad", REASONS[stats.reason] ?? stats.reason];
  if (!node.live) return ["bad", `gone since ${clock(new Date(node.at))}`];
  if (node.age_seconds > LATE) return ["late", "late"];
  if (node.state === "draining") return ["late", "draining"];
  return node.state === "unready" ? ["late", "not ready"] : ["good", "live"];
}

function renderNodes() {
  const rows = nodes().map((node) => {
    const [tone, state] = stateOf(node);
    const number = (value) => el("td", { class: "number" }, value === null ? "unknown" : count(value));
    const mine = node.id === stats.node ? el("span", { class: "tag" }, "answers here") : null;
    const sign = node.id === stats.node ? "now" : node.live ? `${node.age_seconds.toFixed(1)} s ago` : "–";
    return el("tr", { class: node.live ? null : "gone" },
      el("th", { scope: "row" }, el("code", {}, node.id), mine),
      el("td", {}, el("span", { class: `state ${tone}` }, state)),
      el("td", { class: "number" }, sign),
      number(node.live ? node.sockets : 0), number(node.live ? node.rooms : 0));
  });
  $("node-rows").replaceChildren(...rows);
  show("nodes", many(stats.nodes.length, "node"));
}

/** Two ticks must not overtake each other when the node is slow. */
let asking = false;

export async function tick() {
  if (asking || isLocked()) return;
  asking = true;
  try {
    take(await askJson("console/stats"));
    renderHead();
    renderFigures();
    renderNodes();
    for (const listener of namespaceListeners) listener(stats.namespaces.map(({ name }) => name).sort());
  } catch (error) {
    if (!(error instanceof Refused)) readiness("bad", "unreachable");
    else readiness("bad", error.status === 401 ? "key needed" : `status ${error.status}`);
  } finally {
    asking = false;
  }
}

export function start() {
  $("figures").append(...FIGURES.map(card));
  new ResizeObserver(renderPlots).observe($("figures"));
  onNamespaces((names) => {
    for (const select of document.querySelectorAll("select[data-namespaces]")) {
      const all = select.dataset.namespaces === "all" ? [""] : [];
      options(select, [...all, ...names], [...all.map(() => "all"), ...names]);
    }
  });
  onUnlock(tick);
  tick();
  setInterval(() => document.hidden || tick(), 1000);
}
