// The console in a tab, watched: what it asks for, and what goes wrong in it.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { DEADLINE_MS, until } from "../node/helpers/deadline.js";

export const VIEWS = ["overview", "rooms", "live", "try-out", "requests"];

const axe = await readFile(new URL("../node/node_modules/axe-core/axe.min.js", import.meta.url), "utf8");

/**
 * What the browser logs and is no error of the page: a refusal while there is no key, a node that lacks a call, a client
 * that leaves while it upgrades or while a poll is on its way.
 */
const HARMLESS =
  /status of 401|status of 404.*(openapi\.json|\/v1\/rooms\?)|status of 400.*transport=polling.*sid=|WebSocket is closed before the connection/s;

export class Console {
  /** `gateway` is the node whose console it is; `options` are those of a browser's context. */
  static async open(browser, gateway, { view = "", width = 1280, height = 800, ...options } = {}) {
    const context = await browser.newContext({ viewport: { width, height }, ...options });
    const page = await context.newPage();
    page.setDefaultTimeout(DEADLINE_MS);
    const opened = new Console(gateway, context, page);
    await page.goto(`${gateway.api}/console${view && `#${view}`}`);
    return opened;
  }

  problems = [];
  urls = [];
  /** Problems that a test brings about. */
  expected = /^$/;

  constructor(gateway, context, page) {
    Object.assign(this, { gateway, context, page });
    page.on("request", (request) => this.urls.push(request.url()));
    page.on("websocket", (socket) => this.urls.push(socket.url()));
    page.on("pageerror", (error) => this.problems.push(error.message));
    page.on("console", (message) => {
      const text = `${message.text()} ${message.location().url}`;
      if (["error", "warning"].includes(message.type()) && !HARMLESS.test(text)) this.problems.push(text);
    });
  }

  text = (selector) => this.page.locator(selector).textContent();
  metric = (name) => this.page.locator(`[data-metric="${name}"]`).first().textContent();
  /** Waits until the text of an element is like that. */
  shows = (selector, pattern) =>
    until(async () => pattern.test(await this.text(selector)), `${pattern} in ${selector}`).catch(async (error) => {
      error.message += `; it has: ${await this.text(selector)}`;
      throw error;
    });

  async go(view) {
    await this.page.click(`nav a[href="#${view}"]`);
    await this.page.locator(`#${view}`).waitFor({ state: "visible" });
  }

  /** Breaches of WCAG 2 at the levels A and AA, by the rules of axe. */
  async breaches() {
    if (!(await this.page.evaluate("typeof axe === 'object'"))) await this.page.evaluate(axe);
    return this.page.evaluate(async () => {
      // No contrast with a gradient is judged: its stronger end stands for it.
      document.body.style.background = "var(--glow)";
      const { violations } = await window.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"] });
      document.body.style.background = "";
      return violations.flatMap(({ id, nodes }) => nodes.map(({ html, failureSummary }) => `${id}: ${html} ${failureSummary}`));
    });
  }

  /** How many pixels the page is wider than the window. */
  overflow = () => this.page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);

  /** Closes the tab, and says what was wrong with it. */
  async close() {
    await this.context.close();
    assert.deepEqual(this.problems.filter((problem) => !this.expected.test(problem)), []);
    // Data and blob URLs leave no machine.
    const origins = this.urls.filter((url) => /^(http|ws)s?:/.test(url)).map((url) => new URL(url).origin.replace(/^ws/, "http"));
    const strangers = origins.filter((origin) => ![this.gateway.api, this.gateway.url].includes(origin));
    assert.deepEqual(strangers, []);
  }
}
