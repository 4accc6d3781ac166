// The comparison of support/src/replay.rs, with its tolerance for f32 routes.

/** `share` allows for the rounding errors that remain where `(1 - alpha) g + alpha g~` cancels. */
export const SINGLE = { rtol: 2e-5, atol: 1e-7, share: 4e-6 };

/**
 * Compares one quantity of one step. An element passes if `|got - want| <= floor + rtol |want|`,
 * which is false for a NaN. `floor` is `min(atol, share * largest |want|)`, because a fixed floor
 * would accept any momentum of a tiny gradient.
 *
 * @param {string} what
 * @param {number[][]} got Flat lists, one for each tensor.
 * @param {number[][]} want
 * @param {typeof SINGLE} tolerance
 * @returns {{ score: number, place: string }} The worst error, as a share of the tolerance.
 * @throws At the first element out of tolerance, or if lengths differ.
 */
export function compare(what, got, want, { rtol, atol, share }) {
  /** @param {number[][]} tensors */
  const lens = (tensors) => tensors.map((tensor) => tensor.length).join(" ");
  if (lens(got) !== lens(want)) throw new Error(`${what}: lengths ${lens(got)} for ${lens(want)}`);
  const largest = want.flat().reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const floor = Math.min(atol, share * largest);
  const worst = { score: 0, place: "bit-equal" };
  want.forEach((tensor, t) =>
    tensor.forEach((value, element) => {
      const place = `${what}, tensor ${t}, element ${element}: ${got[t][element]} for ${value}`;
      const error = Math.abs(got[t][element] - value);
      const allowed = floor + rtol * Math.abs(value);
      if (!(error <= allowed)) throw new Error(`${place} (error ${error}, allowed ${allowed})`);
      if (error > 0 && error / allowed > worst.score) Object.assign(worst, { score: error / allowed, place });
    }),
  );
  return worst;
}
