// Every shader module that the engine compiles: see scripts/backends/src/bin/shipped.rs.

import { execFileSync } from "node:child_process";
import { copyFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

/** The crate's folder of shaders. */
export const SHADERS = fileURLToPath(new URL("../../shaders", import.meta.url));

/**
 * @typedef {object} Shipped A shader module of the crate.
 * @property {import("../../web/wsam/kernels.js").Stage} stage Also the name of its entry point.
 * @property {boolean} ofRelatives Whether only other methods than WSAM use it.
 * @property {import("../../web/wsam/kernels.js").Width} width
 * @property {number} bufferSets
 * @property {string} source
 * @property {Record<string, number>[]} variants Constants of each pipeline.
 */

/** @returns {Shipped[]} */
export function shipped() {
  // The same versions of wgpu and naga as in the crate.
  copyFileSync(new URL("../../Cargo.lock", import.meta.url), new URL("../backends/Cargo.lock", import.meta.url));
  const manifest = fileURLToPath(new URL("../backends/Cargo.toml", import.meta.url));
  const command = ["run", "--release", "--quiet", "--manifest-path", manifest, "--bin", "shipped"];
  const lines = execFileSync("cargo", command, {
    encoding: "utf8",
    maxBuffer: 1 << 26,
    stdio: ["ignore", "pipe", "inherit"],
  });
  return lines.trim().split("\n").map((line) => JSON.parse(line));
}
