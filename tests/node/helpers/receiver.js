// A backend that takes webhooks. It believes nothing: each request is verified by an implementation of the Standard
// Webhooks specification that is not ours, and read by the CloudEvents SDK.

import { createServer } from "node:http";
import { writeFileSync } from "node:fs";
import path from "node:path";
import { HTTP } from "cloudevents";
import { Webhook } from "standardwebhooks";
import { until } from "./deadline.js";
import { freePort, temporaryDirectory } from "./processes.js";

export const SECRET = `whsec_${Buffer.from("the secret of the tests, 32 bytes").toString("base64")}`;

/**
 * Starts a receiver. `answer(event, request)` gives `{status, headers, body}` or a body for a blocking event, and is asked
 * once for a batch, with its first event; nothing is 200 without a body.
 */
export async function startReceiver({ answer = () => undefined, secret = SECRET, port } = {}) {
  port ??= await freePort();
  const webhook = new Webhook(secret);
  const receiver = { port, url: `http://127.0.0.1:${port}/hooks?from=roomcast`, answer, requests: [], events: [], problems: [] };

  async function take(request, response) {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const body = Buffer.concat(chunks).toString();
    const read = { headers: request.headers, at: performance.now(), body, events: [] };
    try {
      webhook.verify(body, request.headers);
      const parsed = HTTP.toEvent({ headers: request.headers, body });
      read.batch = Array.isArray(parsed);
      read.events = [parsed].flat();
      for (const event of read.events) event.validate();
    } catch (error) {
      receiver.problems.push(`${error.message}: ${body.slice(0, 500)}`);
      response.writeHead(400).end();
      return;
    }
    receiver.requests.push(read);
    const answer = (await receiver.answer(read.events[0], read)) ?? {};
    const { status = 200, headers = {}, body: reply } = "status" in answer ? answer : { body: answer };
    // What is answered with success is what the backend has.
    if (status < 300) receiver.events.push(...read.events);
    response.writeHead(status, headers);
    response.end(typeof reply === "string" || reply === undefined ? reply : JSON.stringify(reply));
  }

  let server;
  receiver.start = async () => {
    server = createServer((request, response) => take(request, response).catch((error) => receiver.problems.push(error.message)));
    await new Promise((resolve, reject) => server.listen(port, "127.0.0.1", resolve).once("error", reject));
  };
  /** Nobody listens any more, as when the backend is down. */
  receiver.stop = () =>
    new Promise((resolve) => {
      server.close(resolve);
      server.closeAllConnections();
    });
  receiver.of = (type, socket) =>
    receiver.events.filter((event) => event.type === `roomcast.${type}` && (socket === undefined || event.data.socket === socket));
  receiver.atLeast = (count, type, socket) =>
    until(() => receiver.of(type, socket).length >= count, `${count} events roomcast.${type}`).then(() => receiver.of(type, socket));
  await receiver.start();
  return receiver;
}

/** A problem as backends answer it. */
export const problem = (status, code, detail) => ({
  status,
  headers: { "content-type": "application/problem+json" },
  body: { type: "about:blank", status, code, detail },
});

/** Settings of a backend that a receiver is. */
export const backendOf = (receiver, settings = {}) => ({ webhook: receiver.url, secrets: [SECRET], ...settings });

/** Everything about a namespace goes to one backend. */
export const tellsAll = (backend) => ({
  connect: backend,
  connected: backend,
  disconnected: backend,
  occupied: backend,
  vacated: backend,
});

/** A configuration in a file of its own, which can be written again. */
export function configuration(settings) {
  const file = path.join(temporaryDirectory(), "roomcast.json");
  const write = (settings) => writeFileSync(file, JSON.stringify(settings));
  write(settings);
  return { file, write };
}

/** The ids that stand twice. */
export function twice(events) {
  const seen = new Set();
  return events.map((event) => event.id).filter((id) => seen.size === seen.add(id).size);
}
