/** The market: what is listed, and what is drawn of it. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { until } from "../cluster.js";
import { HOSTILE, MANY, noteMarks, ready, says, stage, stockRow } from "../stage.js";

const TOTAL = MANY + HOSTILE.length + 6;
const drawn = (page) => page.locator("#market-table tbody tr:not(.spacer)");

test("each stock is shown with price, quantity and volume", async () => {
  await stage.cluster.trade("AMZN", 4);
  const { data } = await stage.cluster.ask("/stocks/AMZN");
  const page = await stage.visit();
  const row = stockRow(page, "AMZN");
  await row.waitFor();
  await says(row.locator(".c-quantity"), data.quantity.toLocaleString("en-GB"));
  assert.equal(await row.locator(".c-price").textContent(), "25.50");
  assert.equal(await row.locator(".c-volume").textContent(), data.volume.toLocaleString("en-GB"));
  await says(row.locator(".c-last"), "\u25B2 bought 4");
});

test("of thousands of stocks fewer than a hundred are drawn, and all can be reached", async () => {
  const page = await stage.visit();
  await says(page.locator("#market-count"), TOTAL.toLocaleString("en-GB"));
  const table = page.locator("#market-table");
  assert.equal(await table.getAttribute("aria-rowcount"), String(TOTAL + 1));
  assert.ok((await drawn(page).count()) < 100);
  // There is room for rows that are not drawn from the next frame on.
  const toTheEnd = (node) => node.scrollTo(0, node.scrollHeight);
  await until(async () => {
    await page.locator("#market-scroller").evaluate(toTheEnd);
    return stockRow(page, `Stock${MANY}`).isVisible();
  }, "the last row");
  assert.ok((await drawn(page).count()) < 100);
  const last = await stockRow(page, `Stock${MANY}`).getAttribute("aria-rowindex");
  assert.equal(last, String(TOTAL + 1));
});

test("searching lists the stocks whose names hold the text", async () => {
  const page = await stage.visit();
  await ready(page);
  await page.getByLabel("Search stocks by name").fill("stock04");
  await says(page.locator("#market-count"), `100 of ${TOTAL.toLocaleString("en-GB")}`);
  await says(drawn(page).first(), "Stock0400");
  await page.getByLabel("Search stocks by name").fill("nothing has this");
  await page.getByText("No stock has \u201Cnothing has this\u201D in its name.").waitFor();
});

test("a head of a column sorts by it, both ways", async () => {
  await stage.cluster.trade("FishCo", 11, "sell");
  const page = await stage.visit();
  await ready(page);
  const table = page.locator("#market-table");
  const head = table.getByRole("columnheader", { name: "Quantity", exact: true });
  await head.getByRole("button").click();
  await says(drawn(page).first(), "FishCo");
  assert.equal(await head.getAttribute("aria-sort"), "descending");
  await head.getByRole("button").click();
  await drawn(page).first().filter({ hasNotText: "FishCo" }).waitFor();
  assert.equal(await head.getAttribute("aria-sort"), "ascending");
});

test("a trade changes its row, and the row flashes", async () => {
  const page = await stage.visit();
  const row = stockRow(page, "META");
  await row.waitFor();
  await says(page.locator("#link-text"), "Live");
  await noteMarks(page);
  await stage.cluster.trade("META", 7, "sell");
  await says(row.locator(".c-last"), "sold 7");
  await page.waitForFunction(() => window.marked === "sell META");
  const { data } = await stage.cluster.ask("/stocks/META");
  await says(row.locator(".c-quantity"), data.quantity.toLocaleString("en-GB"));
});

test("a name that looks like markup is text", async () => {
  const page = await stage.visit();
  await ready(page);
  for (const name of HOSTILE) {
    await stage.cluster.trade(name, 1);
    await page.getByLabel("Search stocks by name").fill(name);
    await says(page.locator("#market-count"), "1 of");
    // What was drawn before stays until the next frame.
    await until(async () => (await drawn(page).count()) === 1, "one row to be drawn");
    await says(drawn(page), name);
    assert.equal(await drawn(page).getByRole("link").textContent(), name);
    await drawn(page).getByRole("link").click();
    const wanted = page.locator("#ticket").getByLabel("Stock", { exact: true });
    await until(async () => (await wanted.inputValue()) === name, "the ticket to name it");
    await says(page.locator("#tape-body"), name);
  }
  await page.goto(`${stage.cluster.url}/#/orders/${await stage.cluster.last()}`);
  await says(page.locator("#order-detail"), HOSTILE.at(-1));
  await page.goto(`${stage.cluster.url}/#/orders/${encodeURIComponent(HOSTILE[0])}`);
  await says(page.locator("#order-heading"), HOSTILE[0]);
  assert.equal(await page.evaluate(() => window.hacked), undefined);
  assert.equal(await page.locator("#order-detail b, td b, th b").count(), 0);
});

test("a halted stock has a badge", async () => {
  const halt = async (route) => {
    const response = await route.fetch();
    const page = await response.json();
    for (const stock of page.data) if (stock.name === "GOOGL") stock.halted = true;
    await route.fulfill({ response, json: page });
  };
  const page = await stage.visit("#/", { before: (made) => made.route("**/stocks?*", halt) });
  await says(stockRow(page, "GOOGL"), "Halted");
  assert.equal(await stockRow(page, "AMZN").getByText("Halted").isVisible(), false);
});

test("arrows move from stock to stock", async () => {
  const page = await stage.visit();
  await says(page.locator("#market-count"), TOTAL.toLocaleString("en-GB"));
  await page.locator("#market-scroller").focus();
  const focused = () => page.evaluate(() => document.activeElement.textContent);
  await page.keyboard.press("ArrowDown");
  const first = await focused();
  await page.keyboard.press("ArrowDown");
  assert.notEqual(await focused(), first);
  await page.keyboard.press("End");
  assert.equal(await focused(), `Stock${MANY}`);
  await page.keyboard.press("Home");
  assert.equal(await focused(), first);
  await page.keyboard.press("PageDown");
  await until(async () => (await focused()) !== first, "another page");
});
