// A TCP proxy that fails on purpose: it stands between one client (a node, a browser) and one server, and does to the
// bytes what networks do. It runs in the test's own process and never looks into a protocol, except for what the
// client said first, by which a single connection can be found.

import net from "node:net";
import { freePort } from "./processes.js";

/** How much of what a client said is kept to find its connection by. */
const REMEMBERED = 64 * 1024;

export async function startProxy(targetPort) {
  const proxy = new Proxy(targetPort, await freePort());
  await proxy.listen();
  return proxy;
}

class Proxy {
  #server;
  #connections = new Set();
  #stalled = false;

  constructor(targetPort, port) {
    Object.assign(this, { targetPort, port });
  }

  listen() {
    this.#server = net.createServer({ allowHalfOpen: true }, (client) => this.#accept(client));
    return new Promise((resolve, reject) => {
      this.#server.once("error", reject);
      this.#server.listen(this.port, "127.0.0.1", resolve);
    });
  }

  get connections() {
    return this.#connections.size;
  }

  /** Connections break at once, on both sides, as if a router had lost its state. New ones are served. */
  reset(which = () => true) {
    const broken = [...this.#connections].filter((connection) => which(connection.said()));
    for (const connection of broken) connection.break();
    return broken.length;
  }

  /** A black hole: connections stay, new ones are accepted, and no byte and no FIN passes in either direction. */
  stall() {
    this.#stalled = true;
    for (const connection of this.#connections) connection.update();
  }

  /** What was stalled flows again, nothing is missing; who was cut off can connect again. */
  async heal() {
    this.#stalled = false;
    for (const connection of this.#connections) connection.update();
    if (!this.#server.listening) await this.listen();
  }

  /** Everything breaks and nobody can connect any more. */
  async cut() {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.reset();
    await closed;
  }

  async stop() {
    if (this.#server.listening) await this.cut();
    this.reset();
  }

  #accept(client) {
    const connection = new Connection(client, this.targetPort, () => this.#stalled);
    this.#connections.add(connection);
    connection.ended.then(() => this.#connections.delete(connection));
  }
}

/** One connection through the proxy. The way to the server is opened when the first byte may pass. */
class Connection {
  #said = Buffer.alloc(0);
  #server;

  constructor(client, targetPort, stalled) {
    Object.assign(this, { client, targetPort, stalled });
    this.ended = new Promise((resolve) => (this.end = resolve));
    client.setNoDelay(true);
    client.on("data", (data) => {
      if (this.#said.length < REMEMBERED) this.#said = Buffer.concat([this.#said, data]);
      if (!this.#server.write(data)) client.pause();
    });
    client.on("end", () => (this.#server ? this.#server.end() : this.break()));
    this.#watch(client);
    client.pause();
    this.update();
  }

  /** The beginning of what the client said. */
  said() {
    return this.#said;
  }

  update() {
    if (this.stalled()) {
      this.client.pause();
      this.#server?.pause();
      return;
    }
    // What went away while nothing passed is told now.
    if (this.client.destroyed || this.#server?.destroyed) return this.break();
    if (!this.#server) this.#connect();
    this.client.resume();
    this.#server.resume();
  }

  #connect() {
    const server = net.connect({ port: this.targetPort, host: "127.0.0.1", allowHalfOpen: true });
    this.#server = server;
    server.setNoDelay(true);
    server.on("data", (data) => {
      if (!this.client.write(data)) server.pause();
    });
    server.on("end", () => this.client.end());
    // A full buffer on the one side stops the other, as long as bytes may pass at all.
    server.on("drain", () => this.stalled() || this.client.resume());
    this.client.on("drain", () => this.stalled() || server.resume());
    this.#watch(server);
  }

  #watch(socket) {
    socket.on("error", () => {});
    // While nothing passes, the other side must not learn that this one is gone either.
    socket.on("close", () => this.stalled() || this.break());
  }

  break() {
    for (const socket of [this.client, this.#server]) {
      if (!socket || socket.destroyed) continue;
      // A reset would wait for bytes that cannot be written, for ever.
      if (socket.writableLength > 0 || socket.writableEnded) socket.destroy();
      else socket.resetAndDestroy();
    }
    this.end();
  }
}
