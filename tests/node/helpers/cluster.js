// What the cluster tests share.

import { REFERENCE } from "./servers.js";

/** The brokers to test with. The reference has an official adapter for Redis only. */
export const KINDS = process.env.CLUSTER_KINDS?.split(",") ?? (REFERENCE ? ["redis"] : ["redis", "nats"]);

/** Binary as `{"$bin": base64}`, which is how it looks from the browser, from Python and in the HTTP API. */
export function plain(value) {
  if (Buffer.isBuffer(value)) return { $bin: value.toString("base64") };
  if (Array.isArray(value)) return value.map(plain);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, plain(item)]));
}

/** Runs the stoppers of what was started, the last first, whatever each of them says. */
export async function stopAll(stoppers) {
  for (const stop of stoppers.reverse()) await Promise.resolve(stop()).catch(() => {});
}
