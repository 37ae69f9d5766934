// What nodes say of the requests that they pass on to each other.

import { until } from "./deadline.js";
import { parseMetrics } from "./prometheus.js";

/** A metric of a node: the sum of the samples whose labels contain the text. */
export async function metric(node, name, labels = "") {
  const text = await (await fetch(`${node.api}/metrics`)).text();
  const samples = parseMetrics(text).get(name)?.samples ?? [];
  return samples.filter((sample) => sample.labels.includes(labels)).reduce((sum, { value }) => sum + value, 0);
}

/** How many requests a node has passed on, with a certain result or any. */
export const passed = (node, result) =>
  metric(node, "roomcast_forwards_total", result === undefined ? "" : `result="${result}"`);

/** How many requests of other nodes a node has answered, or refused for some reason. */
export const received = (node, result) => metric(node, "roomcast_forwards_received_total", `result="${result}"`);

/** Waits until the nodes pass nothing on any more. */
export const allEnded = (nodes) =>
  until(async () => {
    const active = await Promise.all(nodes.map((node) => metric(node, "roomcast_forwards_active")));
    return active.every((count) => count === 0);
  }, "end of all requests that are passed on");

/** Waits until a node passes on so many. */
export const underWay = (node, count) =>
  until(async () => (await metric(node, "roomcast_forwards_active", 'side="entry"')) === count, `${count} under way`);
