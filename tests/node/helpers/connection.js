// Connections made by hand: from which address they come, what their first bytes are, and how they end.

import net from "node:net";
import tls from "node:tls";
import https from "node:https";
import { within } from "./deadline.js";

export const HANDSHAKE = "/socket.io/?EIO=4&transport=polling";

/** A TCP connection, with everything that comes until it ends. */
export class Connection {
  constructor(port, { localAddress } = {}) {
    this.chunks = [];
    this.socket = net.connect({ port, host: "127.0.0.1", localAddress });
    this.socket.setNoDelay(true);
    this.socket.on("error", () => {});
    this.socket.on("data", (data) => this.chunks.push(data));
    this.opened = new Promise((resolve) => this.socket.once("connect", resolve));
    this.closed = new Promise((resolve) => this.socket.once("close", resolve));
  }

  get text() {
    return Buffer.concat(this.chunks).toString("latin1");
  }

  /** Waits for the server to end it; gives what came. */
  async end() {
    await within(this.closed, "end of the connection");
    return this.text;
  }

  destroy() {
    this.socket.destroy();
  }
}

/** The text of a request. */
export const requestText = (headers = {}, { path = HANDSHAKE, connection = "close" } = {}) =>
  `GET ${path} HTTP/1.1\r\nHost: gateway\r\nConnection: ${connection}\r\n` +
  `${Object.entries(headers).flatMap(([name, values]) => [values].flat().map((value) => `${name}: ${value}\r\n`)).join("")}\r\n`;

/** A polling handshake over a connection of its own: the status, 0 when the connection ended without an answer. */
export async function handshake(port, { headers, before, pieces = [], localAddress } = {}) {
  const connection = new Connection(port, { localAddress });
  await within(connection.opened, "connection");
  if (before) connection.socket.write(before);
  for (const piece of pieces) await new Promise((resolve) => connection.socket.write(piece, resolve));
  connection.socket.write(requestText(headers));
  const answer = await connection.end();
  return Number(/^HTTP\/1\.1 (\d+)/.exec(answer)?.[1] ?? 0);
}

/** A request over TLS, on a connection of its own. */
export function httpsRequest(url, { method = "GET", body, headers = {}, ...options } = {}) {
  const answer = new Promise((resolve, reject) => {
    const request = https.request(url, { method, headers, agent: false, ...options }, (response) => {
      const chunks = [];
      const { serialNumber } = response.socket.getPeerCertificate();
      response.on("data", (chunk) => chunks.push(chunk));
      response.on("end", () =>
        resolve({ status: response.statusCode, headers: response.headers, text: String(Buffer.concat(chunks)), serialNumber }),
      );
      response.on("error", reject);
    });
    request.on("error", reject);
    request.end(body);
  });
  return within(answer, `answer of ${url}`);
}

/** A TLS connection: resolves with the socket once both sides agree, rejects with the reason. */
export function tlsConnect(port, options) {
  const connected = new Promise((resolve, reject) => {
    const socket = tls.connect({ port, host: "127.0.0.1", ...options }, () => resolve(socket));
    socket.once("error", reject);
    socket.once("close", () => reject(new Error("closed")));
  });
  return within(connected, "TLS connection");
}
