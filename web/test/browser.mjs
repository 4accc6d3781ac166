// Opens the page in headless Chromium with WebGPU on SwiftShader.

import { existsSync } from "node:fs";
import { chromium } from "playwright-core";
import { serve } from "../serve.mjs";

const WEBGPU = [
  "--enable-unsafe-webgpu",
  "--use-webgpu-adapter=swiftshader",
  "--enable-features=Vulkan",
  "--enable-unsafe-swiftshader",
];

/** Path of the browser; CHROMIUM overrides Debian's. */
const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";

export async function openBrowser() {
  if (!existsSync(executablePath)) throw new Error(`no browser at ${executablePath}; set CHROMIUM`);
  const server = await serve(0);
  const sandbox = process.getuid?.() === 0 ? ["--no-sandbox"] : [];
  const browser = await chromium.launch({ executablePath, args: [...WEBGPU, ...sandbox] });
  return {
    /**
     * Opens the page, and collects its warnings and errors.
     * @param {import("playwright-core").BrowserContextOptions & { without?: boolean }} [options]
     */
    async page({ without = false, ...options } = {}) {
      const page = await browser.newPage(options);
      /** @type {string[]} */
      const messages = [];
      page.on("console", (message) => {
        if (["error", "warning"].includes(message.type())) messages.push(message.text());
      });
      page.on("pageerror", (error) => messages.push(String(error)));
      page.on("response", (response) => {
        if (response.status() >= 400) messages.push(`${response.status()} ${response.url()}`);
      });
      // Simulates a browser without WebGPU.
      if (without) await page.addInitScript(() => Reflect.deleteProperty(Navigator.prototype, "gpu"));
      await page.goto(`http://localhost:${server.address().port}/`);
      return { page, messages };
    },
    async close() {
      await browser.close();
      server.close();
    },
  };
}
