// Headless Chromium with WebGPU on SwiftShader, and the page in it.

import { existsSync } from "node:fs";
import { chromium } from "playwright-core";
import { serve } from "../serve.mjs";

const WEBGPU = [
  "--enable-unsafe-webgpu",
  "--use-webgpu-adapter=swiftshader",
  "--enable-features=Vulkan",
  "--enable-unsafe-swiftshader",
];

/** CHROMIUM names another browser than Debian's. */
const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";

export async function openBrowser() {
  if (!existsSync(executablePath)) throw new Error(`no browser at ${executablePath}; set CHROMIUM`);
  const server = await serve(0);
  const sandbox = process.getuid?.() === 0 ? ["--no-sandbox"] : [];
  const browser = await chromium.launch({ executablePath, args: [...WEBGPU, ...sandbox] });
  return {
    /**
     * The page, and all that it complains of.
     * @param {import("playwright-core").BrowserContextOptions & { without?: boolean }} [options]
     */
    async page({ without = false, ...options } = {}) {
      const page = await browser.newPage(options);
      /** @type {string[]} */
      const complaints = [];
      page.on("console", (message) => {
        if (["error", "warning"].includes(message.type())) complaints.push(message.text());
      });
      page.on("pageerror", (error) => complaints.push(String(error)));
      page.on("response", (response) => {
        if (response.status() >= 400) complaints.push(`${response.status()} ${response.url()}`);
      });
      // As in a browser that has no WebGPU.
      if (without) await page.addInitScript(() => Reflect.deleteProperty(Navigator.prototype, "gpu"));
      await page.goto(`http://localhost:${server.address().port}/`);
      return { page, complaints };
    },
    async close() {
      await browser.close();
      server.close();
    },
  };
}
