// Headless Chromium, and a page of an origin of its own that carries the official client bundle.

import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { chromium } from "playwright-core";
import { DEADLINE_MS, until } from "./deadline.js";
import { freePort, program } from "./processes.js";

const bundle = new URL("../node_modules/socket.io-client/dist/socket.io.min.js", import.meta.url);
const harness = new URL("../../browser/harness.js", import.meta.url);

export async function launchBrowser() {
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM_BIN ?? (await program("chromium")),
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
  return browser;
}

/** A web page with `io` and the harness, as an application's own origin would serve it. */
export async function servePage() {
  const files = {
    "/": ["text/html", '<!doctype html><title>test</title><script src="io.js"></script><script src="harness.js"></script>'],
    "/io.js": ["text/javascript", await readFile(bundle)],
    "/harness.js": ["text/javascript", await readFile(harness)],
  };
  const server = createServer((request, response) => {
    const [type, body] = files[request.url] ?? [];
    response.writeHead(body ? 200 : 404, type ? { "content-type": type } : {}).end(body);
  });
  const port = await freePort();
  await new Promise((resolve) => server.listen(port, "127.0.0.1", resolve));
  return {
    origin: `http://127.0.0.1:${port}`,
    stop: () => new Promise((resolve) => server.close(resolve) && server.closeAllConnections()),
  };
}

/** A tab with the page of `servePage`. Errors in the page fail the test that asks for them. */
export async function openPage(browser, origin) {
  const page = await browser.newPage();
  page.setDefaultTimeout(DEADLINE_MS);
  page.problems = [];
  page.on("pageerror", (error) => page.problems.push(error.message));
  await page.goto(origin);
  return page;
}

/** The official client inside a page. Binary travels to and from the page as `{"$bin": base64}`. */
export class BrowserSocket {
  static async connect(page, url, options = {}) {
    const index = await page.evaluate(([u, o]) => window.harness.connect(u, o), [url, options]);
    const socket = new BrowserSocket(page, index);
    if (options.transports?.length === 2) {
      await until(async () => (await socket.transport()) === "websocket", "upgrade in the browser");
    }
    return socket;
  }

  constructor(page, index) {
    Object.assign(this, { page, index });
  }

  #call(method, ...args) {
    return this.page.evaluate(([m, i, a]) => window.harness[m](i, ...a), [method, this.index, args]);
  }

  transport = () => this.#call("transport");
  received = () => this.#call("received");
  emit = (...args) => this.#call("emit", ...args);
  /** Emits with an acknowledgement and gives its arguments. */
  ask = (...args) => this.#call("ask", ...args);
  disconnect = () => this.#call("disconnect");

  join = (room) => this.gatewayAsk("room:join", room);

  async gatewayAsk(...args) {
    const answer = await this.ask(...args);
    const error = answer.find((item) => item?.error)?.error;
    if (error) throw new Error(`${args[0]} refused: ${JSON.stringify(error)}`);
  }
}
