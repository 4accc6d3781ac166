// Draws the loss surface and the paths as SVG in the page's own size, so that text stays legible on a
// phone, where a scaled picture's text would not.

import { cut, sample } from "./contours.js";
import { lossAndGrad, MINIMA, START } from "./toy.js";

/** @import { Corner, Domain } from "./contours.js" */
/** @import { Point } from "./toy.js" */

/** @type {Domain} */
const DOMAIN = { x: [-42, 48], y: [3, 43] };
const TICKS = { x: [-40, -20, 0, 20, 40], y: [10, 20, 30, 40] };
/** Denser near the values of the minima and of the ridge, about 0.28, 0.36 and 0.4. */
const LEVELS = [0.28, 0.3, 0.32, 0.34, 0.36, 0.38, 0.4, 0.44, 0.5, 0.6, 0.75, 1, 1.35, 1.8];
const MARGIN = { left: 46, right: 8, top: 8, bottom: 42 };

/** Level lines in data coordinates, which do not depend on the size. */
const grid = sample((mu, sigma) => lossAndGrad([mu, sigma]).loss, DOMAIN, 120, 90);
const CONTOURS = LEVELS.map((level) => cut(grid, level));

/**
 * @param {string} name
 * @param {Record<string, string | number>} attributes
 * @param {string} [text]
 */
function element(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  if (text) made.textContent = text;
  return made;
}

/** Rounds to tenths of a pixel, which is precise enough for a path. */
const tenths = (/** @type {number} */ value) => Math.round(10 * value) / 10;

export class Plot {
  /** @param {SVGSVGElement} svg */
  constructor(svg) {
    this.svg = svg;
    /** @type {Record<string, Point[]>} */
    this.paths = {};
    this.surface = element("g", {});
    this.walks = element("g", { "clip-path": "url(#inside)" });
    this.clip = element("clipPath", { id: "inside" });
    /** Rectangle of the surface, set by `resize`. */
    this.box = { x: 0, y: 0, width: 0, height: 0 };
    svg.append(this.clip, this.surface, this.walks);
    new ResizeObserver(() => this.resize()).observe(svg);
  }

  resize() {
    const { width, height } = this.svg.getBoundingClientRect();
    if (width === 0 || height === 0) return;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const { left: x, top: y, right, bottom } = MARGIN;
    this.box = { x, y, width: width - x - right, height: height - y - bottom };
    this.clip.replaceChildren(element("rect", this.box));
    this.surface.replaceChildren(
      ...this.contours(),
      element("rect", { ...this.box, class: "frame" }),
      ...this.axes(),
      ...this.marks(),
    );
    this.draw(this.paths);
  }

  /** @type {(point: Point | Corner) => [number, number]} */
  place = ([x, y]) => {
    const { box } = this;
    const across = (x - DOMAIN.x[0]) / (DOMAIN.x[1] - DOMAIN.x[0]);
    const down = (DOMAIN.y[1] - y) / (DOMAIN.y[1] - DOMAIN.y[0]);
    return [tenths(box.x + box.width * across), tenths(box.y + box.height * down)];
  };

  contours() {
    const join = (/** @type {Corner[][]} */ shapes, /** @type {string} */ end) =>
      shapes.map((shape) => `M${shape.map(this.place).join("L")}${end}`).join("");
    return CONTOURS.flatMap(({ below, line }) => [
      // Crisp edges avoid seams between the strips.
      element("path", { class: "band", d: join(below, "Z"), "shape-rendering": "crispEdges" }),
      element("path", { class: "contour", d: join(line, "") }),
    ]);
  }

  axes() {
    const { box } = this;
    const floor = box.y + box.height;
    const center = box.y + box.height / 2;
    return [
      ...TICKS.x.map((mu) => {
        const [x] = this.place([mu, 0]);
        return element("text", { x, y: floor + 16, "text-anchor": "middle" }, label(mu));
      }),
      ...TICKS.y.map((sigma) => {
        const y = this.place([0, sigma])[1] + 4;
        return element("text", { x: box.x - 6, y, "text-anchor": "end" }, label(sigma));
      }),
      element("text", { x: box.x + box.width / 2, y: floor + 35, "text-anchor": "middle" }, "mean μ"),
      element(
        "text",
        { x: 13, y: center, "text-anchor": "middle", transform: `rotate(-90 13 ${center})` },
        "standard deviation σ",
      ),
    ];
  }

  marks() {
    const [startX, startY] = this.place(START);
    const crosses = Object.entries(MINIMA).flatMap(([name, minimum]) => {
      const [x, y] = this.place(minimum);
      const d = `M${x - 5} ${y}h10M${x} ${y - 5}v10`;
      // The label is on the side without paths.
      const side = name === "sharp" ? { x: x - 16, "text-anchor": "end" } : { x: x + 18, "text-anchor": "start" };
      const text = element("text", { ...side, y: y + 4, class: "name" }, name);
      return [element("path", { d, class: "minimum" }), text];
    });
    return [
      ...crosses,
      element("text", { x: startX + 11, y: startY + 12, class: "name" }, "start"),
      element("circle", { cx: startX, cy: startY, r: 5, class: "start" }),
    ];
  }

  /**
   * Replaces the drawn paths by these, by name.
   * @param {Record<string, Point[]>} paths
   */
  draw(paths) {
    this.paths = paths;
    if (this.box.width === 0) return;
    const shapes = Object.entries(paths).flatMap(([name, points], index) => {
      const finite = points.filter((point) => point.every(Number.isFinite));
      const places = finite.map(this.place);
      const [cx, cy] = places[places.length - 1];
      return [
        element("polyline", { class: `path ${name}`, points: places.join(" ") }),
        // Decreasing radii, so that equal ends are visible as rings.
        element("circle", { class: `end ${name}`, cx, cy, r: 8 - 1.75 * index }),
      ];
    });
    this.walks.replaceChildren(...shapes);
  }
}

/** Formats a number with a Unicode minus sign. */
export const label = (/** @type {number} */ value, digits = 0) => value.toFixed(digits).replace("-", "−");
