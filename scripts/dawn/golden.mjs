// Runs the golden trajectories and the paper's two-basin example with the crate's kernels on Dawn.
//
//     node golden.mjs [backend=vulkan|...] [adapter=NAME]
//
// Prints the worst error of each file over all routes. WSAM_GOLDEN_DIR sets another folder.

import { readdirSync, readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { basin, lossAndGrad } from "../../web/toy.js";
import { Kernels } from "../../web/wsam/kernels.js";
import { Wsam } from "../../web/wsam/optimizer.js";
import { compare, SINGLE } from "./compare.mjs";
import { dawnOptions, open } from "./device.mjs";
import { SHADERS } from "./shipped.mjs";

/** @import { Options } from "../../web/wsam/optimizer.js" */

/** Small chunks, so that a tensor takes several. Lean routes support decoupled files only. */
const ROUTES = /** @type {Record<string, Options>} */ ({
  "out of place": { width: "wide" },
  "in place": { width: "wide", inPlace: true, chunkLen: 16 },
  "narrow, by lane": { width: "narrow", byLane: true, workgroup: 16, chunkLen: 8 },
  "narrow, in place": { width: "narrow", inPlace: true, workgroup: 256 },
  lean: { width: "wide", lean: true, chunkLen: 16 },
  "lean, narrow": { width: "narrow", lean: true, byLane: true, workgroup: 32 },
});

const dawn = await open(dawnOptions());
const { device } = dawn;
const kernels = new Kernels(device, (file) => readFile(join(SHADERS, file), "utf8"));
console.log(`Dawn on ${dawn.name}`);

/** Submits one pass. */
function submit(/** @type {(pass: GPUComputePassEncoder) => void} */ record) {
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  record(pass);
  pass.end();
  device.queue.submit([encoder.finish()]);
}

/**
 * @param {Wsam} wsam
 * @param {GPUBuffer[]} buffers Columns.
 */
async function read(wsam, ...buffers) {
  const { MAP_READ, COPY_DST } = GPUBufferUsage;
  const size = wsam.bytes;
  const staging = device.createBuffer({ size: size * buffers.length, usage: MAP_READ | COPY_DST });
  const encoder = device.createCommandEncoder();
  buffers.forEach((buffer, i) => encoder.copyBufferToBuffer(buffer, 0, staging, size * i, size));
  device.queue.submit([encoder.finish()]);
  await staging.mapAsync(GPUMapMode.READ);
  const bytes = staging.getMappedRange().slice(0);
  staging.destroy();
  return buffers.map((_, i) => wsam.split(bytes.slice(size * i, size * (i + 1))));
}

/** Replays one file on one route. Throws at the first element out of tolerance. */
async function replay(/** @type {any} */ golden, /** @type {Options} */ options) {
  const lens = golden.weight.map((/** @type {number[]} */ tensor) => tensor.length);
  const wsam = await Wsam.create(kernels, golden.config, lens, options);
  const worst = { score: 0, place: "bit-equal" };
  let step = 0;
  /** @type {(what: string, got: number[][], want: number[][]) => void} */
  const check = (what, got, want) => {
    const found = compare(`step ${step}, ${what}`, got, want, SINGLE);
    if (found.score > worst.score) Object.assign(worst, found);
  };
  wsam.write(wsam.weight, golden.weight);
  for (; step < golden.expected.length; step += 1) {
    const want = golden.expected[step];
    wsam.write(wsam.grad, golden.grad[step]);
    submit((pass) => wsam.ascent(pass));
    const [perturbed] = await read(wsam, wsam.perturbed);
    check("perturbed", perturbed, want.perturbed);
    wsam.write(wsam.gradPerturbed, golden.grad_perturbed[step]);
    submit((pass) => wsam.descent(pass));
    const [weight, ...states] = await read(wsam, wsam.weight, ...wsam.state);
    check("weight", weight, want.weight);
    if (Object.keys(want.state).sort().join() !== [...wsam.states].sort().join()) {
      throw new Error(`step ${step}: states ${Object.keys(want.state)} for ${wsam.states}`);
    }
    wsam.states.forEach((name, i) => check(name, states[i], want.state[name]));
  }
  wsam.destroy();
  if (step === 0) throw new Error("no steps");
  return worst;
}

/** Replays one run of the two-basin example, which must end in the same basin as the authors' code. */
async function replayToy(/** @type {any} */ toy, /** @type {any} */ run) {
  const base = { kind: /** @type {const} */ ("sgd"), lr: toy.lr, momentum: toy.momentum };
  const config = { base, rho: toy.rho, gamma: run.gamma, decouple: run.decouple };
  const wsam = await Wsam.create(kernels, config, [2]);
  let point = toy.start;
  wsam.write(wsam.weight, [point]);
  for (let step = 0; step < toy.steps; step += 1) {
    wsam.write(wsam.grad, [lossAndGrad(point).grad]);
    submit((pass) => wsam.ascent(pass));
    const [[perturbed]] = await read(wsam, wsam.perturbed);
    wsam.write(wsam.gradPerturbed, [lossAndGrad(/** @type {any} */ (perturbed)).grad]);
    submit((pass) => wsam.descent(pass));
    [[point]] = await read(wsam, wsam.weight);
  }
  wsam.destroy();
  const want = run.path.at(-1);
  const text = `(${point.map((/** @type {number} */ x) => x.toFixed(2)).join(", ")}), ${basin(point)}`;
  if (basin(point) !== basin(want)) throw new Error(`ends at ${text}, the authors at ${want}`);
  return text;
}

let [passed, failed] = [0, 0];
/** Runs a trial, counts it as passed or failed, and prints its result or error. */
async function trial(/** @type {string} */ name, /** @type {() => Promise<string>} */ run) {
  try {
    const text = await run();
    dawn.check();
    passed += 1;
    console.log(`${name}: ${text}`);
  } catch (error) {
    failed += 1;
    console.error(`FAILED ${name}: ${/** @type {Error} */ (error).message}`);
  }
}

const folder = process.env.WSAM_GOLDEN_DIR ?? fileURLToPath(new URL("../../tests/golden", import.meta.url));
for (const file of readdirSync(folder).filter((name) => name.endsWith(".json")).sort()) {
  const golden = JSON.parse(readFileSync(join(folder, file), "utf8"));
  for (const run of golden.runs ?? []) {
    const form = run.decouple ? "decoupled" : "coupled";
    await trial(`${file}, gamma ${run.gamma} ${form}`, () => replayToy(golden, run));
  }
  if (golden.runs) continue;
  await trial(file, async () => {
    let [worst, where] = [{ score: -1, place: "" }, ""];
    for (const [route, options] of Object.entries(ROUTES)) {
      if (options.lean && !golden.config.decouple) continue;
      const found = await replay(golden, options).catch((error) => {
        throw new Error(`${route}: ${error.message}`);
      });
      if (found.score > worst.score) [worst, where] = [found, route];
    }
    return `worst error ${(100 * worst.score).toFixed(0)} % of the tolerance (${where}, ${worst.place})`;
  });
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed > 0 || passed === 0 ? 1 : 0);
