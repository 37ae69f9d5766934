// Elements and figures for people. No markup is ever made of text: whatever a client or a node says stays text.

export const $ = (id) => document.getElementById(id);

/** An element with attributes, `on…` listeners and children. */
export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  set(made, attributes);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  set(made, attributes);
  made.append(...children);
  return made;
}

function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
}

/** A text in which `this` is code. */
export const prose = (text) => text.split("`").map((part, index) => (index % 2 ? el("code", {}, part) : part));

/** Writes a text wherever the page shows this figure. */
export function show(name, text) {
  for (const at of document.querySelectorAll(`[data-metric="${name}"]`)) if (at.textContent !== text) at.textContent = text;
}

const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
export const count = (value) => (value < 100_000 ? Math.round(value).toLocaleString("en") : compact.format(value));
/** A count with its noun: "1 room", "2 rooms". */
export const many = (value, noun) => `${count(value)} ${noun}${value === 1 ? "" : "s"}`;
export const rate = (value) => (value > 0 && value < 10 ? value.toFixed(1).replace(".0", "") : count(value));

/** Bytes as [number, unit]. */
export function bytes(value) {
  const units = ["B", "kB", "MB", "GB"];
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) [value, unit] = [value / 1000, unit + 1];
  return [unit && value < 100 ? value.toFixed(1) : String(Math.round(value)), units[unit]];
}

/** Seconds as [number, unit], for times too short for people. */
export function brief(seconds) {
  if (seconds < 0.001) return [String(Math.round(seconds * 1e6)), "µs"];
  if (seconds < 1) return [(seconds * 1000).toFixed(seconds < 0.1 ? 1 : 0), "ms"];
  return [seconds.toFixed(1), "s"];
}

/** Seconds, for times that people live in. */
export function duration(seconds) {
  const s = Math.floor(seconds);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h ${Math.floor(s / 60) % 60} min`;
  return `${Math.floor(s / 86_400)} d ${Math.floor(s / 3600) % 24} h`;
}

export const clock = (date = new Date()) => date.toTimeString().slice(0, 8);

/** JSON on one line; binary as its size. */
export const json = (value) =>
  JSON.stringify(value, (_, item) => {
    if (item instanceof ArrayBuffer || ArrayBuffer.isView(item)) return `<${item.byteLength} bytes>`;
    return item;
  }) ?? "undefined";

/** What an input says as JSON, or undefined; then the input says what is wrong with it. */
export function readJson(input, isGood = () => true, wanted = "JSON") {
  let value;
  try {
    value = JSON.parse(input.value);
  } catch {
    value = undefined;
  }
  const good = value !== undefined && isGood(value);
  input.setCustomValidity(good ? "" : `This has to be ${wanted}.`);
  input.toggleAttribute("aria-invalid", false);
  if (!good) input.setAttribute("aria-invalid", "true");
  return good ? value : undefined;
}

/** Fills a select, and keeps what was chosen if it is still there. */
export function options(select, names, labels = names) {
  if ([...select.options].map(({ value }) => value).join("\n") === names.join("\n")) return;
  const chosen = select.value;
  select.replaceChildren(...names.map((name, index) => new Option(labels[index], name)));
  select.value = names.includes(chosen) ? chosen : (names[0] ?? "");
}

/** Copies the text of an element, or selects it where the browser does not let pages copy. */
export async function copy(element, button) {
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(element.textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(element);
    button.textContent = "Selected";
  }
  setTimeout(() => (button.textContent = label), 1500);
}
