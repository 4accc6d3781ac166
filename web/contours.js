// Marching squares: level lines of a function on a grid, and the areas below a level.

/** @typedef {[x: number, y: number]} Corner */
/** @typedef {{ x: [number, number], y: [number, number] }} Domain */

/**
 * Samples `f` at the corners of `columns` by `rows` cells.
 * @param {(x: number, y: number) => number} f
 * @param {Domain} domain
 * @param {number} columns
 * @param {number} rows
 */
export function sample(f, { x: [left, right], y: [bottom, top] }, columns, rows) {
  const corners = [];
  for (let row = 0; row <= rows; row += 1) {
    for (let column = 0; column <= columns; column += 1) {
      const x = left + ((right - left) * column) / columns;
      const y = bottom + ((top - bottom) * row) / rows;
      corners.push({ x, y, value: f(x, y) });
    }
  }
  return { corners, columns, rows };
}

/**
 * Cuts each cell at `level`. `below` has the polygons where the function is lower than the level,
 * `line` the segments of the level line.
 * @param {ReturnType<typeof sample>} grid
 * @param {number} level
 */
export function cut({ corners, columns, rows }, level) {
  /** @type {Corner[][]} */
  const below = [];
  /** @type {Corner[][]} */
  const line = [];
  for (let row = 0; row < rows; row += 1) {
    for (let column = 0; column < columns; column += 1) {
      const at = row * (columns + 1) + column;
      const cell = [corners[at], corners[at + 1], corners[at + columns + 2], corners[at + columns + 1]];
      /** @type {Corner[]} */
      const polygon = [];
      /** @type {Corner[]} */
      const crossings = [];
      cell.forEach((a, i) => {
        const b = cell[(i + 1) % 4];
        if (a.value < level) polygon.push([a.x, a.y]);
        if (a.value < level === b.value < level) return;
        const share = (level - a.value) / (b.value - a.value);
        /** @type {Corner} */
        const crossing = [a.x + share * (b.x - a.x), a.y + share * (b.y - a.y)];
        polygon.push(crossing);
        crossings.push(crossing);
      });
      if (polygon.length > 0) below.push(polygon);
      // Four crossings mean a saddle inside the cell, where both pairings are valid.
      for (let i = 0; i + 1 < crossings.length; i += 2) line.push([crossings[i], crossings[i + 1]]);
    }
  }
  return { below: merge(below), line };
}

/**
 * Merges adjacent whole cells into strips, because most polygons are whole cells.
 * @param {Corner[][]} polygons
 */
function merge(polygons) {
  /** @type {Corner[][]} */
  const merged = [];
  for (const polygon of polygons) {
    const last = merged.at(-1);
    const joins = last?.length === 4 && polygon.length === 4;
    if (joins && isCell(last) && isCell(polygon) && same(last[1], polygon[0]) && same(last[2], polygon[3])) {
      merged[merged.length - 1] = [last[0], polygon[1], polygon[2], last[3]];
    } else merged.push(polygon);
  }
  return merged;
}

/** @param {Corner[]} polygon Counter-clockwise from the lower left. */
const isCell = ([a, b, c, d]) => a[0] === d[0] && b[0] === c[0] && a[1] === b[1] && c[1] === d[1];

/** @type {(a: Corner, b: Corner) => boolean} */
const same = (a, b) => a[0] === b[0] && a[1] === b[1];
