/** Orders: newest first, live, page by page, and one of them under a link. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { until } from "../cluster.js";
import { gate, says, stage } from "../stage.js";

const numbers = (page) =>
  page.locator("#orders-body tr").evaluateAll((rows) => rows.map((row) => +row.dataset.number));

/** How many of the newest orders a page keeps. */
const KEPT = 1000;

/** Trade until there are so many orders. */
async function tradeUntil(count) {
  for (;;) {
    const missing = count - (await stage.cluster.last());
    if (missing <= 0) return;
    const some = Array.from({ length: Math.min(missing, 50) });
    await Promise.all(some.map(() => stage.cluster.trade("FishCo", 1, "sell")));
  }
}

test("the newest orders come first, and new ones appear by themselves", async () => {
  const last = await stage.cluster.trade("FishCo", 1);
  const page = await stage.visit("#/orders");
  await page.locator(`#orders-body tr[data-number="${last}"]`).waitFor();
  await stage.cluster.trade("FishCo", 2);
  await page.locator(`#orders-body tr[data-number="${last + 1}"]`).waitFor();
  const shown = await numbers(page);
  assert.deepEqual(
    shown,
    shown.map((_, i) => last + 1 - i),
  );
});

test("pages go back to the first order and forward again without a gap", async () => {
  await tradeUntil(120);
  const page = await stage.visit("#/orders");
  const total = await stage.cluster.last();
  const row = (number) => page.locator(`#orders-body tr[data-number="${number}"]`);
  await row(total).waitFor();
  assert.equal((await numbers(page)).length, 50);
  await page.getByRole("link", { name: "Older" }).click();
  await row(total - 50).waitFor();
  assert.deepEqual((await numbers(page)).at(-1), total - 99);
  await page.getByRole("link", { name: "Oldest" }).click();
  await row(1).waitFor();
  assert.deepEqual(
    await numbers(page),
    Array.from({ length: 50 }, (_, i) => 50 - i),
  );
  assert.equal(await page.getByText("Oldest").getAttribute("aria-disabled"), "true");
  await page.getByRole("link", { name: "Newer" }).click();
  await row(100).waitFor();
  assert.deepEqual((await numbers(page)).at(-1), 51);
  await page.getByRole("link", { name: "Newest" }).click();
  await row(total).waitFor();
});

test("orders older than those that the page keeps are asked for", async () => {
  await tradeUntil(KEPT + 60);
  const page = await stage.visit("#/orders?before=21");
  await page.locator('#orders-body tr[data-number="20"]').waitFor();
  assert.equal((await numbers(page)).at(-1), 1);
  // While orders are loaded the page before may still be the newest.
  await page.locator('#orders-newer[href="#/orders?before=71"]').click();
  await page.locator('#orders-body tr[data-number="70"]').waitFor();
  assert.equal((await numbers(page)).at(-1), 21);
});

/** Count how often a window asks for the first twenty orders. */
function countAsked(page) {
  const asked = [];
  page.on("request", (request) => {
    if (request.url().endsWith("/orders?after=0&limit=20")) asked.push(request.url());
  });
  return asked;
}

test("a page that no trade changes is asked for once, and kept as it is", async () => {
  await tradeUntil(KEPT + 60);
  const page = await stage.visit("#/orders");
  await page.locator(`#orders-body tr[data-number="${await stage.cluster.last()}"]`).waitFor();
  const asked = countAsked(page);
  await page.evaluate(() => (location.hash = "#/orders?before=21"));
  const first = page.locator('#orders-body tr[data-number="20"]');
  await first.waitFor();
  await first.evaluate((node) => (window.held = node));
  for (const quantity of [1, 2, 3]) {
    const number = await stage.cluster.trade("FishCo", quantity, "sell");
    await says(page.locator("#orders-count"), number.toLocaleString("en-GB"));
  }
  assert.equal(asked.length, 1);
  assert.ok(await page.evaluate(() => window.held.isConnected));
});

test("a page that cannot be read shows nothing else, and is asked for again", async () => {
  await tradeUntil(KEPT + 60);
  const page = await stage.visit("#/orders");
  await page.locator(`#orders-body tr[data-number="${await stage.cluster.last()}"]`).waitFor();
  const [again, askAgain] = gate();
  let failures = 1;
  const error = { code: 503, message: "not now" };
  await page.route("**/orders?after=0&limit=20", async (route) => {
    if (!failures) return again.then(() => route.continue());
    failures -= 1;
    return route.fulfill({ status: 503, json: { error } });
  });
  await page.evaluate(() => (location.hash = "#/orders?before=21"));
  await until(async () => !(await numbers(page)).length, "the rows of another page to go");
  askAgain();
  await page.locator('#orders-body tr[data-number="20"]').waitFor();
});

test("a number may be typed as it is shown", async () => {
  await tradeUntil(KEPT + 60);
  const page = await stage.visit("#/orders");
  await page.getByLabel("Find an order by its number").fill("1,001");
  await page.getByRole("button", { name: "Find" }).click();
  await says(page.locator("#order-heading"), "Order 1001");
  await says(page.locator("#order-detail"), "Executed");
});

test("an order is found by its number, and its link can be shared", async () => {
  const number = await stage.cluster.trade("AMZN", 9, "sell");
  const page = await stage.visit("#/orders");
  await page.getByLabel("Find an order by its number").fill(String(number));
  await page.getByRole("button", { name: "Find" }).click();
  await says(page.locator("#order-detail"), "AMZN");
  assert.equal(await page.title(), `Order ${number} - twstock`);
  const link = await page.getByLabel("Link to this order").inputValue();
  assert.equal(link, `${stage.cluster.url}/#/orders/${number}`);
  const other = await stage.visit(`#${new URL(link).hash.slice(1)}`);
  const detail = other.locator("#order-detail");
  await says(detail, "AMZN");
  await says(detail, "Sell");
  await says(detail, "229.50");
});

test("a number that no order has is refused in the API's words", async () => {
  const page = await stage.visit("#/orders");
  for (const number of ["999999", "abc"]) {
    await page.getByLabel("Find an order by its number").fill(number);
    await page.getByRole("button", { name: "Find" }).click();
    await says(page.locator("#order-heading"), number);
    await says(page.locator("#order-detail"), "Transaction number not found");
    await page.getByRole("link", { name: "All orders" }).click();
  }
});

test("a link that leads nowhere says so", async () => {
  const page = await stage.visit("#/nowhere");
  await page.getByRole("heading", { name: "No such page" }).last().waitFor();
});
