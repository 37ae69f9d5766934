// A process of its own with many bare WebSocket clients, told by messages what to do; crowd.js is its other end.
//
// The official client costs too much by the thousand, and what is measured elsewhere must not wait for this process. A
// client here knows the handshake, CONNECT and one event with an ack; what comes afterwards is counted and thrown away.

import { randomBytes } from "node:crypto";
import net from "node:net";

/** Handshakes at one time. */
const AT_ONCE = 50;
/** What may wait in a talker's socket before it pauses. */
const HIGH_WATER = 256 * 1024;

const clients = [];
let flooding = false;

const commands = {
  /** Connects `count` clients to `port`, which all join `room`. */
  async join({ port, count, room }) {
    let begun = 0;
    const worker = async () => {
      while (begun++ < count) clients.push(await joined(port, room));
    };
    await Promise.all(Array.from({ length: AT_ONCE }, worker));
  },
  /** So many of the clients stop reading: what comes fills the buffers of the system, and then those of the node. */
  async stopReading({ count }) {
    for (const socket of clients.slice(0, count)) socket.pause();
  },
  /** Emits to `room` from one client, `rate` a second or as fast as its connection takes it, until it is told to stop. */
  async flood({ port, room, bytes, rate = Infinity }) {
    const socket = await connected(port);
    const frame = text(`42${JSON.stringify(["room:emit", room, "flood", "x".repeat(bytes)])}`);
    const started = performance.now();
    flooding = true;
    let sent = 0;
    while (flooding) {
      const due = Math.min(sent + 50, ((performance.now() - started) / 1_000) * rate);
      for (; sent < due; sent++) socket.write(frame);
      if (socket.writableLength > HIGH_WATER) await new Promise((resolve) => socket.once("drain", resolve));
      else await new Promise(rate === Infinity ? setImmediate : (resolve) => setTimeout(resolve, 1));
    }
    // What the node answers last was asked last: everything before it was read.
    await asked(socket, `421${JSON.stringify(["room:leave", room])}`, "431");
    socket.destroy();
    return { sent };
  },
  async calm() {
    flooding = false;
  },
  async report() {
    return {
      open: clients.filter((socket) => !socket.destroyed && !socket.readableEnded).length,
      bytes: clients.reduce((sum, socket) => sum + socket.bytesRead, 0),
    };
  },
};

process.on("message", async ({ id, command, ...options }) => {
  try {
    process.send({ id, answer: (await commands[command](options)) ?? {} });
  } catch (error) {
    process.send({ id, error: error.message });
  }
});
process.on("disconnect", () => process.exit(0));

async function joined(port, room) {
  const socket = await connected(port);
  await asked(socket, `420${JSON.stringify(["room:join", room])}`, "430");
  return socket;
}

async function connected(port) {
  const socket = net.connect({ port, host: "127.0.0.1", noDelay: true });
  socket.on("error", () => {});
  await new Promise((resolve, reject) => socket.once("connect", resolve).once("error", reject));
  const key = randomBytes(16).toString("base64");
  const head = ["GET /socket.io/?EIO=4&transport=websocket HTTP/1.1", "Host: localhost", "Connection: Upgrade", "Upgrade: websocket"];
  socket.write([...head, "Sec-WebSocket-Version: 13", `Sec-WebSocket-Key: ${key}`, "", ""].join("\r\n"));
  await seen(socket, '0{"sid"');
  await asked(socket, "40", "40{");
  return socket;
}

async function asked(socket, question, answer) {
  const answered = seen(socket, answer);
  socket.write(text(question));
  await answered;
}

/** Until the text has come. Everything is read and dropped by the same listener afterwards. */
function seen(socket, wanted) {
  return new Promise((resolve, reject) => {
    let tail = "";
    const look = (data) => {
      tail = (tail + data.toString("latin1")).slice(-4096);
      if (!tail.includes(wanted)) return;
      socket.off("data", look).off("close", fail);
      socket.resume();
      resolve();
    };
    const fail = () => reject(new Error(`closed before ${wanted} came`));
    socket.on("data", look).once("close", fail);
  });
}

/** A masked text frame. A mask of zeros is a mask. */
function text(payload) {
  const body = Buffer.from(payload);
  const head = body.length < 126 ? Buffer.from([0x81, 0x80 | body.length]) : Buffer.from([0x81, 0xfe, body.length >> 8, body.length & 255]);
  return Buffer.concat([head, Buffer.alloc(4), body]);
}
