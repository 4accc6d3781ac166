// The paper's two-basin example in f64, for the picture and the names of the basins. The paths use
// gradients from loss.wgsl.
//
//     L(mu, sigma) = -log(0.7 exp(-K_1 / 1.8^2) + 0.3 exp(-K_2 / 1.2^2))
//     K_i = log(s_i / sigma) + (sigma^2 + (mu - mu_i)^2) / (2 s_i^2) - 1/2

/** @typedef {[mu: number, sigma: number]} Point */

export const START = /** @type {Point} */ ([-6, 10]);
/** The two minima; the sharp one has the lower loss. */
export const MINIMA = {
  sharp: /** @type {Point} */ ([-16.8, 12.8]),
  flat: /** @type {Point} */ ([19.81, 29.94]),
};

const WELLS = [
  { share: 0.7, temperature: 1.8 ** 2, center: 20, spread: 30 },
  { share: 0.3, temperature: 1.2 ** 2, center: -20, spread: 10 },
];

/**
 * @param {Point} point
 * @returns {{ loss: number, grad: Point }}
 */
export function lossAndGrad([mu, sigma]) {
  let total = 0;
  const grad = /** @type {Point} */ ([0, 0]);
  for (const { share, temperature, center, spread } of WELLS) {
    const variance = spread ** 2;
    const offset = mu - center;
    const divergence = Math.log(spread / sigma) + (sigma ** 2 + offset ** 2) / (2 * variance) - 0.5;
    const p = share * Math.exp(-divergence / temperature);
    total += p;
    grad[0] += ((p / temperature) * offset) / variance;
    grad[1] += (p / temperature) * (sigma / variance - 1 / sigma);
  }
  return { loss: -Math.log(total), grad: [grad[0] / total, grad[1] / total] };
}

/**
 * The basin of a point.
 * @param {Point} point
 * @returns {"sharp" | "flat" | "between" | "lost"}
 */
export function basin(point) {
  if (!point.every(Number.isFinite)) return "lost";
  /** @param {Point} minimum */
  const near = (minimum) => minimum.every((at, axis) => Math.abs(point[axis] - at) < 5);
  if (near(MINIMA.sharp)) return "sharp";
  return near(MINIMA.flat) ? "flat" : "between";
}
