/** What the cases share: one cluster, one browser, and windows that tell what went wrong. */

import { chromium } from "playwright-core";
import { Cluster, LIMIT_MS } from "./cluster.js";

const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
// Nothing here asks for anything outside this machine, nor waits for it.
const FLAGS = [
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
const ROOT = process.getuid?.() === 0 ? ["--no-sandbox"] : [];
/** Debian's Chromium, and nothing of Playwright's own. */
export const CHROMIUM_OPTIONS = { executablePath: CHROMIUM, args: [...FLAGS, ...ROOT] };

/** Chromium logs each answer that is no 200, which refusals are. */
const EXPECTED = /^Failed to load resource/;

/** Names that would be markup, if a page took them for it. */
export const HOSTILE = [
  "<img src=x onerror=window.hacked=1>",
  "<script>window.hacked=1</script>",
  "</td><b>bold</b>",
];
/** How many stocks the market has besides those few that the cases trade in. */
export const MANY = 5000;

function catalog() {
  const names = ["AAPL", "AMZN", "FishCo", "GOOGL", "META", "NVDA", ...HOSTILE];
  const bulk = Array.from({ length: MANY }, (_, i) => `Stock${String(i + 1).padStart(4, "0")}`);
  return [...names, ...bulk].map((name) => `${name},25.50,1000`);
}

class Stage {
  cluster = new Cluster();
  #browser = null;
  #contexts = [];

  async start() {
    const launched = chromium.launch(CHROMIUM_OPTIONS);
    [this.#browser] = await Promise.all([launched, this.cluster.start(catalog())]);
  }

  async stop() {
    await this.#browser?.close();
    await this.cluster.stop();
  }

  /**
   * A window of its own on the console; `page.problems` collects what must not be: errors of
   * scripts and what the policy refused. `before` prepares the window before it asks for anything.
   */
  async visit(hash = "#/", { before = () => {}, url = this.cluster.url, ...options } = {}) {
    const viewport = { width: 1280, height: 800 };
    const context = await this.#browser.newContext({ viewport, locale: "en-GB", ...options });
    this.#contexts.push(context);
    context.setDefaultTimeout(LIMIT_MS);
    const page = await context.newPage();
    page.problems = [];
    page.on("pageerror", (error) => page.problems.push(String(error)));
    page.on("console", (message) => {
      const text = message.text();
      if (["error", "warning"].includes(message.type()) && !EXPECTED.test(text)) {
        page.problems.push(text);
      }
    });
    await page.addInitScript(() => {
      addEventListener("securitypolicyviolation", (event) => {
        console.error(`refused by the policy: ${event.violatedDirective} ${event.blockedURI}`);
      });
    });
    await before(page);
    await page.goto(`${url}/${hash}`);
    return page;
  }

  /** Close all windows; fails if something went wrong in any of them. */
  async leave() {
    const pages = this.#contexts.flatMap((each) => each.pages());
    const problems = pages.flatMap((page) => page.problems);
    // An answer that a case makes may be under way when its window closes.
    await Promise.all(pages.map((page) => page.unrouteAll({ behavior: "ignoreErrors" })));
    await Promise.all(this.#contexts.map((each) => each.close()));
    this.#contexts = [];
    if (problems.length) throw new Error(`the browser complains: ${problems.join("; ")}`);
  }
}

/** The one stage. */
export const stage = new Stage();

/** The row of a stock in the market's table. */
export const stockRow = (page, name) =>
  page.locator("#market-table tbody tr", { has: page.getByRole("link", { name, exact: true }) });

/** A promise, and what keeps it: what waits for it, waits until the case has seen something. */
export function gate() {
  let open;
  const opened = new Promise((resolve) => (open = resolve));
  return [opened, open];
}

/** Wait until the market shows its stocks. */
export const ready = (page) => page.locator("#market-table tbody a").first().waitFor();

/** Fill in the ticket, and leave it at that. */
export async function fill(page, { name, quantity, type = "buy" }) {
  await page.getByRole("radio", { name: type === "buy" ? "Buy" : "Sell" }).check();
  await page.locator("#ticket").getByLabel("Stock", { exact: true }).fill(name);
  await page.locator("#ticket").getByLabel("Quantity", { exact: true }).fill(quantity);
}

/**
 * Have a window note in `window.marked` which stock was marked last as traded, and on which side:
 * a mark stands for about a second, and who looks now and then may miss it.
 */
export const noteMarks = (page) =>
  page.evaluate(() => {
    const note = () => {
      for (const row of document.querySelectorAll("[data-traded]")) {
        window.marked = `${row.dataset.traded} ${row.querySelector("a").textContent}`;
      }
    };
    const watched = { subtree: true, attributes: true, attributeFilter: ["data-traded"] };
    new MutationObserver(note).observe(document.body, watched);
  });

/** Wait until an element's text holds something. */
export const says = (locator, text) => locator.filter({ hasText: text }).first().waitFor();
