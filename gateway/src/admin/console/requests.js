// A form for each call of the API, the same request as a command, and what the node answers.

import { callsOf } from "./calls.js";
import { curl } from "./curl.js";
import { $, copy, el, options, prose } from "./dom.js";
import { ask, hasKey, onUnlock, sentence } from "./session.js";

/** What a form begins with, by the name of the field. */
const EXAMPLES = { event: "news", args: '[{"from":"a backend"}]', rooms: "lobby", room: "lobby", to: "lobby", items: '[{"event":"news","args":[],"to":{"rooms":["lobby"]}}]' };
/** Optional, and still in sight. */
const PLAIN = new Set(["args", "to", "rooms", "event", "close"]);
/** Longer answers are cut: a page is no place for them. */
const MAX_ANSWER = 100_000;

let calls = [];
let chosen = null;
let entered = false;
/** The fields of the form: each gives its value, or nothing, or throws what is wrong with it. */
let inputs = [];

const lines = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);

function parse(input, wanted = "JSON") {
  if (!input.value.trim()) return undefined;
  try {
    return JSON.parse(input.value);
  } catch {
    throw new Error(`This has to be ${wanted}.`);
  }
}

/** A control by the kind of its field: the element, and how to read it. */
const CONTROLS = {
  text: (common, field) => simple(el("input", { ...common, value: EXAMPLES[field.name] ?? "" }), (input) => input.value || undefined),
  number: (common, field) =>
    simple(el("input", { ...common, type: "number", min: field.least, max: field.most }), (input) => (input.value === "" ? undefined : Number(input.value))),
  flag: (common) =>
    simple(el("select", common, new Option("default", ""), new Option("true", "true"), new Option("false", "false")), (input) =>
      input.value === "" ? undefined : input.value === "true"),
  choice: (common, field) =>
    simple(el("select", common, ...(field.required ? [] : [new Option("default", "")]), ...field.options.map((one) => new Option(one, one))), (input) => input.value || undefined),
  value: (common) =>
    simple(el("input", common), (input) => {
      if (!input.value.trim()) return undefined;
      return /^(-?\d+(\.\d+)?|true|false|null)$/.test(input.value.trim()) ? JSON.parse(input.value) : input.value.trim();
    }),
  list: (common, field) =>
    simple(el("textarea", { ...common, rows: 1 }, EXAMPLES[field.name] ?? ""), (input) => (lines(input.value).length ? lines(input.value) : undefined)),
  json: (common, field) => simple(el("textarea", { ...common, rows: 1 }, EXAMPLES[field.name] ?? ""), (input) => parse(input)),
};

function simple(control, read) {
  return { control, controls: [control], read: () => read(control) };
}

/** Whom a call means: everybody, or names of one kind. */
function whom(common, field) {
  const kinds = ["rooms", "users", "sockets", "all"];
  const labels = ["rooms", "users", "sockets", "everybody"];
  const kind = el("select", { id: `${common.id}-kind`, "aria-label": `${field.name}: rooms, users, sockets or everybody` });
  options(kind, kinds, labels);
  const names = el("textarea", { ...common, rows: 1 }, EXAMPLES.to);
  kind.onchange = () => (names.disabled = kind.value === "all");
  const read = () => (kind.value === "all" ? "all" : lines(names.value).length ? { [kind.value]: lines(names.value) } : undefined);
  return { control: el("div", { class: "whom" }, kind, names), controls: [kind, names], read };
}

const PER_LINE = { list: "One per line.", whom: "One per line.", json: "JSON." };

function make(field, index) {
  const id = `request-${index}-${field.name}`;
  const help = [PER_LINE[field.kind], field.help].filter(Boolean).join(" ");
  const common = {
    id, autocomplete: "off", spellcheck: "false", "aria-describedby": help ? `${id}-help` : null,
    required: field.required && field.kind !== "flag",
  };
  const { control, controls, read } = field.kind === "whom" ? whom(common, field) : CONTROLS[field.kind](common, field);
  const label = el("label", { for: id }, field.name, field.required ? null : el("small", {}, " optional"));
  const element = el("div", { class: "field" }, label, control, help ? el("p", { class: "help", id: `${id}-help` }, ...prose(help)) : null);
  return { field, element, control: controls.at(-1), read };
}

function choose() {
  chosen = calls[$("call").selectedIndex] ?? calls[0];
  inputs = chosen.fields.map(make);
  const isPlain = ({ field }) => field.required || PLAIN.has(field.name);
  $("call-fields").replaceChildren(...inputs.filter(isPlain).map(({ element }) => element));
  const more = inputs.filter((input) => !isPlain(input));
  $("call-more-fields").replaceChildren(...more.map(({ element }) => element));
  $("call-more").hidden = more.length === 0;
  $("call-summary").replaceChildren(...prose(chosen.summary));
  $("call-send").textContent = `Send ${chosen.method}`;
  render();
}

/** The request that the form says. What is wrong with a field, the field says itself. */
function request() {
  const made = { method: chosen.method, headers: [], body: undefined };
  const [query, body] = [[], {}];
  let address = chosen.path;
  for (const { field, control, read } of inputs) {
    let value;
    try {
      value = read();
      control.setCustomValidity("");
      control.removeAttribute("aria-invalid");
    } catch (error) {
      control.setCustomValidity(error.message);
      control.setAttribute("aria-invalid", "true");
      continue;
    }
    if (field.in === "path") address = address.replace(`{${field.name}}`, encodeURIComponent(value ?? ""));
    if (value === undefined) continue;
    if (field.in === "query") query.push([field.name, value]);
    if (field.in === "header") made.headers.push([field.name, value]);
    if (field.in === "body") body[field.name] = value;
    if (field.in === "whole") made.body = JSON.stringify(value);
  }
  if (chosen.fields.some((field) => field.in === "body")) made.body = JSON.stringify(body);
  if (made.body !== undefined) made.headers.unshift(["Content-Type", "application/json"]);
  const search = query.length ? `?${new URLSearchParams(query)}` : "";
  made.url = new URL(address.slice(1) + search, document.baseURI).href;
  return made;
}

function render() {
  if (chosen) $("curl").textContent = curl(request(), hasKey());
}

function answer(tone, head, body = "") {
  $("answer-head").className = `answer ${tone}`;
  $("answer-head").textContent = head;
  $("answer").textContent = body.length > MAX_ANSWER ? `${body.slice(0, MAX_ANSWER)}…` : body;
  $("answer").hidden = !body;
}

const pretty = (body) => {
  try {
    return JSON.stringify(JSON.parse(body), null, 2);
  } catch {
    return body;
  }
};

async function send() {
  const { url, method, headers, body } = request();
  $("call-send").disabled = true;
  answer("", "Waiting for the node…");
  const started = performance.now();
  try {
    const response = await ask(url, { method, headers: Object.fromEntries(headers), body });
    const got = await response.text();
    const head = `${response.status} ${response.statusText} after ${Math.round(performance.now() - started)} ms`;
    answer(response.ok ? "ok" : "no", head, pretty(got));
  } catch (error) {
    answer("no", sentence(error));
  }
  $("call-send").disabled = false;
}

/** The calls are asked for when they are looked at first. */
export async function enter() {
  if (entered) return;
  entered = true;
  calls = await callsOf("openapi.json");
  options($("call"), calls.map(({ name }) => name));
  choose();
}

export function start() {
  $("call").onchange = choose;
  $("call-form").oninput = render;
  $("call-form").onsubmit = (event) => {
    event.preventDefault();
    send();
  };
  $("copy").onclick = () => copy($("curl"), $("copy"));
  onUnlock(render);
}
