// One WSAM optimizer over tensors in WebGPU buffers: what src/engine does for wgpu, for the simple
// case that every column (weight, grad, ...) has a buffer of its own, so that one buffer set suffices.

import {
  classConstants,
  clipsGradient,
  dispatchConstants,
  finishConstants,
  NO_BLEND,
  NO_NORMS,
  NORMS_BYTES,
  SLOT,
  stateNames,
} from "./constants.js";

/** @import { Config } from "./constants.js" */
/** @import { Kernel, Kernels, Stage, Width } from "./kernels.js" */

/**
 * @typedef {object} Options How the same step is computed.
 * @property {Width} [width]
 * @property {boolean} [inPlace] The ascent puts `w + e_w` over `w`, and saves `w`.
 * @property {boolean} [lean] The ascent takes the base step too.
 * @property {boolean} [byLane] The norm keeps a partial sum for each invocation.
 * @property {number} [workgroup]
 * @property {number} [chunkLen] Elements that one workgroup owns, a multiple of 4.
 */

/**
 * @typedef {object} Dispatch
 * @property {Kernel} kernel
 * @property {GPUBindGroup} tensors
 * @property {GPUBindGroup | null} constants Bound when it is recorded, if null.
 * @property {number} workgroups
 */

/** A bind group may start at its multiples on any device. */
const ALIGNMENT = 256;

/** Columns of the chunk table, in the order of its fields and of the binding numbers from 1 on. */
const COLUMNS = ["weight", "anchor", "grad", "grad_perturbed", "weight_copy", "state_0", "state_1", "state_2"];

export class Wsam {
  /**
   * @param {Kernels} kernels
   * @param {Config} config
   * @param {number[]} lens Elements of each tensor.
   * @param {Options} [options]
   */
  static async create(kernels, config, lens, options = {}) {
    const wsam = new Wsam(kernels.device, config, lens, options);
    await wsam.prepare(kernels);
    return wsam;
  }

  /**
   * @param {GPUDevice} device
   * @param {Config} config
   * @param {number[]} lens
   * @param {Options} options
   */
  constructor(device, config, lens, options) {
    const { width = "wide", inPlace = false, lean = false, byLane = false } = options;
    const { workgroup = 64, chunkLen = 4096 } = options;
    if (lean && !config.decouple) throw new Error("lean mode is for the decoupled form");
    this.device = device;
    this.config = config;
    this.lens = lens;
    this.form = { width, inPlace, lean, byLane, workgroup };
    this.states = stateNames(config.base);
    this.steps = 0;
    /** @type {Dispatch[]} */
    this.ascentStages = [];
    /** @type {Dispatch[]} */
    this.descend = [];

    // Narrow tensors are packed from element 1 on, so that they start anywhere.
    let end = width === "wide" ? 0 : 1;
    this.offsets = lens.map((len) => {
      const start = end;
      end += width === "wide" ? 4 * Math.ceil(len / 4) : len;
      return start;
    });
    this.bytes = 16 * Math.ceil(end / 4);

    const { STORAGE, COPY_SRC, COPY_DST, UNIFORM } = GPUBufferUsage;
    /** @type {(size: number, usage: number) => GPUBuffer} */
    const buffer = (size, usage) => device.createBuffer({ size, usage });
    const tensor = () => buffer(this.bytes, STORAGE | COPY_SRC | COPY_DST);
    this.weight = tensor();
    this.weightCopy = tensor();
    this.grad = tensor();
    this.gradPerturbed = tensor();
    this.state = this.states.map(tensor);
    this.unused = buffer(ALIGNMENT * COLUMNS.length, STORAGE);
    this.norms = buffer(NORMS_BYTES, STORAGE | UNIFORM | COPY_SRC | COPY_DST);
    device.queue.writeBuffer(this.norms, 0, NO_NORMS);

    const rows = this.rows(chunkLen);
    this.chunkCount = rows.length;
    this.partialCount = rows.length * (byLane ? workgroup : 1);
    this.chunks = buffer(4 * rows.flat().length, STORAGE | COPY_DST);
    device.queue.writeBuffer(this.chunks, 0, new Uint32Array(rows.flat()));
    // Up to two norms are taken in one reading.
    this.partials = buffer(32 * this.partialCount, STORAGE);
    /** @type {Map<string, GPUBufferBinding>} */
    this.uniforms = new Map();
  }

