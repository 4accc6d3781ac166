import assert from "node:assert/strict";
import { test } from "node:test";
import { compare, SINGLE } from "./compare.mjs";

test("equal values are bit-equal", () => {
  assert.deepEqual(compare("w", [[1, 0]], [[1, 0]], SINGLE), { score: 0, place: "bit-equal" });
});

test("a NaN on either side fails, and the error names its place", () => {
  const message = /step 3, w, tensor 1, element 2: NaN for 5/;
  assert.throws(() => compare("step 3, w", [[1], [1, 2, NaN]], [[1], [1, 2, 5]], SINGLE), message);
  assert.throws(() => compare("w", [[1]], [[NaN]], SINGLE), /element 0: 1 for NaN/);
});

test("an infinity fails", () => {
  assert.throws(() => compare("w", [[Infinity]], [[1]], SINGLE), /element 0: Infinity for 1/);
});

test("an element just outside of the tolerance fails, and one just inside passes", () => {
  assert.throws(() => compare("w", [[1 + 2.2e-5]], [[1]], SINGLE), /element 0/);
  assert.ok(compare("w", [[1 + 1.9e-5]], [[1]], SINGLE).score > 0.9);
});

test("the floor shrinks with the largest element", () => {
  assert.throws(() => compare("m", [[1e-8, 0]], [[0, 1e-8]], SINGLE), /element 0/);
});

test("different lengths fail", () => {
  assert.throws(() => compare("w", [[1, 2]], [[1]], SINGLE), /lengths 2 for 1/);
});
