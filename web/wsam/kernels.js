// The crate's WGSL files as WebGPU pipelines. As they stand, the files are the shader for a single
// buffer set, so joining them is all there is to do; scripts/dawn/shipped.test.mjs holds the joined text
// to what the crate itself compiles, byte by byte.

/** @typedef {"norm" | "norm_finish" | "norm_and_finish" | "ascent" | "descent" | "lean_ascent" | "lean_descent" | "check"} Stage */
/** @typedef {"wide" | "narrow"} Width How tensors are accessed: see shaders/tensors_wide.wgsl. */

/** What stands behind common.wgsl. */
const ACCESSORS = {
  wide: ["tensors_wide.wgsl", "states.wgsl", "no_master.wgsl"],
  narrow: ["tensors_narrow.wgsl", "no_master.wgsl"],
};

/** What stands behind that. */
const FILES = {
  norm: ["scaling.wgsl", "partials.wgsl", "squares.wgsl", "sums.wgsl", "norm.wgsl"],
  norm_finish: ["scaling.wgsl", "partials.wgsl", "squares.wgsl", "sums.wgsl", "norm.wgsl"],
  norm_and_finish: ["scaling.wgsl", "partials_shared.wgsl", "squares.wgsl", "sums.wgsl", "norm.wgsl"],
  ascent: ["scaling.wgsl", "direction_gradient.wgsl", "ascent.wgsl"],
  descent: ["step.wgsl", "descent.wgsl"],
  lean_ascent: ["scaling.wgsl", "step.wgsl", "lean_ascent.wgsl"],
  lean_descent: ["step.wgsl", "lean_descent.wgsl"],
  check: ["check.wgsl"],
};

/** Numbers of the bindings that each stage uses, by group. */
const BINDINGS = {
  norm: [[0, 1, 3, 9], [0, 3]],
  norm_finish: [[9], [4, 5]],
  // Not for browsers: it relies on a barrier for the whole device, which WGSL does not promise.
  norm_and_finish: [[0, 1, 3, 9], [0, 3, 4, 5]],
  ascent: [[0, 1, 3, 5], [0, 1, 3]],
  descent: [[0, 1, 2, 3, 4, 6, 7, 8], [0, 1, 2, 3]],
  lean_ascent: [[0, 1, 2, 3, 5, 6, 7, 8], [0, 1, 2, 3]],
  lean_descent: [[0, 1, 2, 4], [0, 1, 2, 3]],
  check: [[0, 3], [0, 5]],
};

/** @type {(group: number, binding: number) => GPUBufferBindingType} */
function bindingType(group, binding) {
  if (group === 0) return binding === 0 ? "read-only-storage" : "storage";
  return binding === 5 ? "storage" : "uniform";
}

/** @type {Stage[]} */
export const STAGES = /** @type {any} */ (Object.keys(FILES));

/**
 * The source of a stage.
 * @param {(file: string) => Promise<string>} read Gives a file of `shaders/`.
 * @param {Stage} stage
 * @param {Width} width
 */
export async function source(read, stage, width) {
  const files = ["common.wgsl", ...ACCESSORS[width], ...FILES[stage]];
  return (await Promise.all(files.map(read))).join("");
}

/**
 * @param {GPUDevice} device
 * @param {Stage} stage
 */
export function layouts(device, stage) {
  return BINDINGS[stage].map((bindings, group) =>
    device.createBindGroupLayout({
      label: `wsam.${stage}`,
      entries: bindings.map((binding) => ({
        binding,
        visibility: GPUShaderStage.COMPUTE,
        buffer: { type: bindingType(group, binding) },
      })),
    }),
  );
}

/** Pipelines, compiled at first use and kept. */
export class Kernels {
  /**
   * @param {GPUDevice} device
   * @param {(file: string) => Promise<string>} read Gives a file of `shaders/`.
   */
  constructor(device, read) {
    this.device = device;
    this.read = read;
    /** @type {Map<string, Promise<Kernel>>} */
    this.kept = new Map();
  }

  /**
   * @param {Stage} stage
   * @param {Width} width
   * @param {Record<string, number>} constants Values of the shader's `override` constants.
   * @returns {Promise<Kernel>}
   */
  get(stage, width, constants) {
    const key = JSON.stringify([stage, width, constants]);
    let kernel = this.kept.get(key);
    if (!kernel) {
      kernel = this.compile(stage, width, constants);
      this.kept.set(key, kernel);
    }
    return kernel;
  }

  /**
   * @param {Stage} stage
   * @param {Width} width
   * @param {Record<string, number>} constants
   */
  async compile(stage, width, constants) {
    const { device } = this;
    const label = `wsam.${stage}`;
    const code = await source(this.read, stage, width);
    const bindGroupLayouts = layouts(device, stage);
    const pipeline = await device.createComputePipelineAsync({
      label,
      layout: device.createPipelineLayout({ label, bindGroupLayouts }),
      compute: { module: device.createShaderModule({ label, code }), entryPoint: stage, constants },
    });
    return new Kernel(device, stage, pipeline, bindGroupLayouts);
  }
}

/** A compiled stage. */
export class Kernel {
  /**
   * @param {GPUDevice} device
   * @param {Stage} stage
   * @param {GPUComputePipeline} pipeline
   * @param {GPUBindGroupLayout[]} groupLayouts
   */
  constructor(device, stage, pipeline, groupLayouts) {
    this.device = device;
    this.stage = stage;
    this.pipeline = pipeline;
    this.groupLayouts = groupLayouts;
  }

  /**
   * A bind group of this stage, from buffers by binding number; others are passed over.
   * @param {number} group
   * @param {Record<number, GPUBufferBinding>} resources
   */
  bind(group, resources) {
    return this.device.createBindGroup({
      label: `wsam.${this.stage}`,
      layout: this.groupLayouts[group],
      entries: BINDINGS[this.stage][group].map((binding) => ({
        binding,
        resource: resources[binding],
      })),
    });
  }
}