  /** Where `w + e_w` is after an ascent. */
  get perturbed() {
    return this.form.inPlace ? this.weight : this.weightCopy;
  }

  /** Rows of the chunk table: length, buffer set, index, an offset for each column, the parameter class, and the position. */
  rows(/** @type {number} */ chunkLen) {
    /** @type {number[][]} */
    const rows = [];
    this.lens.forEach((len, tensor) => {
      for (let done = 0; done < len; done += chunkLen) {
        const offset = this.offsets[tensor] + done;
        // The position is for stochastic rounding, which single precision has no use for.
        const [kind, position] = [0, 0];
        const offsets = COLUMNS.map(() => offset);
        rows.push([Math.min(chunkLen, len - done), 0, rows.length, ...offsets, kind, position]);
      }
    });
    const most = this.device.limits.maxComputeWorkgroupsPerDimension;
    if (rows.length > most) throw new Error(`${rows.length} chunks; this runner has one row of ${most}`);
    return rows;
  }

  /** Compiles what the steps need, so that they can be recorded without waiting. */
  async prepare(/** @type {Kernels} */ kernels) {
    const { config, form } = this;
    const adaptive = Number(config.adaptive ?? false);
    const anchored = Number(form.inPlace);
    const states = this.states.length;
    const clips = Number(clipsGradient(config));
    const byLane = Number(form.byLane);
    const plain = { PLAIN: 1, SCALED: 0, SCALING: 0, BY_LANE: byLane };
    const scaled = { PLAIN: clips, SCALED: 1, SCALING: 1, BY_LANE: byLane };
    /** @type {(stage: Stage, constants: Record<string, number>) => Promise<Kernel>} */
    const get = (stage, constants) =>
      kernels.get(stage, form.width, { WORKGROUP: form.workgroup, ...constants });

    const slots = (adaptive ? 0 : SLOT.perturbation) | (clips && SLOT.gradient);
    this.ascentStages = [
      ...(await this.normOf(get, adaptive ? scaled : plain, this.grad, slots)),
      form.lean
        ? this.stage(await get("lean_ascent", { SCALING: adaptive, STATES: states, ANCHORED: 0 }))
        : this.stage(await get("ascent", { SCALING: adaptive, IN_PLACE: anchored })),
    ];
    this.descend = [
      ...(config.max_norm == null
        ? []
        : await this.normOf(get, plain, this.gradPerturbed, SLOT.perturbed)),
      form.lean
        ? this.stage(await get("lean_descent", { STATES: 0 }))
        : this.stage(await get("descent", { STATES: states, ANCHORED: anchored, ALONE: 0 })),
    ];
  }

  /**
   * The two dispatches of a norm.
   * @param {(stage: Stage, constants: Record<string, number>) => Promise<Kernel>} get
   * @param {Record<string, number>} constants
   * @param {GPUBuffer} grad
   * @param {number} slots
   */
  async normOf(get, constants, grad, slots) {
    const finish = await get("norm_finish", constants);
    const head = finishConstants(this.partialCount, slots);
    return [
      this.stage(await get("norm", constants), grad),
      {
        kernel: finish,
        tensors: finish.bind(0, this.tensors(grad)),
        constants: finish.bind(1, { 4: this.uniform(head), 5: { buffer: this.norms } }),
        workgroups: 1,
      },
    ];
  }

  /**
   * A dispatch over all chunks; its constants are bound when it is recorded.
   * @param {Kernel} kernel
   * @param {GPUBuffer} [grad]
   * @returns {Dispatch}
   */
  stage(kernel, grad = this.grad) {
    const tensors = kernel.bind(0, this.tensors(grad));
    return { kernel, tensors, constants: null, workgroups: this.chunkCount };
  }

