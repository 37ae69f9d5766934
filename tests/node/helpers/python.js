// A Python client as a child process; tests/python/listener.py prints what it receives.

import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { until } from "./deadline.js";
import { Child } from "./processes.js";

const file = (path) => fileURLToPath(new URL(path, import.meta.url));
const python = process.env.ROOMCAST_TEST_PYTHON ?? file("../../.cache/venv/bin/python");

/** Connects to the node and joins the rooms. `received` is like that of the other clients: `[event, ...args]`. */
export async function pythonListener(url, transports, ...rooms) {
  const args = [file("../../python/listener.py"), url, transports.join(","), ...rooms];
  const child = new Child(python, args, { stdin: "pipe", name: "listener.py" });
  const received = [];
  let id;
  createInterface({ input: child.process.stdout }).on("line", (line) => {
    const { ready, event, args: eventArgs } = JSON.parse(line);
    if (ready) id = ready;
    if (event) received.push([event, ...eventArgs]);
  });
  await child.ready(() => id);
  return {
    id,
    received,
    atLeast: (count) => until(() => received.length >= count, `${count} events in Python`),
    stop: () => {
      child.process.stdin.end();
      return child.stop();
    },
  };
}
