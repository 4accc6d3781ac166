// Compiles every shader module and every pipeline of the crate with Tint.
//
//     node compile.mjs [backend=null|vulkan|...] [adapter=NAME]
//
// The default is Dawn's null backend, which runs Tint without a driver.

import { dawnOptions, open } from "./device.mjs";
import { shipped } from "./shipped.mjs";

const options = dawnOptions();
const dawn = await open(options.length > 0 ? options : ["backend=null"]);
const { device } = dawn;
console.log(`Tint on ${dawn.name}`);

let failures = 0;
let pipelines = 0;
let tooMany = 0;
for (const { stage, width, frames, source, variants } of shipped()) {
  const name = `${stage}, ${width}, ${frames} frame${frames > 1 ? "s" : ""}`;
  const fail = (/** @type {string} */ message) => {
    failures += 1;
    console.error(`FAILED ${name}: ${message}`);
  };
  device.pushErrorScope("validation");
  const module = device.createShaderModule({ label: name, code: source });
  const { messages } = await module.getCompilationInfo();
  await device.popErrorScope();
  for (const { type, lineNum, message } of messages) {
    if (type === "error") fail(`line ${lineNum}: ${message}`);
    else console.log(`${type} ${name}, line ${lineNum}: ${message}`);
  }
  if (messages.some(({ type }) => type === "error")) continue;
  for (const constants of variants) {
    try {
      const compute = { module, entryPoint: stage, constants };
      await device.createComputePipelineAsync({ label: name, layout: "auto", compute });
      pipelines += 1;
    } catch (error) {
      const { message } = /** @type {Error} */ (error);
      // Each frame has bindings for its varying columns. The engine uses only as many frames as fit.
      if (frames > 1 && /number of storage buffers .* exceeds/.test(message)) tooMany += 1;
      else fail(`${JSON.stringify(constants)}: ${message}`);
    }
  }
  console.log(`ok ${name}`);
}
dawn.check();
console.log(`${pipelines} pipelines, ${tooMany} skipped that bind more storage buffers than the adapter allows`);
console.log(`${failures} failures`);
process.exit(failures > 0 || pipelines === 0 ? 1 : 0);
