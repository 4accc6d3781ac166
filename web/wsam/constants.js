// Hyperparameters of a step, and the uniform structs that the kernels read them from. Field order is
// that of the WGSL structs of the same names.

/**
 * @typedef {object} Base The base optimizer, by PyTorch's names.
 * @property {"sgd" | "adam" | "adamw"} kind
 * @property {number} lr
 * @property {number} [momentum]
 * @property {number} [dampening]
 * @property {boolean} [nesterov]
 * @property {[number, number]} [betas]
 * @property {number} [eps]
 * @property {number} [weight_decay]
 * @property {boolean} [amsgrad]
 */

/**
 * @typedef {object} Config As the golden files have it.
 * @property {Base} base
 * @property {number} rho
 * @property {number} gamma
 * @property {number} [eps]
 * @property {boolean} [adaptive]
 * @property {boolean} decouple
 * @property {number | null} [max_norm]
 * @property {"both" | "perturbed_only"} [clip_scope]
 */

/** Fields of the WGSL struct Norms, as the bits that `norm_finish` takes. */
export const SLOT = { gradient: 1, perturbation: 2, perturbed: 4 };

/** Bytes of the WGSL struct Norms. */
export const NORMS_BYTES = 160;

/** Norms that perturbations may be divided by; here there is one. */
const SCOPES = 32;

/** The WGSL struct Norms before a step: gradients are multiplied by 1. */
export const NO_NORMS = struct([], [0, 0, 0, 1, ...Array(SCOPES + 4).fill(0)]);

/** Indices in Norms of the flags for gradients that are not finite. */
const NONFINITE_FLAG = { gradient: 36, perturbed: 37 };

/** Rows of the table of parameter classes. All tensors are in the first one here. */
const PARAM_CLASSES = 64;

/** Bits of the flags in ParamClassUniforms. */
const FLAG = { perturbed: 1, adaptive: 2, first: 8, byDifference: 64 };

/** Unclipped: the largest `f32`. */
const F32_MAX = 3.4028234663852886e38;

/**
 * Bytes of a uniform struct: every one has its integers in front.
 * @param {number[]} integers
 * @param {number[]} floats
 */
export function struct(integers, floats) {
  const bytes = new ArrayBuffer(4 * (integers.length + floats.length));
  new Uint32Array(bytes, 0, integers.length).set(integers);
  new Float32Array(bytes, 4 * integers.length).set(floats);
  return bytes;
}

/**
 * Names of the state tensors, in the order of their bindings.
 * @param {Base} base
 */
export function stateNames(base) {
  if (base.kind === "sgd") return base.momentum ? ["momentum_buffer"] : [];
  return ["exp_avg", "exp_avg_sq", ...(base.amsgrad ? ["max_exp_avg_sq"] : [])];
}

/** @param {Config} config */
export function clipsGradient(config) {
  return config.max_norm != null && config.clip_scope !== "perturbed_only";
}

/**
 * The blend: the base optimizer receives `a g + b g~`, and `lr sharpness (g~ - g)` is subtracted beside
 * it. Where it takes both gradients, `g + alpha (g~ - g)` has the smaller rounding errors.
 * @param {Config} config
 * @returns {{ weights: number[], byDifference: boolean }}
 */
function blend({ gamma, decouple }) {
  const alpha = gamma / (1 - gamma);
  if (decouple) return { weights: [1, 0, alpha], byDifference: false };
  const byDifference = alpha !== 0 && alpha !== 1;
  return { weights: [byDifference ? 1 : 1 - alpha, alpha, 0], byDifference };
}

/** BlendUniforms, which nothing reads here: the parameter class has the blend. */
export const NO_BLEND = struct([], [0, 0, 0, 0]);

/**
 * DispatchUniforms, in one row of workgroups.
 * @param {number} chunkCount
 */
export function dispatchConstants(chunkCount) {
  return struct([chunkCount, chunkCount, 0, 0], []);
}

/**
 * NormFinishUniforms.
 * @param {number} partialCount
 * @param {number} slots Fields that take the norm of `g`.
 */
export function finishConstants(partialCount, slots) {
  const flag = slots & SLOT.perturbed ? NONFINITE_FLAG.perturbed : NONFINITE_FLAG.gradient;
  return struct([partialCount, slots, flag, 0, ...Array(SCOPES).fill(partialCount)], []);
}

/**
 * The table of ParamClassUniforms. The table at the top of step.wgsl says what the base optimizers put there.
 * @param {Config} config
 * @param {number} step Counted from 1.
 */
export function classConstants(config, step) {
  const { lr, ...base } = config.base;
  const first = step === 1;
  const row = base.kind === "sgd" ? sgd(base, first) : moments(base, lr, step);
  const { weights, byDifference } = blend(config);
  const flags =
    FLAG.perturbed +
    (config.adaptive ? FLAG.adaptive : 0) +
    (first ? FLAG.first : 0) +
    (byDifference ? FLAG.byDifference : 0);
  const constants = struct(
    // Index of the norm: the global one.
    [flags, 1],
    [
      config.rho,
      config.eps ?? 1e-12,
      ...weights,
      clipsGradient(config) ? Number(config.max_norm) : F32_MAX,
      config.max_norm ?? F32_MAX,
      lr,
      row.decay,
      row.weightDecay,
      row.epsilon,
      row.inverseBias2,
      row.keep1,
      row.add1,
      row.keep2,
      row.add2,
      row.mixM,
      row.mixD,
    ],
  );
  const table = new Uint8Array(PARAM_CLASSES * constants.byteLength);
  table.set(new Uint8Array(constants));
  return table.buffer;
}

const NONE = {
  decay: 1,
  weightDecay: 0,
  epsilon: 0,
  inverseBias2: 0,
  keep1: 0,
  add1: 0,
  keep2: 0,
  add2: 0,
  mixM: 0,
  mixD: 0,
};

/**
 * @param {Omit<Base, "lr">} base
 * @param {boolean} first
 */
function sgd({ momentum = 0, dampening = 0, nesterov = false, weight_decay = 0 }, first) {
  return {
    ...NONE,
    weightDecay: weight_decay,
    keep1: momentum,
    // Momentum starts at the first gradient, undampened.
    add1: first ? 1 : 1 - dampening,
    mixM: nesterov ? momentum : 1,
    mixD: nesterov ? 1 : 0,
  };
}

/**
 * Adam and AdamW.
 * @param {Omit<Base, "lr">} base
 * @param {number} lr
 * @param {number} step
 */
function moments({ kind, betas: [beta1, beta2] = [0.9, 0.999], eps = 1e-8, weight_decay }, lr, step) {
  const decoupled = kind === "adamw";
  const decay = weight_decay ?? (decoupled ? 0.01 : 0);
  return {
    ...NONE,
    decay: decoupled ? 1 - lr * decay : 1,
    weightDecay: decoupled ? 0 : decay,
    epsilon: eps,
    inverseBias2: 1 / (1 - beta2 ** step),
    keep1: beta1,
    add1: 1 - beta1,
    keep2: beta2,
    add2: 1 - beta2,
    mixM: 1 / (1 - beta1 ** step),
  };
}
