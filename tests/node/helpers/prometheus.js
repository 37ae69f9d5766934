// The text format of Prometheus, as strictly as its scraper reads it, in the parts that an exporter uses.

const NAME = /^[a-zA-Z_:][a-zA-Z0-9_:]*$/;
const SAMPLE = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{(.*)\})? (\S+)( -?\d+)?$/;
const LABELS = /^(?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\"n])*",?)*$/;
const TYPES = ["counter", "gauge", "histogram", "summary", "untyped"];

/** The families by name, each `{type, help, samples: [{name, labels, value}]}`. Throws at the first bad line. */
export function parseMetrics(text) {
  if (!text.endsWith("\n")) throw new Error("the last line has no end");
  const families = new Map();
  const seen = new Set();
  const family = (name) => {
    if (!NAME.test(name)) throw new Error(`bad metric name ${name}`);
    if (!families.has(name)) families.set(name, { samples: [] });
    return families.get(name);
  };
  for (const line of text.slice(0, -1).split("\n")) {
    const [, keyword, name, rest] = /^# (HELP|TYPE) (\S+) ?(.*)$/.exec(line) ?? [];
    if (keyword) {
      const entry = family(name);
      const key = keyword.toLowerCase();
      if (entry[key] !== undefined) throw new Error(`second ${keyword} of ${name}`);
      if (key === "type" && (!TYPES.includes(rest) || entry.samples.length)) throw new Error(`bad line: ${line}`);
      entry[key] = rest;
      continue;
    }
    if (line === "" || line.startsWith("#")) continue;
    const [, sample, , labels = "", value] = SAMPLE.exec(line) ?? [];
    if (!sample || !LABELS.test(labels)) throw new Error(`bad line: ${line}`);
    if (Number.isNaN(Number(value)) && !/^([+-]?Inf|NaN)$/.test(value)) throw new Error(`bad value: ${line}`);
    if (seen.has(sample + labels)) throw new Error(`second sample: ${line}`);
    seen.add(sample + labels);
    const owner = families.has(sample) ? sample : sample.replace(/_(bucket|sum|count)$/, "");
    family(owner).samples.push({ name: sample, labels, value: Number(value.replace("Inf", "Infinity")) });
  }
  for (const [name, { type, help }] of families) {
    if (!type || !help) throw new Error(`${name} has no TYPE or no HELP`);
  }
  return families;
}
