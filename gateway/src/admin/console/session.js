// The way to the node: requests with the key that the user typed. The key is kept for this tab only and is never part of
// an address. A key that is missing or wrong is told once; until there is another, nothing is asked.

import { $, el } from "./dom.js";

const STORED = "roomcast-key";

let key = stored();
let locked = false;
/** Whether a request with the key was answered: a node without keys takes any. */
let proven = false;
const unlocked = new Set();

function stored() {
  try {
    return sessionStorage.getItem(STORED) ?? "";
  } catch {
    return "";
  }
}

function store() {
  try {
    if (key) sessionStorage.setItem(STORED, key);
    else sessionStorage.removeItem(STORED);
  } catch {
    // A browser that stores nothing asks again after a reload.
  }
}

export const hasKey = () => key !== "";
export const isLocked = () => locked;
/** Calls back when there is a key to try. */
export const onUnlock = (callback) => unlocked.add(callback);

/** What the node refused, with its sentence. */
export class Refused extends Error {
  constructor(status, problem) {
    super(problem?.detail ?? `the node answered with status ${status}`);
    Object.assign(this, { status, code: problem?.code });
  }
}

/** A request; `path` is relative to the node. The answer may be a refusal. */
export async function ask(path, { headers = {}, ...options } = {}) {
  const used = key;
  const credentials = used ? { Authorization: `Bearer ${used}` } : {};
  const response = await fetch(path, { cache: "no-store", ...options, headers: { ...headers, ...credentials } });
  if (response.status === 401) {
    // One that was on its way with the key of before says nothing of this one.
    if (used === key) lock();
  } else if (response.ok && !proven) {
    proven = true;
    render();
  }
  return response;
}

/** A request whose answer is JSON. A refusal is an error. */
export async function askJson(path, options) {
  const response = await ask(path, options);
  if (response.ok) return response.json();
  throw new Refused(response.status, await response.json().catch(() => undefined));
}

/** What stopped a request, in a sentence. */
export const sentence = (error) =>
  error instanceof Refused ? `${error.status}: ${error.message}` : `The node did not answer (${error.message}).`;

/** A path with a query; what is empty is left out. */
export function withQuery(path, query) {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
}

function lock() {
  proven = false;
  if (locked) return;
  locked = true;
  render();
  const input = $("api-key");
  input.value = "";
  // Whoever is typing elsewhere goes on.
  if (document.activeElement === document.body) input.focus();
}

function render() {
  $("key-form").hidden = !locked;
  $("key-forget").hidden = locked || !key || !proven;
  const text = key ? "The node does not know this key." : "This node wants an API key.";
  $("key-why").replaceChildren(...(locked ? [el("b", {}, text)] : []));
}

export function start() {
  $("key-form").onsubmit = (event) => {
    event.preventDefault();
    key = $("api-key").value.trim();
    store();
    locked = false;
    render();
    for (const callback of unlocked) callback();
  };
  $("key-forget").onclick = () => {
    key = "";
    store();
    location.reload();
  };
  render();
}
