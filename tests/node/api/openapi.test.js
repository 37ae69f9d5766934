// The description that a gateway serves, judged by independent validators; and every call that it names, made against a
// running gateway, with what was sent and what came back held to it.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import SwaggerParser from "@apidevtools/swagger-parser";
import { decode, encode } from "@msgpack/msgpack";
import Ajv2020 from "ajv/dist/2020.js";
import { TRANSPORTS, connect, join } from "../helpers/clients.js";
import { within } from "../helpers/deadline.js";
import { startGateway } from "../helpers/servers.js";

const KEY = "a-key-for-the-tests-only";

let node;
let document;
let ajv;
let socket;
let me;

before(async () => {
  node = await startGateway({ env: { ROOMCAST__API__KEYS: JSON.stringify([KEY]) } });
  document = await (await fetch(`${node.api}/openapi.json`)).json();
  me = (await (await fetch(`${node.api}/readyz`)).json()).node;
  // Formats of numbers are the generator's own; everything else is as the validator knows it.
  ajv = new Ajv2020({ strict: false, validateFormats: false });
  ajv.addSchema(document, "api");
  socket = await connect(node.url, TRANSPORTS.websocket);
  await join(socket, "described");
  socket.on("question", (value, ack) => ack(value, Buffer.from([1, 2, 3])));
});
after(async () => {
  socket?.disconnect();
  await node?.stop();
});

/** The calls of the document. */
const operations = () =>
  Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ path, method, operation })),
  );

const pointer = (...names) => names.map((name) => `/${name.replaceAll("~", "~0").replaceAll("/", "~1")}`).join("");

function fits(schema, value, what) {
  const validate = ajv.compile({ $ref: `api#${schema}` });
  assert.ok(validate(value), `${what}: ${ajv.errorsText(validate.errors)}: ${JSON.stringify(value)}`);
}

/** A call that succeeds, for each of the document. A new call has to be added here. */
const described = { rooms: ["described"] };
const examples = {
  emit: () => ({ body: { event: "e", args: [1, { $bin: "AQID" }], to: described, except: { users: ["x"] }, volatile: true } }),
  emit_batch: () => ({ body: { items: [{ event: "e", to: "all" }, { event: "e", to: { users: ["nobody"] } }] } }),
  request: () => ({ body: { event: "question", args: ["?"], to: described, timeout: 5000, expect: "first" } }),
  join: () => ({ body: { to: described, rooms: ["more"] } }),
  leave: () => ({ body: { to: described, rooms: ["more"] } }),
  disconnect: () => ({ body: { to: { rooms: ["nobody is here"] }, close: true, reason: "test" } }),
  server_emit: () => ({ body: { event: "e", ack: true, timeout: 100 } }),
  rooms: () => ({ query: { limit: "5", namespace: "/" } }),
  room: () => ({ path: { room: "described" } }),
  room_sockets: () => ({ path: { room: "described" }, query: { limit: "1" } }),
  socket: () => ({ path: { id: socket.id } }),
  user_sockets: () => ({ path: { id: "nobody" } }),
  disconnect_user: () => ({ path: { id: "nobody" }, query: { close: "true" } }),
  revoke_tokens: () => ({ body: { jti: "nobody-has-it" } }),
  tail: () => ({ query: { payload: "true" }, lines: true }),
  nodes: () => ({}),
  // For as long as the tests take it goes on as before.
  drain: () => ({ path: { id: me }, body: { delay: "1h", period: "1h" } }),
  dead_letters: () => ({ query: { limit: "1", offset: "0" } }),
  replay: () => ({ body: { ids: ["nobody-has-it"] } }),
};

function address({ path, query = {} }, template) {
  const filled = template.replace(/\{(\w+)\}/g, (_, name) => encodeURIComponent(path[name]));
  const search = new URLSearchParams(query).toString();
  return node.api + filled + (search ? `?${search}` : "");
}

async function send(example, { path, method }, { headers = {}, signal } = {}) {
  return fetch(address(example, path), {
    method: method.toUpperCase(),
    headers: { authorization: `Bearer ${KEY}`, ...(example.body ? { "content-type": "application/json" } : {}), ...headers },
    body: example.body && (example.body instanceof Uint8Array ? example.body : JSON.stringify(example.body)),
    signal,
  });
}

