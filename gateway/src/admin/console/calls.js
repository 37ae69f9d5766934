// The calls of the API, as the node describes them, or as this version knows them where it does not. A call has fields,
// and a field has a kind, from which a form is made.

const text = (name, where, more = {}) => ({ name, in: where, kind: "text", ...more });
const namespace = (where) => text("namespace", where, { help: "“/” if none is named." });
const WHOM = { name: "to", in: "body", kind: "whom", required: true, help: "Who is meant." };
const EXCEPT = { name: "except", in: "body", kind: "json", help: "Who is not: an object with rooms, users or sockets." };
const EVENT = text("event", "body", { required: true });
const ARGS = { name: "args", in: "body", kind: "json" };
const ROOMS = { name: "rooms", in: "body", kind: "list", required: true };
const PAGE = [namespace("query"), { name: "limit", in: "query", kind: "number" }, text("cursor", "query")];
const flag = (name) => ({ name, in: "body", kind: "flag" });
const path = (name) => text(name, "path", { required: true });

const call = (method, address, summary, ...fields) => ({ name: `${method} ${address}`, method, path: address, summary, fields });

/** For nodes that do not serve their description. */
const KNOWN = [
  call("POST", "/v1/emit", "Emits an event to whom it concerns.", EVENT, ARGS, WHOM, EXCEPT, namespace("body"), flag("volatile"), flag("compress")),
  call("POST", "/v1/request", "Emits an event and collects what the clients answer.", EVENT, ARGS, WHOM, EXCEPT,
    namespace("body"), { name: "timeout", in: "body", kind: "number", help: "Milliseconds." }, { name: "expect", in: "body", kind: "value" }),
  call("POST", "/v1/join", "Makes sockets join rooms.", WHOM, ROOMS, EXCEPT, namespace("body")),
  call("POST", "/v1/leave", "Makes sockets leave rooms.", WHOM, ROOMS, EXCEPT, namespace("body")),
  call("POST", "/v1/disconnect", "Disconnects sockets.", WHOM, EXCEPT, namespace("body"), flag("close"), text("reason", "body")),
  call("GET", "/v1/rooms", "Lists the rooms, by pages.", ...PAGE),
  call("GET", "/v1/rooms/{room}", "Counts the sockets in a room.", path("room"), namespace("query")),
  call("GET", "/v1/rooms/{room}/sockets", "Lists the sockets in a room, by pages.", path("room"), ...PAGE),
  call("GET", "/v1/sockets/{id}", "Shows one socket.", path("id"), namespace("query")),
  call("GET", "/v1/users/{id}/sockets", "Lists the sockets of a user, by pages.", path("id"), ...PAGE),
  call("GET", "/v1/nodes", "Lists the live nodes."),
];

/** The calls of a node. */
export async function callsOf(node) {
  try {
    const response = await fetch(node);
    if (response.ok) return described(await response.json());
  } catch {
    // Then as this version knows them.
  }
  return KNOWN;
}

/** The calls of an OpenAPI document that are under `/v1/` and end. */
export function described(document) {
  const calls = [];
  for (const [address, operations] of Object.entries(document.paths ?? {})) {
    if (!address.startsWith("/v1/") || address === "/v1/tail") continue;
    for (const [method, operation] of Object.entries(operations)) {
      if (!["get", "post", "put", "patch", "delete"].includes(method)) continue;
      const upper = method.toUpperCase();
      calls.push({
        name: `${upper} ${address}`, method: upper, path: address,
        summary: [operation.summary, operation.description].filter(Boolean).join(" "),
        fields: fields(document, operation),
      });
    }
  }
  return calls.length ? calls : KNOWN;
}

function fields(document, operation) {
  const parameters = (operation.parameters ?? []).map((parameter) => resolve(document, parameter));
  const made = parameters
    .filter((parameter) => parameter.in !== "cookie")
    .map((parameter) => field(document, parameter.name, parameter.in, parameter.schema ?? {}, parameter.required, parameter.description));
  const content = operation.requestBody && resolve(document, operation.requestBody).content?.["application/json"];
  if (!content) return made;
  const body = resolve(document, content.schema ?? {});
  const required = new Set(body.required ?? []);
  const inBody = Object.entries(body.properties ?? {}).map(([name, schema]) => field(document, name, "body", schema, required.has(name)));
  // A body of another form is written as a whole.
  if (!inBody.length) inBody.push({ name: "body", in: "whole", kind: "json", required: true });
  return [...inBody, ...made];
}

function field(document, name, where, schema, required = false, description = undefined) {
  const plain = unwrap(document, schema);
  const help = description || schema.description || (required ? "" : plain.description);
  const base = { name, in: where, required: Boolean(required), help: help ?? "" };
  if (name === "to" && where === "body") return { ...base, kind: "whom", required: true };
  if (plain.enum) return { ...base, kind: "choice", options: plain.enum };
  switch (plain.type) {
    case "boolean": return { ...base, kind: "flag" };
    case "integer": case "number": return { ...base, kind: "number", least: plain.minimum, most: plain.maximum };
    case "string": return { ...base, kind: "text" };
    case "array": return unwrap(document, plain.items ?? {}).type === "string" ? { ...base, kind: "list" } : { ...base, kind: "json" };
    case "object": return { ...base, kind: "json" };
    default: return { ...base, kind: isSimple(document, plain) ? "value" : "json" };
  }
}

/** A choice of words and numbers. */
const isSimple = (document, schema) =>
  (schema.anyOf ?? schema.oneOf ?? []).length > 0 &&
  (schema.anyOf ?? schema.oneOf).every((one) => {
    const plain = unwrap(document, one);
    return plain.enum || plain.const !== undefined || ["string", "integer", "number", "boolean", "null"].includes(plain.type);
  });

/** A schema without references and without "or null". */
function unwrap(document, schema) {
  let plain = resolve(document, schema);
  const either = (plain.anyOf ?? plain.oneOf ?? plain.allOf)?.filter((one) => one.type !== "null");
  if (either?.length === 1) plain = { ...resolve(document, either[0]), description: plain.description };
  if (Array.isArray(plain.type)) {
    const types = plain.type.filter((type) => type !== "null");
    plain = { ...plain, type: types.length === 1 ? types[0] : undefined };
  }
  return plain;
}

/** Follows references inside the document; a circle ends. */
function resolve(document, value) {
  let at = value;
  for (let steps = 0; at?.$ref && steps < 16; steps++) {
    if (!at.$ref.startsWith("#/")) return {};
    at = at.$ref.slice(2).split("/").reduce((inside, part) => inside?.[part.replaceAll("~1", "/").replaceAll("~0", "~")], document);
  }
  return at ?? {};
}
