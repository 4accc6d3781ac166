import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { source, STAGES } from "../../web/wsam/kernels.js";
import { SHADERS, shipped } from "./shipped.mjs";

const modules = shipped();

test("web/wsam joins the shader files as the crate does", async () => {
  // web/wsam has no half precision and no other methods. norm_finish accesses no tensors, so it has only one width.
  const single = modules.filter(
    ({ bufferSets, width, ofRelatives }) => bufferSets === 1 && !width.startsWith("half") && !ofRelatives,
  );
  assert.equal(single.length, 2 * STAGES.length - 1);
  for (const { stage, width, source: want } of single) {
    const got = await source((file) => readFile(join(SHADERS, file), "utf8"), stage, width);
    assert.equal(got, want, `${stage}, ${width}`);
  }
});

test("every stage has pipelines with every number of buffer sets", () => {
  for (const { stage, bufferSets, variants } of modules) assert.ok(variants.length > 0, `${stage}, ${bufferSets}`);
  assert.deepEqual([...new Set(modules.map(({ bufferSets }) => bufferSets))], [1, 2, 5]);
});
