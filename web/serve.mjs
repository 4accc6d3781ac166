// Serves the page, and only those files of the repository that it reads.
//
//     node web/serve.mjs [PORT]

import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

const WEB = fileURLToPath(new URL(".", import.meta.url));
const ROOT = join(WEB, "..");

/** Folders outside web/ that the page reads: the crate's kernels and the authors' paths. */
const SHARED = /^\/(shaders|tests\/golden)\/[\w.]+$/;
const TYPES = /** @type {Record<string, string>} */ ({
  ".html": "text/html; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".json": "application/json",
  ".wgsl": "text/plain; charset=utf-8",
  ".svg": "image/svg+xml",
});

/** @param {number} port 0 selects a free port. */
export function serve(port) {
  const server = createServer(async (request, response) => {
    try {
      const { pathname } = new URL(request.url ?? "/", "http://localhost");
      const path = normalize(decodeURIComponent(pathname === "/" ? "/index.html" : pathname));
      const file = join(SHARED.test(path) ? ROOT : WEB, path);
      const type = TYPES[extname(file)];
      if (!type || !(await stat(file)).isFile()) throw new Error("not found");
      response.writeHead(200, { "content-type": type, "cache-control": "no-cache" });
      createReadStream(file).pipe(response);
    } catch {
      response.writeHead(404, { "content-type": "text/plain" }).end("not found\n");
    }
  });
  // WebGPU needs a secure context, and `localhost` is one.
  return new Promise((resolve, reject) => {
    server.once("error", reject).listen(port, "localhost", () => resolve(server));
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const server = await serve(Number(process.argv[2] ?? 8000));
  console.log(`http://localhost:${server.address().port}/`);
}
