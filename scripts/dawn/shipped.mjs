// What the crate compiles, from the crate's own source: see shipped.rs.

import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

/** The crate's folder of shaders. */
export const SHADERS = fileURLToPath(new URL("../../shaders", import.meta.url));

/**
 * @typedef {object} Shipped A shader module of the crate.
 * @property {import("../../web/wsam/kernels.js").Stage} stage Also the name of its entry point.
 * @property {import("../../web/wsam/kernels.js").Width} width
 * @property {number} bufferSets
 * @property {string} source
 * @property {Record<string, number>[]} variants Constants of each pipeline.
 */

/** @returns {Shipped[]} */
export function shipped() {
  const folder = mkdtempSync(join(tmpdir(), "wsam-shipped-"));
  try {
    const program = join(folder, "shipped");
    const main = fileURLToPath(new URL("shipped.rs", import.meta.url));
    execFileSync("rustc", ["--edition=2024", "-o", program, main], { stdio: ["ignore", "inherit", "inherit"] });
    const lines = execFileSync(program, [SHADERS], { encoding: "utf8", maxBuffer: 1 << 26 });
    return lines.trim().split("\n").map((line) => JSON.parse(line));
  } finally {
    rmSync(folder, { recursive: true });
  }
}
