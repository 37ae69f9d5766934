// Many clients in a process of their own.

import { fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { within } from "./deadline.js";

const script = fileURLToPath(new URL("crowd-process.js", import.meta.url));
const crowds = new Set();
process.on("exit", () => crowds.forEach((child) => child.kill("SIGKILL")));

export class Crowd {
  #waiting = new Map();
  #next = 0;

  constructor() {
    this.child = fork(script);
    crowds.add(this.child);
    this.ended = new Promise((resolve) => this.child.once("exit", resolve));
    this.child.on("message", ({ id, answer, error }) => {
      const { resolve, reject } = this.#waiting.get(id);
      this.#waiting.delete(id);
      error ? reject(new Error(error)) : resolve(answer);
    });
  }

  #tell(command, options, ms = 60_000) {
    const id = this.#next++;
    const answer = new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
    this.child.send({ id, command, ...options });
    return within(answer, `end of "${command}" in the crowd`, ms);
  }

  join = (options) => this.#tell("join", options);
  stopReading = (options) => this.#tell("stopReading", options);
  flood = (options) => this.#tell("flood", options);
  calm = () => this.#tell("calm");
  report = () => this.#tell("report");

  async stop() {
    this.child.kill("SIGKILL");
    await this.ended;
    crowds.delete(this.child);
  }
}
