// The ways in over a broker, as a node's metrics show them.

import { until } from "./deadline.js";

async function value(node, series) {
  const text = await (await fetch(`${node.api}/metrics`)).text();
  const line = text.split("\n").find((candidate) => candidate.startsWith(`${series} `));
  return line ? Number(line.slice(series.length + 1)) : undefined;
}

/** Messages that came this way, by what became of them. */
export const ingested = async (node, source, result) =>
  (await value(node, `roomcast_ingest_messages_total{result="${result}",source="${source}"}`)) ?? 0;

/** Waits until the way in is there, or is not. */
export const ingestUp = (node, source, up = 1) =>
  until(async () => (await value(node, `roomcast_ingest_up{source="${source}"}`)) === up, `${source} ${up ? "up" : "down"}`);
