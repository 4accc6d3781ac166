// Opens a Dawn device in Node and collects its errors.

import { create, globals } from "webgpu";

Object.assign(globalThis, globals);

/**
 * @param {string[]} options Dawn's options: `backend=null`, `backend=vulkan`, `adapter=llvmpipe`.
 */
export async function open(options) {
  const gpu = create(options);
  const adapter = await gpu.requestAdapter();
  if (!adapter) throw new Error(`no adapter with ${options.join(" ") || "Dawn's defaults"}`);
  const { maxStorageBuffersPerShaderStage } = adapter.limits;
  const device = await adapter.requestDevice({ requiredLimits: { maxStorageBuffersPerShaderStage } });
  /** @type {string[]} */
  const errors = [];
  device.onuncapturederror = ({ error }) => errors.push(error.message);
  const { vendor, device: name, description } = adapter.info;
  return {
    // Keeps Dawn's instance alive.
    gpu,
    device,
    name: [vendor, name, description].filter(Boolean).join(", "),
    /** Throws the device's errors, if there are any. */
    check() {
      if (errors.length > 0) throw new Error(errors.join("\n"));
    },
  };
}

/** Dawn's options among the command's arguments. */
export function dawnOptions() {
  const known = ["backend=", "adapter=", "enable-dawn-features=", "disable-dawn-features="];
  return process.argv.slice(2).filter((argument) => known.some((start) => argument.startsWith(start)));
}
