/** Takes the pictures of docs/console.md, from a cluster that trades while they are taken. */

import { mkdir, readdir, stat } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import { Cluster } from "./cluster.js";
import { CHROMIUM_OPTIONS, fill, says } from "./stage.js";

const DIRECTORY = fileURLToPath(new URL("../../docs/screenshots", import.meta.url));
const BYTES_MAX = 150_000;
const TRADES_PER_S = 12;
/** How long the cluster trades before the plots are worth a picture. */
const WARM_S = Number(process.env.WARM_S ?? 150);
const NAMES = "AAPL AMZN BoarCo FishCo GOOGL GameStart META MenhirCo NFLX NVDA ToyStonks".split(
  " ",
);

const DESK = { width: 1200, height: 680 };
const TELEPHONE = { width: 360, height: 740 };
const WALL = { width: 3840, height: 2160 };

/** The same numbers each time: a linear congruential generator (Numerical Recipes). */
function dice(seed) {
  let state = seed;
  return (sides) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * sides);
  };
}

/** Looks up and trades until told to stop. */
async function trade(cluster, isOver) {
  const roll = dice(7);
  while (!isOver()) {
    const wave = 1 + Math.sin(Date.now() / 20_000) / 2;
    const [name, side] = [NAMES[roll(NAMES.length)], roll(2) ? "buy" : "sell"];
    const looks = Array.from({ length: 3 + roll(4) }, () => NAMES[roll(NAMES.length)]);
    await Promise.all([
      ...looks.map((each) => cluster.ask(`/stocks/${each}`)),
      cluster.trade(name, 1 + roll(9), side).catch(() => {}),
    ]);
    await new Promise((resolve) => setTimeout(resolve, 1000 / TRADES_PER_S / wave));
  }
}

async function shoot(browser, cluster, name, { hash, colorScheme, viewport, prepare, last }) {
  // A wall is shown from far away: no picture is large.
  const deviceScaleFactor = viewport === WALL ? 0.4 : 1;
  const look = { viewport, colorScheme, deviceScaleFactor, locale: "en-GB" };
  const context = await browser.newContext(look);
  const page = await context.newPage();
  await page.goto(`${cluster.url}/${hash}`);
  await says(page.locator("#link-text"), "Live");
  await prepare?.(page);
  await page.locator(last).first().waitFor();
  // What fades has faded, and what is asked for has come.
  await page.waitForTimeout(2500);
  await page.screenshot({ path: `${DIRECTORY}/${name}.png` });
  await context.close();
}

const orderTicket = (page) => fill(page, { name: "NVDA", quantity: "12" });

async function refusal(page) {
  await fill(page, { name: "NVDA", quantity: "1000000" });
  await page.locator("#ticket-submit").click();
  await says(page.locator("#ticket-quantity-error"), "not enough");
}

/** A market in which something was changed, and a change that is about to be. */
async function changes(cluster, page) {
  await cluster.change("/admin/stocks", { name: "Lemon & Lime", price: "2.50", quantity: 100 });
  await cluster.change("/admin/stocks/Lemon%20%26%20Lime/restock", { quantity: 50 });
  await cluster.change("/admin/stocks/BoarCo/price", { price: "3.75" });
  await cluster.change("/admin/stocks/GameStart/halt");
  await page.locator("#admin-price").fill("2.75");
  await page.locator("#admin-token").fill("never shown");
}

async function election(cluster, page) {
  await says(page.locator('[data-group="order"] .tile-value'), /order-\d/);
  const leader = await cluster.leader();
  cluster.kill(leader);
  await says(page.locator("#events"), "leads the order group");
  await page.locator("#members-body").scrollIntoViewIfNeeded();
}

const at = (hash, colorScheme, viewport, last, prepare) => ({
  hash,
  colorScheme,
  viewport,
  last,
  prepare,
});
const stock = "#market-table tbody a";

const pictures = (cluster) => ({
  "market-light": at("#/", "light", DESK, stock, orderTicket),
  "market-dark": at("#/", "dark", DESK, stock, refusal),
  "market-telephone": at("#/", "light", TELEPHONE, stock),
  "ticket-telephone": at("#/ticket/NVDA", "dark", TELEPHONE, "#tape-body a", refusal),
  "market-wall": at("#/", "dark", WALL, stock),
  "orders-light": at("#/orders", "light", DESK, "#orders-body a"),
  "order-dark": at("#/orders/42", "dark", DESK, ".facts"),
  "admin-light": at("#/admin/Lemon & Lime", "light", DESK, "#changes-body a", (page) =>
    changes(cluster, page),
  ),
  "admin-telephone": at("#/admin/BoarCo", "dark", TELEPHONE, "#changes-body a"),
  "cluster-light": at("#/cluster", "light", DESK, "#plots figure:not(.without)"),
  "cluster-telephone": at("#/cluster", "light", TELEPHONE, "#plots figure:not(.without)"),
  // Last: it leaves the cluster with one replica less.
  "cluster-election": at("#/cluster", "dark", DESK, "#events li", (page) =>
    election(cluster, page),
  ),
});

async function main() {
  const cluster = new Cluster();
  const browser = await chromium.launch(CHROMIUM_OPTIONS);
  let isOver = false;
  try {
    await mkdir(DIRECTORY, { recursive: true });
    await cluster.start();
    // The cluster that a leader is killed in may refuse for a moment.
    const trading = trade(cluster, () => isOver).catch((error) => console.error(error.message));
    await new Promise((resolve) => setTimeout(resolve, WARM_S * 1000));
    for (const [name, about] of Object.entries(pictures(cluster))) {
      await shoot(browser, cluster, name, about);
    }
    isOver = true;
    await trading;
  } finally {
    isOver = true;
    await browser.close();
    await cluster.stop();
  }
  for (const name of await readdir(DIRECTORY)) {
    const { size } = await stat(`${DIRECTORY}/${name}`);
    console.log(`${name} ${size}`);
    if (size > BYTES_MAX) throw new Error(`${name} is too large`);
  }
}

await main();
