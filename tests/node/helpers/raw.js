// The protocols by hand, with nothing but `fetch` and a WebSocket: what is on the wire is what is asserted.

import WebSocket from "ws";
import { within } from "./deadline.js";

export const SOCKET_IO = "/socket.io/";
export const ENGINE_IO = "/engine.io/";

/** What an HTTP answer consists of. A missing content type is `null`. */
export async function request(url, { method = "GET", body, headers, signal } = {}) {
  const response = await fetch(url, { method, body, headers, signal });
  const text = await response.text();
  return { status: response.status, type: response.headers.get("content-type"), text, headers: response.headers };
}

export const polling = (server, path, query = "") => `${server.url}${path}?EIO=4&transport=polling${query}`;

/** A long-polling session at packet level. */
export class Poll {
  static async open(server, path = SOCKET_IO) {
    const answer = await request(polling(server, path));
    if (answer.status !== 200 || !answer.text.startsWith("0{")) {
      throw new Error(`handshake refused: ${answer.status} ${answer.text}`);
    }
    return new Poll(server, path, JSON.parse(answer.text.slice(1)));
  }

  constructor(server, path, handshake) {
    Object.assign(this, { server, path, handshake, sid: handshake.sid });
    this.url = polling(server, path, `&sid=${this.sid}`);
  }

  get(options) {
    return within(request(this.url, options), "answer to a poll");
  }

  post(body, headers) {
    return within(request(this.url, { method: "POST", body, headers }), "answer to a POST");
  }

  /** The packets of the next poll, at least one. */
  async receive() {
    const answer = await this.get();
    if (answer.status !== 200) throw new Error(`poll refused: ${answer.status} ${answer.text}`);
    return answer.text.split("\x1e");
  }

  /** Polls until `count` packets have come; answers heartbeats so that the session lives, and skips noops. */
  async receiveAll(count) {
    const packets = [];
    while (packets.length < count) {
      for (const packet of await this.receive()) {
        if (packet === "2") await this.post("3");
        else if (packet !== "6") packets.push(packet);
      }
    }
    return packets;
  }
}

/** A WebSocket whose frames are read one after the other. Text frames come as strings, binary ones as Buffers. */
export class Ws {
  #frames = [];
  #readers = [];

  constructor(url, options) {
    this.socket = new WebSocket(url, { perMessageDeflate: false, ...options });
    this.closed = new Promise((resolve) => this.socket.once("close", (code, reason) => resolve({ code, reason: String(reason) })));
    this.opened = new Promise((resolve, reject) => {
      this.socket.once("open", resolve);
      this.socket.once("error", reject);
    });
    this.opened.catch(() => {});
    this.socket.on("message", (data, binary) => {
      const frame = binary ? data : String(data);
      const reader = this.#readers.shift();
      reader ? reader(frame) : this.#frames.push(frame);
    });
  }

  send(data) {
    this.socket.send(data);
  }

  /** The next frame; a close before it is an error. */
  receive() {
    if (this.#frames.length) return Promise.resolve(this.#frames.shift());
    const frame = new Promise((resolve) => this.#readers.push(resolve));
    const closed = this.closed.then(({ code }) => {
      throw new Error(`closed with ${code} while a frame was expected`);
    });
    return within(Promise.race([frame, closed]), "WebSocket frame");
  }

  /** Frames that have come and not been read. */
  get unread() {
    return this.#frames.length;
  }

  /** The code with which the server closed. */
  async closeCode() {
    return (await within(this.closed, "close of the WebSocket")).code;
  }

  close() {
    this.socket.close();
  }

  terminate() {
    this.socket.terminate();
  }
}

export const wsUrl = (server, path = SOCKET_IO, query = "EIO=4&transport=websocket") =>
  `${server.url.replace("http", "ws")}${path}?${query}`;

/** A WebSocket session whose handshake packet is read. */
export async function openWs(server, path = SOCKET_IO, options = {}) {
  const ws = new Ws(wsUrl(server, path), options);
  await within(ws.opened, "opening of the WebSocket");
  const open = await ws.receive();
  ws.handshake = JSON.parse(open.slice(1));
  return ws;
}

/** A WebSocket on top of a polling session, not yet probed. */
export async function openUpgrade(poll) {
  const ws = new Ws(wsUrl(poll.server, poll.path, `EIO=4&transport=websocket&sid=${poll.sid}`));
  await within(ws.opened, "opening of the WebSocket");
  return ws;
}

/** A WebSocket session that has joined `/`; the test server's "auth" event is read too. */
export async function connectWs(server) {
  const ws = await openWs(server);
  ws.send("40");
  ws.connected = await ws.receive();
  ws.auth = await ws.receive();
  return ws;
}

/** How a WebSocket request is refused: `{status, type, text}` of the HTTP answer, or `{code}` of the close after a 101. */
export function refusal(url, options) {
  const socket = new WebSocket(url, { perMessageDeflate: false, ...options });
  const outcome = new Promise((resolve) => {
    socket.once("unexpected-response", (_request, response) => {
      const chunks = [];
      response.on("data", (chunk) => chunks.push(chunk));
      response.on("end", () =>
        resolve({
          status: response.statusCode,
          type: response.headers["content-type"] ?? null,
          text: String(Buffer.concat(chunks)),
        }),
      );
    });
    socket.on("error", () => {});
    socket.once("close", (code) => resolve({ code }));
  });
  return within(outcome, "refusal of the WebSocket").finally(() => socket.terminate());
}
