// Opens a Dawn device in Node, and lets no error of it pass unseen.

import { create, globals } from "webgpu";

Object.assign(globalThis, globals);

/**
 * @param {string[]} options Dawn's: `backend=null`, `backend=vulkan`, `adapter=llvmpipe`.
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
    // Dawn's instance lives as long as this does.
    gpu,
    device,
    name: [vendor, name, description].filter(Boolean).join(", "),
    /** Throws what the device has objected to. */
    check() {
      if (errors.length > 0) throw new Error(errors.join("\n"));
    },
  };
}

/** Dawn's options among the arguments of the command. */
export function dawnOptions() {
  const known = ["backend=", "adapter=", "enable-dawn-features=", "disable-dawn-features="];
  return process.argv.slice(2).filter((argument) => known.some((start) => argument.startsWith(start)));
}
