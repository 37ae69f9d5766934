// A collector of traces: takes OTLP over HTTP with protobuf, read by a library that is not ours.

import { createServer } from "node:http";
import protobuf from "protobufjs/light.js";
import { until } from "./deadline.js";
import { freePort } from "./processes.js";

const field = (type, id, rule) => ({ type, id, ...(rule ? { rule } : {}) });

// The parts of opentelemetry-proto that the tests look at.
const root = protobuf.Root.fromJSON({
  nested: {
    Request: { fields: { resourceSpans: field("ResourceSpans", 1, "repeated") } },
    ResourceSpans: { fields: { resource: field("Resource", 1), scopeSpans: field("ScopeSpans", 2, "repeated") } },
    Resource: { fields: { attributes: field("KeyValue", 1, "repeated") } },
    ScopeSpans: { fields: { spans: field("Span", 2, "repeated") } },
    Span: {
      fields: {
        traceId: field("bytes", 1),
        spanId: field("bytes", 2),
        parentSpanId: field("bytes", 4),
        name: field("string", 5),
        kind: field("Kind", 6),
        start: field("fixed64", 7),
        end: field("fixed64", 8),
        attributes: field("KeyValue", 9, "repeated"),
        status: field("Status", 15),
      },
      nested: { Kind: { values: { UNSPECIFIED: 0, INTERNAL: 1, SERVER: 2, CLIENT: 3, PRODUCER: 4, CONSUMER: 5 } } },
    },
    Status: { fields: { message: field("string", 2), code: field("int32", 3) } },
    KeyValue: { fields: { key: field("string", 1), value: field("AnyValue", 2) } },
    AnyValue: {
      oneofs: { value: { oneof: ["stringValue", "boolValue", "intValue", "doubleValue"] } },
      fields: {
        stringValue: field("string", 1),
        boolValue: field("bool", 2),
        intValue: field("int64", 3),
        doubleValue: field("double", 4),
      },
    },
  },
});
const Request = root.lookupType("Request");

const valuesOf = (attributes) =>
  Object.fromEntries((attributes ?? []).map(({ key, value }) => [key, Object.values(value ?? {})[0]]));

function spansOf(body) {
  const request = Request.toObject(Request.decode(body), { bytes: Buffer, longs: Number, enums: String });
  return (request.resourceSpans ?? []).flatMap(({ resource, scopeSpans }) =>
    (scopeSpans ?? []).flatMap(({ spans }) =>
      (spans ?? []).map((span) => ({
        trace: span.traceId.toString("hex"),
        id: span.spanId.toString("hex"),
        parent: span.parentSpanId?.toString("hex") || undefined,
        name: span.name,
        kind: span.kind,
        start: span.start,
        end: span.end,
        error: span.status?.code === 2 ? span.status.message : undefined,
        attributes: valuesOf(span.attributes),
        resource: valuesOf(resource?.attributes),
      })),
    ),
  );
}

/** Starts a collector, which keeps all spans. `status` is what it answers. */
export async function startCollector() {
  const port = await freePort();
  const collector = { url: `http://127.0.0.1:${port}`, spans: [], requests: [], problems: [], status: 200 };
  const server = createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    collector.requests.push({ url: request.url, headers: request.headers });
    if (collector.status === 200) {
      try {
        collector.spans.push(...spansOf(Buffer.concat(chunks)));
      } catch (error) {
        collector.problems.push(error.message);
      }
    }
    response.writeHead(collector.status, { "content-type": "application/x-protobuf" }).end();
  });
  await new Promise((resolve, reject) => server.listen(port, "127.0.0.1", resolve).once("error", reject));
  collector.stop = () =>
    new Promise((resolve) => {
      server.close(resolve);
      server.closeAllConnections();
    });
  /** The spans of a trace, once there are so many. */
  collector.trace = async (id, count) => {
    const found = () => collector.spans.filter((span) => span.trace === id);
    await until(() => found().length >= count, `${count} spans of trace ${id}, of which came ${JSON.stringify(found())}`);
    return found();
  };
  return collector;
}

/** A `traceparent` of a trace of its own. */
export function traceparent({ sampled = true } = {}) {
  const hex = (digits) => Array.from({ length: digits }, () => Math.floor(Math.random() * 15 + 1).toString(16)).join("");
  const [trace, span] = [hex(32), hex(16)];
  return { trace, span, header: `00-${trace}-${span}-${sampled ? "01" : "00"}` };
}
