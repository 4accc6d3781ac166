// Takes the pictures that README.md describes: `node test/screenshot.mjs [FOLDER]`.

import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { openBrowser } from "./browser.mjs";

const folder = process.argv[2] ?? fileURLToPath(new URL("..", import.meta.url));
const SHOTS = /** @type {Record<string, any>} */ ({
  screenshot: { viewport: { width: 1200, height: 860 } },
  // Only written to a folder given as an argument.
  ...(process.argv[2] && {
    phone: { viewport: { width: 375, height: 740 }, deviceScaleFactor: 2 },
    dark: { viewport: { width: 1200, height: 860 }, colorScheme: "dark" },
    without: { viewport: { width: 1200, height: 860 }, without: true },
  }),
});

const browser = await openBrowser();
for (const [name, options] of Object.entries(SHOTS)) {
  const { page } = await browser.page(options);
  await page.waitForSelector("body[data-state=done], body[data-state=without]");
  await page.waitForSelector("#plot polyline.wsam");
  await page.screenshot({ path: join(folder, `${name}.png`), fullPage: name === "phone" });
}
await browser.close();