  /** Group 0, by binding number. */
  tensors(/** @type {GPUBuffer} */ grad) {
    /** @type {Record<string, GPUBuffer>} */
    const used = { weight: this.weight, grad, grad_perturbed: this.gradPerturbed, weight_copy: this.weightCopy };
    this.state.forEach((buffer, index) => (used[`state_${index}`] = buffer));
    if (this.form.inPlace) used.anchor = this.weightCopy;
    /** @type {Record<number, GPUBufferBinding>} */
    const group = { 0: { buffer: this.chunks }, 9: { buffer: this.partials } };
    COLUMNS.forEach((column, index) => {
      const buffer = used[column];
      // Ranges of one buffer that a stage may write must not overlap, used or not.
      const unused = { buffer: this.unused, offset: ALIGNMENT * index, size: ALIGNMENT };
      group[1 + index] = buffer ? { buffer } : unused;
    });
    return group;
  }

  /** A uniform buffer with these bytes; constants that recur share one. */
  uniform(/** @type {ArrayBuffer} */ bytes) {
    const key = new Uint32Array(bytes).join();
    let binding = this.uniforms.get(key);
    if (!binding) {
      const usage = GPUBufferUsage.UNIFORM;
      const buffer = this.device.createBuffer({ size: bytes.byteLength, usage, mappedAtCreation: true });
      new Uint8Array(buffer.getMappedRange()).set(new Uint8Array(bytes));
      buffer.unmap();
      binding = { buffer };
      this.uniforms.set(key, binding);
    }
    return binding;
  }

  /** Records the ascent to `w + e_w`; `grad` must hold the gradient at `w`. */
  ascent(/** @type {GPUComputePassEncoder} */ pass) {
    this.steps += 1;
    this.record(pass, this.ascentStages);
  }

  /** Records the rest of the step; `gradPerturbed` must hold the gradient at `w + e_w`. */
  descent(/** @type {GPUComputePassEncoder} */ pass) {
    this.record(pass, this.descend);
  }

  /**
   * @param {GPUComputePassEncoder} pass
   * @param {Dispatch[]} dispatches
   */
  record(pass, dispatches) {
    const { chunkCount, config } = this;
    for (const { kernel, tensors, constants, workgroups } of dispatches) {
      pass.setPipeline(kernel.pipeline);
      pass.setBindGroup(0, tensors);
      const bound = constants ?? kernel.bind(1, {
        0: this.uniform(dispatchConstants(chunkCount)),
        1: { buffer: this.norms },
        2: this.uniform(NO_BLEND),
        3: this.uniform(classConstants(config, this.steps)),
      });
      pass.setBindGroup(1, bound);
      pass.dispatchWorkgroups(workgroups);
    }
  }

  /**
   * Puts flat lists into a column, each tensor in its place.
   * @param {GPUBuffer} buffer
   * @param {number[][]} values
   */
  write(buffer, values) {
    const all = new Float32Array(this.bytes / 4);
    values.forEach((tensor, index) => all.set(tensor, this.offsets[index]));
    this.device.queue.writeBuffer(buffer, 0, all);
  }

  /** The flat lists of a column, in the bytes that were read from it. */
  split(/** @type {ArrayBuffer} */ bytes) {
    const all = new Float32Array(bytes);
    return this.lens.map((len, index) => [...all.subarray(this.offsets[index], this.offsets[index] + len)]);
  }

  /** Gives the memory back. */
  destroy() {
    const { weight, weightCopy, grad, gradPerturbed, state, unused, norms, chunks, partials } = this;
    const own = [weight, weightCopy, grad, gradPerturbed, ...state, unused, norms, chunks, partials];
    const uniforms = [...this.uniforms.values()].map((binding) => binding.buffer);
    [...own, ...uniforms].forEach((buffer) => buffer.destroy());
  }
}
