// Ten minutes in the space of a few words: an SVG path for each line, nothing that a library is needed for.

import { makeSvg, setAttribute, setText } from "./dom.js";

const HEIGHT = 30;
const LEAST = 2; // units of height of a bar that is not nothing: one error in a thousand is to be seen

/** `lines` and `bars` are names of classes in style.css, each drawn from an array of numbers or null. */
export class Sparkline {
  constructor(parent, lines, bars = []) {
    this.title = makeSvg("title");
    this.paths = new Map();
    for (const name of [...bars, ...lines]) {
      this.paths.set(name, makeSvg("path", { class: name, "vector-effect": "non-scaling-stroke" }));
    }
    this.bars = new Set(bars);
    this.svg = makeSvg(
      "svg",
      { role: "img", preserveAspectRatio: "none" },
      this.title,
      makeSvg("path", { class: "base", "vector-effect": "non-scaling-stroke", d: "" }),
      ...this.paths.values(),
    );
    parent.append(this.svg);
  }

  /** series: name -> numbers, all as long. text: the same for whoever does not see it. */
  draw(series, text) {
    const length = Math.max(...Object.values(series).map((values) => values.length), 2);
    const top = Math.max(...Object.values(series).flat(), 0); // null counts as 0
    setAttribute(this.svg, "viewBox", `0 0 ${length - 1} ${HEIGHT}`);
    setAttribute(this.svg.querySelector(".base"), "d", `M0 ${HEIGHT - 0.5}H${length - 1}`);
    // Lines keep a unit away from the edges, where half of their stroke would be cut off.
    const y = (value) => HEIGHT - 1 - (top ? (value / top) * (HEIGHT - 2) : 0);
    for (const [name, values] of Object.entries(series)) {
      setAttribute(this.paths.get(name), "d", this.bars.has(name) ? bars(values, y) : line(values, y));
    }
    setText(this.title, text);
  }
}

function line(values, y) {
  let path = "";
  let down = false; // the pen; up over a gap
  values.forEach((value, x) => {
    if (value === null) {
      down = false;
      return;
    }
    const alone = !down && (x + 1 === values.length || values[x + 1] === null);
    path += `${down ? "L" : "M"}${x} ${y(value).toFixed(1)}${alone ? "h.01" : ""}`;
    down = true;
  });
  return path;
}

function bars(values, y) {
  let path = "";
  values.forEach((value, x) => {
    if (value) path += `M${x} ${HEIGHT}V${Math.min(y(value), HEIGHT - LEAST).toFixed(1)}`;
  });
  return path;
}