describe("the description", () => {
  test("is valid OpenAPI 3.1, and the one in the documentation", async () => {
    const api = await SwaggerParser.validate(structuredClone(document));
    assert.equal(api.openapi, "3.1.0");
    const golden = new URL("../../../docs/reference/openapi.json", import.meta.url);
    assert.deepEqual(JSON.parse(readFileSync(golden, "utf8")), document);
  });

  test("has a schema that a validator can compile for everything", () => {
    const names = Object.keys(document.components.schemas);
    assert.ok(names.length > 15);
    for (const name of names) ajv.compile({ $ref: `api#/components/schemas/${name}` });
  });

  test("names every call of the tests, and no other", () => {
    const ids = operations().map(({ operation }) => operation.operationId);
    assert.deepEqual(ids.sort(), Object.keys(examples).toSorted());
  });
});

describe("every call of the description", () => {
  test("takes what it describes and answers as described", async () => {
    for (const call of operations()) {
      const { operation, path, method } = call;
      const id = operation.operationId;
      const example = examples[id]();
      const at = pointer("paths", path, method);
      if (example.body) fits(`${at}${pointer("requestBody", "content", "application/json", "schema")}`, example.body, id);
      for (const name of Object.keys(example.query ?? {})) {
        assert.ok(operation.parameters.some((known) => known.in === "query" && known.name === name), `${id} ${name}`);
      }
      if (example.lines) {
        await stream(example, call);
        continue;
      }
      const response = await send(example, call);
      const body = await response.json();
      assert.ok(response.ok, `${id}: ${response.status} ${JSON.stringify(body)}`);
      assert.ok(operation.responses[response.status], `${id}: ${response.status} is not described`);
      const content = pointer("responses", String(response.status), "content", "application/json", "schema");
      fits(at + content, body, id);

      const packed = await send(example, call, { headers: { accept: "application/msgpack" } });
      assert.equal(packed.headers.get("content-type"), "application/msgpack", id);
      const unpacked = decode(new Uint8Array(await packed.arrayBuffer()));
      assert.deepEqual(Object.keys(unpacked).sort(), Object.keys(body).toSorted(), id);
    }
  });

  async function stream(example, call) {
    const gone = new AbortController();
    const response = await send(example, call, { signal: gone.signal });
    assert.ok(call.operation.responses[response.status].content["application/x-ndjson"]);
    assert.equal(response.headers.get("content-type"), "application/x-ndjson");
    gone.abort();
  }

  test("refuses a body that does not fit, as described", async () => {
    for (const call of operations().filter(({ operation }) => operation.requestBody)) {
      const id = call.operation.operationId;
      for (const [body, status] of [[{ nonsense: true }, 422], [new Uint8Array([0xc1]), 400]]) {
        const response = await send({ ...examples[id](), body }, call);
        assert.equal(response.status, status, id);
        assert.equal(response.headers.get("content-type"), "application/problem+json");
        fits("/components/schemas/Problem", await response.json(), id);
        assert.ok(call.operation.responses[status], `${id}: ${status} is not described`);
        const schema = pointer("paths", call.path, call.method, "requestBody", "content", "application/json", "schema");
        const validate = ajv.compile({ $ref: `api#${schema}` });
        assert.ok(!validate(body), `${id}: the schema takes what the gateway refuses`);
      }
    }
  });

  test("needs a key", async () => {
    for (const call of operations()) {
      const example = examples[call.operation.operationId]();
      const response = await send(example, call, { headers: { authorization: "Bearer wrong" } });
      assert.equal(response.status, 401, call.operation.operationId);
      assert.equal(response.headers.get("www-authenticate"), 'Bearer realm="roomcast"');
      fits("/components/schemas/Problem", await response.json(), call.operation.operationId);
    }
  });

  test("takes MessagePack, with binary as it is", async () => {
    const arrived = new Promise((resolve) => socket.once("packed", (...args) => resolve(args)));
    const call = operations().find(({ operation }) => operation.operationId === "emit");
    const body = encode({ event: "packed", args: [new Uint8Array([9, 8]), { deep: [new Uint8Array()] }], to: described });
    const headers = { "content-type": "application/msgpack" };
    assert.equal((await send({ body }, call, { headers })).status, 202);
    assert.deepEqual(await within(arrived, "packed"), [Buffer.from([9, 8]), { deep: [Buffer.alloc(0)] }]);

    const ask = operations().find(({ operation }) => operation.operationId === "request");
    const question = encode({ event: "question", args: [new Uint8Array([7])], to: described });
    const response = await send({ body: question }, ask, { headers: { ...headers, accept: "application/msgpack" } });
    const { acks } = decode(new Uint8Array(await response.arrayBuffer()));
    assert.deepEqual(acks, [{ socket: socket.id, args: [new Uint8Array([7]), new Uint8Array([1, 2, 3])] }]);
  });
});
