// End-to-end tests of the page: `node --test test/`.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { openBrowser } from "./browser.mjs";

/** @type {Awaited<ReturnType<typeof openBrowser>>} */
let browser;
/** @type {any} */
let toy;
before(async () => {
  toy = JSON.parse(await readFile(new URL("../../tests/golden/toy_gaussian.json", import.meta.url), "utf8"));
  browser = await openBrowser();
});
after(() => browser?.close());

/** @import { Page } from "playwright-core" */

/**
 * Sets controls, and waits for the paths to end.
 * @param {Page} page
 * @param {Record<string, number>} sliders
 * @param {string} [form]
 */
async function settle(page, sliders = {}, form) {
  for (const [name, value] of Object.entries(sliders)) await page.fill(`#${name}`, String(value));
  if (form) await page.check(`input[value=${form}]`);
  await page.waitForSelector("body[data-state=done]");
}

/** @type {(page: Page, path: string) => Promise<string | undefined>} */
const basin = (page, path) => page.locator(`[data-path=${path}]`).evaluate((row) => row.dataset.basin);

/** @type {(page: Page, path: string) => Promise<string | null>} */
const line = (page, path) => page.getAttribute(`#plot polyline.${path}`, "points");

test("the paths end in the same basins as the authors' paths", async () => {
  const { page, messages } = await browser.page();
  await settle(page);
  assert.equal(await basin(page, "base"), "sharp");
  assert.equal(await basin(page, "sam"), "sharp");
  assert.equal(await basin(page, "wsam"), "flat", "coupled, gamma 0.95");
  await settle(page, { gamma: 0.6 });
  assert.equal(await basin(page, "wsam"), "sharp", "coupled, gamma 0.6");
  await settle(page, { gamma: 0.95 }, "decoupled");
  assert.equal(await basin(page, "wsam"), "sharp", "decoupled, gamma 0.95");
  assert.deepEqual(messages, []);
  await page.close();
});

test("the first steps match the authors' steps", async () => {
  const { page, messages } = await browser.page();
  await settle(page);
  const { lr, momentum, rho, runs } = toy;
  const configs = runs.map((/** @type {any} */ { gamma, decouple }) => {
    return { base: { kind: "sgd", lr, momentum }, rho, gamma, decouple };
  });
  // Later steps are chaotic near a minimum, in f32 sooner than in f64: see tests/README.md.
  const steps = 30;
  const paths = await page.evaluate(
    async ([configs, steps]) => {
      const { Walk, gradientPipeline } = await import("/walk.js");
      const { Kernels } = await import("/wsam/kernels.js");
      const text = async (/** @type {string} */ path) => (await fetch(path)).text();
      const device = await (await navigator.gpu.requestAdapter()).requestDevice();
      const kernels = new Kernels(device, (file) => text(`shaders/${file}`));
      const gradient = await gradientPipeline(device, await text("loss.wgsl"));
      const paths = [];
      for (const config of configs) {
        const walk = await Walk.create(kernels, gradient, config);
        await walk.advance(steps);
        paths.push(walk.points);
      }
      return paths;
    },
    /** @type {const} */ ([configs, steps]),
  );
  let worst = 0;
  paths.forEach((path, run) =>
    path.forEach((point, step) =>
      point.forEach((got, axis) => {
        const error = Math.abs(got - runs[run].path[step][axis]);
        assert.ok(error <= 1e-3, `gamma ${configs[run].gamma}, step ${step}: ${got}, off by ${error}`);
        worst = Math.max(worst, error);
      }),
    ),
  );
  assert.deepEqual(messages, []);
  console.log(`worst error over ${steps} steps: ${worst.toExponential(1)}`);
  await page.close();
});

test("every slider changes the WSAM path, and a reset restores it", async () => {
  const { page, messages } = await browser.page();
  await settle(page);
  const start = await line(page, "wsam");
  for (const [name, value] of Object.entries({ gamma: 0.9, rho: 1, lr: 3, momentum: 0.8 })) {
    const [before, base] = [await line(page, "wsam"), await line(page, "base")];
    await settle(page, { [name]: value });
    assert.notEqual(await line(page, "wsam"), before, name);
    // The base optimizer's path does not depend on gamma and rho.
    assert.equal((await line(page, "base")) === base, ["gamma", "rho"].includes(name), name);
    assert.equal(await page.textContent(`output[for=${name}]`), String(value));
  }
  await page.click("button[type=reset]");
  await page.waitForSelector("body[data-state=running]");
  await settle(page);
  assert.equal(await line(page, "wsam"), start, "the same bits each time");
  assert.deepEqual(messages, []);
  await page.close();
});

test("a later run stops an earlier one", async () => {
  const { page, messages } = await browser.page();
  for (const gamma of [0.1, 0.3, 0.5, 0.7, 0.95]) await page.fill("#gamma", String(gamma));
  await settle(page);
  assert.equal(await basin(page, "wsam"), "flat");
  assert.deepEqual(messages, []);
  await page.close();
});

test("without WebGPU the page shows a notice and recorded paths", async () => {
  const { page, messages } = await browser.page({ without: true });
  await page.waitForSelector("#plot polyline.wsam");
  assert.match((await page.textContent("#notice")) ?? "", /no WebGPU/);
  assert.equal(await basin(page, "wsam"), "flat");
  assert.equal(await page.locator("fieldset:disabled").count(), 2);
  assert.deepEqual(messages, []);
  await page.close();
});

test("nothing overflows on a phone", async () => {
  const { page } = await browser.page({ viewport: { width: 360, height: 740 } });
  await settle(page);
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert.ok(overflow <= 0, `${overflow} px too wide`);
  await page.close();
});
