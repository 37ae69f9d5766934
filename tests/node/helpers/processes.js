// Child processes of the tests: started on free ports, watched until ready, ended by pid, never left behind.

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { until, within } from "./deadline.js";

const children = new Set();
const directories = new Set();

process.on("exit", () => {
  for (const child of children) child.kill("SIGKILL");
  for (const directory of directories) rmSync(directory, { recursive: true, force: true });
});
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => process.exit(1));

/** A directory that is gone when the test process ends. */
export function temporaryDirectory() {
  const directory = mkdtempSync(path.join(os.tmpdir(), "roomcast-test-"));
  directories.add(directory);
  return directory;
}

/**
 * A port of 127.0.0.1 that nobody listens on. Below the ephemeral range, so that no outgoing connection of a parallel
 * test takes it between this check and the child's own bind.
 */
export async function freePort() {
  for (;;) {
    const port = 10_240 + Math.floor(Math.random() * 21_000);
    if (await canListen(port)) return port;
  }
}

function canListen(port) {
  return new Promise((resolve) => {
    const server = net.createServer();
    server.once("error", () => resolve(false));
    server.listen({ port, host: "127.0.0.1", exclusive: true }, () => server.close(() => resolve(true)));
  });
}

export class Child {
  #output = "";

  constructor(command, args = [], { env = {}, cwd, name = path.basename(command), stdin = "ignore" } = {}) {
    this.name = name;
    this.process = spawn(command, args, { cwd, env: { ...process.env, ...env }, stdio: [stdin, "pipe", "pipe"] });
    this.pid = this.process.pid;
    children.add(this.process);
    for (const stream of [this.process.stdout, this.process.stderr]) {
      // Only the end is kept: it is for failure messages.
      stream.on("data", (data) => (this.#output = (this.#output + data).slice(-20_000)));
    }
    this.ended = new Promise((resolve) => {
      this.process.once("error", (error) => resolve({ error }));
      this.process.once("exit", (code, signal) => resolve({ code, signal }));
    });
    this.ended.then((end) => {
      this.end = end;
      children.delete(this.process);
    });
  }

  get output() {
    return this.#output;
  }

  /** Waits for `condition`; fails at once, with the output, when the process ends before. */
  async ready(condition, what = `readiness of ${this.name}`) {
    const died = this.ended.then((end) => {
      throw new Error(`${this.name} ended before it was ready: ${JSON.stringify(end)}\n${this.#output}`);
    });
    died.catch(() => {});
    try {
      await Promise.race([until(condition, what), died]);
    } catch (error) {
      if (!this.end) error.message += `\n${this.#output}`;
      await this.stop("SIGKILL");
      throw error;
    }
    return this;
  }

  kill(signal) {
    if (!this.end) this.process.kill(signal);
  }

  /** Ends the process and waits until it is gone; one that ignores the signal is killed. */
  async stop(signal = "SIGTERM") {
    this.kill(signal);
    // A process that a test has stopped takes no other signal but SIGKILL.
    this.kill("SIGCONT");
    try {
      await within(this.ended, `end of ${this.name}`, 10_000);
    } catch {
      this.kill("SIGKILL");
      await within(this.ended, `end of ${this.name} after SIGKILL`);
    }
  }
}

/** Whether something accepts connections on the port. */
export function portOpen(port, host = "127.0.0.1") {
  return new Promise((resolve) => {
    const socket = net.connect({ port, host });
    socket.once("connect", () => resolve(true) || socket.destroy());
    socket.once("error", () => resolve(false));
  });
}

/** The path of a program in PATH or in the directories where Debian puts servers. */
export async function program(name, debianPackage = name) {
  const { access, constants } = await import("node:fs/promises");
  const places = [...(process.env.PATH ?? "").split(":"), "/usr/sbin", "/usr/local/sbin"];
  for (const place of places.filter(Boolean)) {
    const candidate = path.join(place, name);
    if (await access(candidate, constants.X_OK).then(() => true, () => false)) return candidate;
  }
  throw new Error(`${name} is not installed; \`apt-get install ${debianPackage}\` installs it`);
}
