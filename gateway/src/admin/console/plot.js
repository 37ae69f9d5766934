// A plot of one or two lines over the last minutes, as SVG in the pixels that it has, so that its texts stay readable.

import { svg } from "./dom.js";

const HEIGHT = 112;
const TOP = 14;
const BOTTOM = 18;
/** A line is not drawn across a time without figures, such as that of a hidden tab. */
const GAP = 4;

/** The next number from above that is easy to read on an axis. */
export function ceiling(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 3, 5, 8, 10].map((step) => step * power).find((step) => step >= value * 0.999_999);
}

/**
 * `series` are `{ name, at }`, where `at(point)` is a number, or null when there is none. `axis(value)` is the text at
 * the axis. Points have `t`, in seconds.
 */
export class Plot {
  constructor({ title, series, axis, least = 1 }) {
    Object.assign(this, { title, series, axis, least });
    this.element = svg("svg", { role: "img", class: "plot", height: HEIGHT, "aria-label": `${title}: nothing yet` });
  }

  /** Draws what lies between `now - span` and `now`. */
  render(points, now, span) {
    const width = this.element.clientWidth;
    if (!width) return;
    const values = this.series.map(({ at }) => points.map(at));
    const known = values.flat().filter((value) => value !== null);
    const top = Math.max(ceiling(Math.max(...known, 0)), this.least);
    const x = (t) => width - ((now - t) / span) * width;
    const y = (value) => HEIGHT - BOTTOM - (value / top) * (HEIGHT - BOTTOM - TOP);
    const lines = values.flatMap((row, index) => {
      const runs = split(points, row);
      const area = runs.map((run) => `${path(run, x, y)}L${x(run.at(-1)[0]).toFixed(1)} ${y(0)}L${x(run[0][0]).toFixed(1)} ${y(0)}Z`);
      const stroke = runs.map((run) => path(run, x, y)).join("");
      return [
        svg("path", { class: `area s${index}`, d: area.join("") }),
        svg("path", { class: `line s${index}`, d: stroke }),
      ];
    });
    const grid = [top, top / 2, 0].map((value) => svg("path", { class: "grid", d: `M0 ${y(value)}H${width}` }));
    const text = (at, anchor, label) => svg("text", { x: at[0], y: at[1], "text-anchor": anchor }, label);
    const labels = [
      text([0, y(top) - 4], "start", this.axis(top)),
      text([0, HEIGHT - 4], "start", `${span / 60} min ago`),
      text([width, HEIGHT - 4], "end", "now"),
    ];
    this.element.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.element.setAttribute("aria-label", this.describe(values, span));
    this.element.replaceChildren(...grid, ...lines, ...labels);
  }

  /** The plot in words. */
  describe(values, span) {
    const parts = this.series.map(({ name }, index) => {
      const known = values[index].filter((value) => value !== null);
      const prefix = name ? `${name} ` : "";
      if (!known.length) return `${prefix}nothing yet`;
      const [low, high] = [Math.min(...known), Math.max(...known)];
      return `${prefix}${this.axis(known.at(-1))} now, lowest ${this.axis(low)}, highest ${this.axis(high)}`;
    });
    return `${this.title}, last ${span / 60} min: ${parts.join("; ")}`;
  }
}

/** The runs of points without a gap, as [t, value]. */
function split(points, row) {
  const runs = [];
  let before = -Infinity;
  points.forEach(({ t }, index) => {
    const value = row[index];
    if (value === null) return;
    if (t - before > GAP) runs.push([]);
    runs.at(-1).push([t, value]);
    before = t;
  });
  return runs;
}

const path = (run, x, y) =>
  run.map(([t, value], index) => `${index ? "L" : "M"}${x(t).toFixed(1)} ${y(value).toFixed(1)}`).join("");
