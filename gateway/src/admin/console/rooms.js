// Rooms of the cluster with their counts, by pages, and the sockets of a room. A node that lists no rooms still tells
// about one whose name is known.

import { $, count, el, json, many } from "./dom.js";
import { Refused, askJson, isLocked, onUnlock, sentence, withQuery } from "./session.js";

const PAGE = 100;

let rooms = [];
let cursor = null;
let listed = false;
/** Answers to older questions are not shown. */
let turn = 0;

const namespace = () => $("rooms-namespace").value || undefined;
const encoded = (room) => encodeURIComponent(room);

function tell(text, isBad = false) {
  $("rooms-note").textContent = text;
  $("rooms-note").className = isBad ? "note bad" : "note";
}

const missing = (nodes) => (nodes?.length ? ` Without ${nodes.join(", ")}, which did not answer.` : "");

/** The next page of the list; from the beginning when asked to. */
async function load(anew) {
  const mine = ++turn;
  if (anew) [rooms, cursor] = [[], null];
  try {
    const page = await askJson(withQuery("v1/rooms", { namespace: namespace(), limit: PAGE, cursor }));
    if (mine !== turn) return;
    listed = true;
    rooms.push(...page.rooms);
    cursor = page.cursor ?? null;
    tell(`${many(rooms.length, "room")}${cursor ? " so far" : ""}.${missing(page.missing_nodes)}`);
  } catch (error) {
    if (mine !== turn) return;
    cursor = null;
    listed = false;
    if (error instanceof Refused && error.status === 404) tell("This node does not list rooms. Type the name of one, and look it up.");
    else tell(sentence(error), true);
  }
  render();
}

function render() {
  const wanted = $("rooms-search").value.trim().toLowerCase();
  const shown = rooms.filter(({ room }) => room.toLowerCase().includes(wanted));
  $("room-rows").replaceChildren(...shown.map(({ room, sockets }) =>
    el("tr", {},
      el("th", { scope: "row" }, el("button", { class: "link", type: "button", onclick: () => open(room) }, room)),
      el("td", { class: "number" }, count(sockets)))));
  $("rooms-table").hidden = shown.length === 0;
  $("rooms-more").hidden = cursor === null;
  if (listed && wanted && !shown.length) {
    tell(`None of ${many(rooms.length, "room")}${cursor ? " so far" : ""} has this in its name.`);
  } else if (listed && wanted) tell(`${count(shown.length)} of ${many(rooms.length, "room")}${cursor ? " so far" : ""}.`);
}

// ---- One room ----
let chosen = null;
let after = null;

async function open(room) {
  chosen = { room, namespace: namespace() };
  after = null;
  $("room-rows-sockets").replaceChildren();
  $("room-name").textContent = room;
  $("room").hidden = false;
  $("room-table").hidden = true;
  $("room-title").focus();
  $("room-count").textContent = "…";
  const asked = chosen;
  try {
    const answer = await askJson(withQuery(`v1/rooms/${encoded(room)}`, { namespace: asked.namespace }));
    if (asked !== chosen) return;
    const share = answer.exact ? "" : " at least";
    $("room-count").textContent =
      `${share} ${many(answer.sockets, "socket")} in the cluster.${missing(answer.missing_nodes)}`.trim();
    if (answer.sockets) await sockets(asked);
  } catch (error) {
    if (asked === chosen) $("room-count").textContent = sentence(error);
  }
}

async function sockets(asked = chosen) {
  const query = { namespace: asked.namespace, limit: PAGE, cursor: after };
  try {
    const page = await askJson(withQuery(`v1/rooms/${encoded(asked.room)}/sockets`, query));
    if (asked !== chosen) return;
    after = page.cursor ?? null;
    $("room-rows-sockets").append(...page.sockets.map(row));
    $("room-table").hidden = !$("room-rows-sockets").children.length;
    $("room-more").hidden = after === null;
  } catch (error) {
    if (asked === chosen) $("room-count").textContent = sentence(error);
  }
}

function row({ id, rooms: joined, data }) {
  const others = joined.filter((room) => room !== id && room !== chosen.room);
  const chips = others.length ? others.map((room) => el("span", { class: "chip" }, room)) : ["–"];
  return el("tr", {},
    el("th", { scope: "row" }, el("code", {}, id)),
    el("td", {}, el("div", { class: "chips" }, ...chips)),
    el("td", {}, data === null || json(data) === "{}" ? "–" : el("code", {}, json(data))));
}

export function enter() {
  if (!isLocked()) load(true);
}

export function start() {
  $("rooms-form").onsubmit = (event) => {
    event.preventDefault();
    const name = $("rooms-search").value.trim();
    if (name) open(name);
    else load(true);
  };
  $("rooms-search").oninput = render;
  $("rooms-namespace").onchange = () => {
    $("room").hidden = true;
    chosen = null;
    load(true);
  };
  $("rooms-more").onclick = () => load(false);
  $("room-more").onclick = () => sockets();
  $("rooms-reload").onclick = () => {
    load(true);
    if (chosen) open(chosen.room);
  };
  onUnlock(() => $("rooms").hidden || enter());
}
