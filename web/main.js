// The page: reads the controls, runs three optimizers and draws their paths.

import { label, Plot } from "./plot.js";
import { basin, lossAndGrad } from "./toy.js";
import { gradientPipeline, Walk } from "./walk.js";
import { Kernels } from "./wsam/kernels.js";

/** @import { Point } from "./toy.js" */
/** @import { Config } from "./wsam/constants.js" */

const STEPS = 150;
/** Steps between two readbacks from the device. */
const STRIDE = 3;

const NAMES = /** @type {Record<string, string>} */ ({ base: "SGD", sam: "SAM", wsam: "WSAM" });
const BASINS = { sharp: "sharp", flat: "flat", between: "neither", lost: "diverged" };

/** @type {<T extends Element>(selector: string) => T} */
const find = (selector) => /** @type {any} */ (document.querySelector(selector));
/** @type {HTMLFormElement} */
const form = find("#controls");
const plot = new Plot(find("#plot"));

/** The configuration of each path, from the controls. */
function configs() {
  const data = new FormData(form);
  const number = (/** @type {string} */ name) => Number(data.get(name));
  const base = { kind: /** @type {const} */ ("sgd"), lr: number("lr"), momentum: number("momentum") };
  const rho = number("rho");
  return /** @type {Record<string, Config>} */ ({
    base: { base, rho, gamma: 0, decouple: false },
    sam: { base, rho, gamma: 0.5, decouple: false },
    wsam: { base, rho, gamma: number("gamma"), decouple: data.get("form") === "decoupled" },
  });
}

/** Shows each slider's value. */
function showValues() {
  for (const output of form.querySelectorAll("output")) {
    output.value = /** @type {HTMLInputElement} */ (document.getElementById(output.htmlFor.value)).value;
  }
}

/** Draws the paths, and fills the table of their ends. */
function show(/** @type {Record<string, Point[]>} */ paths) {
  plot.draw(paths);
  const rows = Object.entries(paths).map(([name, points]) => {
    const point = points[points.length - 1];
    const where = basin(point);
    const row = document.createElement("tr");
    row.dataset.path = name;
    row.dataset.basin = where;
    row.innerHTML = `<th scope="row">
      <svg viewBox="0 0 30 10" aria-hidden="true"><path class="path ${name}" d="M0 5h30" /></svg>${NAMES[name]}
    </th>`;
    const lost = where === "lost";
    row.insertCell().textContent = lost ? "–" : `(${label(point[0], 2)}, ${label(point[1], 2)})`;
    row.insertCell().textContent = lost ? "–" : lossAndGrad(point).loss.toFixed(4);
    row.insertCell().textContent = BASINS[where];
    return row;
  });
  find("#ends").replaceChildren(...rows);
}

/** Opens a device. Throws an error with the reason for the user if there is none. */
async function openDevice() {
  if (!navigator.gpu) throw new Error("This browser has no WebGPU.");
  const adapter = await navigator.gpu.requestAdapter();
  if (!adapter) throw new Error("This browser has WebGPU, but found no adapter.");
  const device = await adapter.requestDevice();
  device.onuncapturederror = ({ error }) => console.error(error.message);
  device.lost.then(({ message }) => giveUp(`The GPU was lost (${message}). Reload the page to continue.`));
  const { vendor, architecture, description } = adapter.info;
  return { device, name: description || [vendor, architecture].filter(Boolean).join(" ") || "WebGPU" };
}

/** Runs the optimizers from the start. A later run stops an earlier one. */
class Runner {
  /**
   * @param {Kernels} kernels
   * @param {GPUComputePipeline} gradient
   * @param {string} device
   */
  constructor(kernels, gradient, device) {
    this.kernels = kernels;
    this.gradient = gradient;
    this.device = device;
    this.latest = 0;
  }

  async run() {
    this.latest += 1;
    const run = this.latest;
    const stale = () => run !== this.latest;
    const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const stride = reducedMotion ? STEPS : STRIDE;
    document.body.dataset.state = "running";
    setStatus(`Running on ${this.device} …`);
    const made = Object.entries(configs()).map(async ([name, config]) => {
      return /** @type {const} */ ([name, await Walk.create(this.kernels, this.gradient, config)]);
    });
    const walks = await Promise.all(made);
    for (let step = 0; step < STEPS && !stale(); step += stride) {
      await Promise.all(walks.map(([, walk]) => walk.advance(stride)));
      if (stale()) break;
      show(Object.fromEntries(walks.map(([name, walk]) => [name, walk.points])));
      await new Promise(requestAnimationFrame);
    }
    walks.forEach(([, walk]) => walk.destroy());
    if (stale()) return;
    document.body.dataset.state = "done";
    setStatus(`${STEPS} steps on ${this.device}.`);
  }
}

function setStatus(/** @type {string} */ text) {
  const status = find("#status");
  if (status.textContent !== text) status.textContent = text;
}

/** Shows the reason and disables the controls. */
function giveUp(/** @type {string} */ reason) {
  const notice = /** @type {HTMLElement} */ (find("#notice"));
  notice.textContent = reason;
  notice.hidden = false;
  document.body.dataset.state = "without";
  form.querySelectorAll("fieldset").forEach((fieldset) => (fieldset.disabled = true));
}

/** Shows the authors' own paths at the paper's settings, if there is no device. */
async function showRecorded() {
  const toy = await (await fetch("tests/golden/toy_gaussian.json")).json();
  const path = (/** @type {number} */ gamma) =>
    toy.runs.find((/** @type {any} */ run) => run.gamma === gamma && !run.decouple).path;
  show({ base: path(0), sam: path(0.5), wsam: path(0.95) });
  setStatus("Recorded from the authors' code; WSAM is coupled, with γ = 0.95.");
}

async function start() {
  showValues();
  let runner;
  try {
    const { device, name } = await openDevice();
    const text = async (/** @type {string} */ path) => {
      const response = await fetch(path);
      if (!response.ok) throw new Error(`${path} could not be loaded.`);
      return response.text();
    };
    const kernels = new Kernels(device, (file) => text(`shaders/${file}`));
    runner = new Runner(kernels, await gradientPipeline(device, await text("loss.wgsl")), name);
  } catch (error) {
    giveUp(`${/** @type {Error} */ (error).message} The picture shows recorded paths instead.`);
    return showRecorded();
  }
  const run = () => {
    showValues();
    runner.run().catch((error) => giveUp(`The run failed: ${error.message}`));
  };
  form.addEventListener("input", run);
  // The fields are reset after the event.
  form.addEventListener("reset", () => setTimeout(run));
  form.addEventListener("submit", (event) => event.preventDefault());
  find("#again").addEventListener("click", run);
  run();
}

start();
