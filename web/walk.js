// One optimizer's path through the two-basin example. Gradients (loss.wgsl) and steps (the crate's
// kernels) run on the device; the host reads the points of several steps at a time.

import { START } from "./toy.js";
import { Wsam } from "./wsam/optimizer.js";

/** @import { Point } from "./toy.js" */
/** @import { Config } from "./wsam/constants.js" */
/** @import { Kernels } from "./wsam/kernels.js" */

const POINT_BYTES = 8;

export class Walk {
  /**
   * @param {Kernels} kernels
   * @param {GPUComputePipeline} gradient
   * @param {Config} config
   */
  static async create(kernels, gradient, config) {
    const wsam = await Wsam.create(kernels, config, [START.length]);
    return new Walk(wsam, gradient);
  }

  /**
   * @param {Wsam} wsam
   * @param {GPUComputePipeline} gradient
   */
  constructor(wsam, gradient) {
    this.wsam = wsam;
    this.gradient = gradient;
    wsam.write(wsam.weight, [START]);
    this.atWeight = this.bind(wsam.weight, wsam.grad);
    this.atPerturbed = this.bind(wsam.perturbed, wsam.gradPerturbed);
    /** @type {Point[]} */
    this.points = [START];
  }

  /**
   * @param {GPUBuffer} at
   * @param {GPUBuffer} into
   */
  bind(at, into) {
    const entries = [at, into].map((buffer, binding) => ({ binding, resource: { buffer } }));
    return this.wsam.device.createBindGroup({ layout: this.gradient.getBindGroupLayout(0), entries });
  }

  /** Takes `steps` steps and adds a point for each. */
  async advance(/** @type {number} */ steps) {
    const { wsam } = this;
    const { device } = wsam;
    const usage = GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST;
    const found = device.createBuffer({ size: POINT_BYTES * steps, usage });
    const encoder = device.createCommandEncoder();
    for (let step = 0; step < steps; step += 1) {
      const pass = encoder.beginComputePass();
      this.differentiate(pass, this.atWeight);
      wsam.ascent(pass);
      this.differentiate(pass, this.atPerturbed);
      wsam.descent(pass);
      pass.end();
      encoder.copyBufferToBuffer(wsam.weight, 0, found, POINT_BYTES * step, POINT_BYTES);
    }
    device.queue.submit([encoder.finish()]);
    await found.mapAsync(GPUMapMode.READ);
    const values = new Float32Array(found.getMappedRange().slice(0));
    found.destroy();
    for (let i = 0; i < values.length; i += 2) this.points.push([values[i], values[i + 1]]);
  }

  /**
   * @param {GPUComputePassEncoder} pass
   * @param {GPUBindGroup} group
   */
  differentiate(pass, group) {
    pass.setPipeline(this.gradient);
    pass.setBindGroup(0, group);
    pass.dispatchWorkgroups(1);
  }

  destroy() {
    this.wsam.destroy();
  }
}

/**
 * The pipeline of loss.wgsl.
 * @param {GPUDevice} device
 * @param {string} code
 */
export function gradientPipeline(device, code) {
  const module = device.createShaderModule({ label: "loss", code });
  return device.createComputePipelineAsync({ label: "loss", layout: "auto", compute: { module } });
}
