/** The ticket: one draft trades at most once, whatever happens on the way. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { until } from "../cluster.js";
import { fill, gate, ready, says, stage, stockRow } from "../stage.js";

const outcome = (page) => page.locator("#ticket-outcome");
const submit = (page) => page.locator("#ticket-submit");

/** Count the orders that a window sends, by their keys. */
function keysOf(page) {
  const keys = [];
  page.on("request", (request) => {
    if (request.method() === "POST") keys.push(request.headers()["idempotency-key"]);
  });
  return keys;
}

test("an order that is placed is seen in another window", async () => {
  const [mine, other] = [await stage.visit(), await stage.visit()];
  await Promise.all([ready(mine), ready(other)]);
  await fill(mine, { name: "AAPL", quantity: "3" });
  assert.equal(await submit(mine).textContent(), "Buy 3 AAPL");
  await submit(mine).click();
  await says(outcome(mine), "Bought 3 AAPL");
  const number = await stage.cluster.last();
  await says(outcome(mine), `Order ${number}`);
  await says(other.locator("#tape-body tr").first(), "AAPL");
  const { data } = await stage.cluster.ask("/stocks/AAPL");
  const shown = data.quantity.toLocaleString("en-GB");
  await says(stockRow(other, "AAPL").locator(".c-quantity"), shown);
  await other.getByRole("link", { name: "Orders", exact: true }).click();
  await other.locator(`#orders-body tr[data-number="${number}"]`).waitFor();
});

test("a double click trades once", async () => {
  const page = await stage.visit("#/ticket/NVDA");
  await ready(page);
  const before = await stage.cluster.last();
  await fill(page, { name: "NVDA", quantity: "2" });
  await submit(page).dblclick();
  await says(outcome(page), "Bought 2 NVDA");
  assert.equal(await stage.cluster.last(), before + 1);
});

test("an answered draft cannot trade again until a new order is asked for", async () => {
  const page = await stage.visit("#/ticket/NVDA");
  await ready(page);
  const keys = keysOf(page);
  await fill(page, { name: "NVDA", quantity: "2" });
  await submit(page).click();
  await says(outcome(page), "Bought 2 NVDA");
  const number = await stage.cluster.last();
  await page.getByRole("button", { name: "New order" }).click();
  await page.getByRole("button", { name: "Buy 2 NVDA" }).waitFor();
  assert.equal(await stage.cluster.last(), number);
  await page.getByRole("button", { name: "Buy 2 NVDA" }).click();
  await says(outcome(page), `Order ${number + 1}`);
  assert.equal(new Set(keys).size, 2);
});

test("an order whose answer is lost is asked for again under its key, and trades once", async () => {
  const page = await stage.visit("#/ticket/AAPL");
  await ready(page);
  const before = await stage.cluster.last();
  const keys = keysOf(page);
  let losses = 1;
  const [again, askAgain] = gate();
  await page.route("**/orders", async (route) => {
    if (route.request().method() !== "POST") return route.continue();
    if (!losses) return again.then(() => route.continue());
    losses -= 1;
    await route.fetch();
    return route.abort("connectionreset");
  });
  await fill(page, { name: "AAPL", quantity: "5", type: "sell" });
  await submit(page).click();
  await says(outcome(page), "Outcome not known yet");
  askAgain();
  await says(outcome(page), "Sold 5 AAPL");
  assert.ok(keys.length > 1);
  assert.equal(new Set(keys).size, 1);
  assert.equal(await stage.cluster.last(), before + 1);
});

test("an unknown outcome is said, survives a reload, and is asked for until it is known", async () => {
  const page = await stage.visit("#/ticket/AAPL");
  await ready(page);
  const keys = keysOf(page);
  const error = { code: 503, message: "outcome unknown", outcome: "unknown" };
  const unknown = { status: 503, headers: { "Retry-After": "1" }, json: { error } };
  // One route: between two of them an attempt could pass.
  let answer = (route) => route.fulfill(unknown);
  await page.route("**/orders", (route) =>
    route.request().method() === "POST" ? answer(route) : route.continue(),
  );
  await fill(page, { name: "AAPL", quantity: "6" });
  await submit(page).click();
  await says(outcome(page), "Outcome not known yet");
  await says(outcome(page), "outcome unknown");
  assert.equal(await submit(page).getAttribute("aria-disabled"), "true");
  await submit(page).click({ force: true });
  answer = (route) => route.fulfill({ status: 403, json: { message: "not from here" } });
  await page.reload();
  await says(outcome(page), "Outcome not known yet");
  assert.equal(
    await page.locator("#ticket").getByLabel("Quantity", { exact: true }).inputValue(),
    "6",
  );
  const before = await stage.cluster.last();
  answer = (route) => route.continue();
  await says(outcome(page), "Bought 6 AAPL");
  assert.equal(new Set(keys).size, 1);
  assert.equal(await stage.cluster.last(), before + 1);
});

test("who stops asking is told that the order may have traded", async () => {
  const page = await stage.visit("#/ticket/AAPL");
  await ready(page);
  const keys = keysOf(page);
  await page.route("**/orders", (route) =>
    route.request().method() === "POST" ? route.abort() : route.continue(),
  );
  await fill(page, { name: "AAPL", quantity: "6" });
  await submit(page).click();
  const stop = page.getByRole("button", { name: "Stop asking" });
  await stop.focus();
  await says(outcome(page), /Attempt ([4-9]|\d\d)/);
  // It is the same button as before, whatever was tried meanwhile: so it takes a click, too.
  assert.ok(await stop.evaluate((node) => node === document.activeElement));
  await page.keyboard.press("Enter");
  await says(outcome(page), "The order may have traded all the same");
  await page.waitForFunction(() => sessionStorage.length === 0);
  // Whoever presses it once more sends no other order: the focus is beside the button that would.
  const sent = keys.length;
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "ticket-outcome");
  assert.equal(keys.length, sent);
});

/** Have a window note in `window.attempts` when each order that it sends begins and ends. */
const noteAttempts = (page) =>
  page.addInitScript(() => {
    const send = window.fetch;
    window.attempts = [];
    window.fetch = async (url, how = {}) => {
      if (how.method !== "POST") return send(url, how);
      window.attempts.push("begins");
      try {
        return await send(url, how);
      } finally {
        window.attempts.push("ends");
      }
    };
  });

test("a new order is sent only when the attempt that was given up has ended", async () => {
  const page = await stage.visit("#/ticket/AAPL", { before: noteAttempts });
  await ready(page);
  const before = await stage.cluster.last();
  const keys = keysOf(page);
  let held = 0;
  await page.route("**/orders", (route) => {
    if (route.request().method() !== "POST") return route.continue();
    if (keys.length === 1) return route.abort("connectionreset");
    if (keys.length === 2) return (held += 1);
    return route.continue();
  });
  await fill(page, { name: "AAPL", quantity: "7" });
  await submit(page).click();
  await until(() => held, "the second attempt");
  await page.getByRole("button", { name: "Stop asking" }).click();
  await submit(page).click({ force: true });
  await says(outcome(page), "Bought 7 AAPL");
  const attempts = await page.evaluate(() => window.attempts);
  assert.deepEqual(attempts, ["begins", "ends", "begins", "ends", "begins", "ends"]);
  assert.deepEqual([keys.length, new Set(keys).size], [3, 2]);
  assert.equal(await stage.cluster.last(), before + 1);
  assert.equal(await page.evaluate(() => sessionStorage.length), 0);
});

const REFUSALS = [
  ["name", { name: "Nobody", quantity: "1" }, "invalid stock name"],
  ["name", { name: "", quantity: "1" }, "invalid stock name"],
  ["quantity", { name: "AAPL", quantity: "0" }, "num stocks traded should be non negative"],
  ["quantity", { name: "AAPL", quantity: "999999" }, "not enough stocks left to buy"],
  ["quantity", { name: "AAPL", quantity: "" }, "quantity: expected an integer"],
  ["quantity", { name: "AAPL", quantity: "1.5" }, "quantity: expected an integer"],
  ["quantity", { name: "AAPL", quantity: "9007199254740993" }, "quantity: expected at most"],
];

test("a refusal is said in the API's words at the field that it is about", async () => {
  const page = await stage.visit("#/ticket");
  await ready(page);
  const before = await stage.cluster.last();
  for (const [field, draft, words] of REFUSALS) {
    await fill(page, draft);
    await submit(page).click();
    await says(page.locator(`#ticket-${field}-error`), words);
    const input = page.locator(`#ticket-${field}`);
    await until(() => input.evaluate((node) => node === document.activeElement), "the focus");
    assert.equal(await input.getAttribute("aria-invalid"), "true");
  }
  assert.equal(await stage.cluster.last(), before);
  await page.locator("#ticket-quantity").fill("1");
  assert.equal(await page.locator(".field-error:visible").count(), 0);
});

test("a refusal of the type, and of a halted stock, find their fields too", async () => {
  const page = await stage.visit("#/ticket");
  await ready(page);
  const answers = [
    ["type", "invalid transaction type"],
    ["name", "trading in this stock is halted"],
  ];
  // One route for both: Playwright takes a spent one down while the next request is on its way.
  const messages = answers.map(([, message]) => message).values();
  await page.route("**/orders", (route) => {
    const { value: message } = messages.next();
    return route.fulfill({ status: 404, json: { error: { code: 404, message } } });
  });
  for (const [field, message] of answers) {
    await fill(page, { name: "AAPL", quantity: "1" });
    await submit(page).click();
    await says(page.locator(`#ticket-${field}-error`), message);
  }
});

test("who sends an order from its side keeps a place in the ticket", async () => {
  const page = await stage.visit("#/ticket/AAPL");
  await ready(page);
  await fill(page, { name: "AAPL", quantity: "2", type: "sell" });
  await page.getByRole("radio", { name: "Sell" }).press("Enter");
  await says(outcome(page), "Sold 2 AAPL");
  assert.equal(await page.evaluate(() => document.activeElement.id), "ticket-submit");
});

test("a trade can be made with the keyboard alone", async () => {
  const page = await stage.visit();
  await ready(page);
  const before = await stage.cluster.last();
  const focused = (test_) => page.evaluate(test_);
  const tabTo = (id) =>
    until(async () => {
      await page.keyboard.press("Tab");
      return focused(`document.activeElement.id === ${JSON.stringify(id)}`);
    }, `the focus at ${id}`);
  await tabTo("market-search");
  await page.keyboard.type("GOOGL");
  await tabTo("market-scroller");
  await page.keyboard.press("ArrowDown");
  await until(() => focused("document.activeElement.textContent === 'GOOGL'"), "GOOGL");
  await page.keyboard.press("Enter");
  await until(() => focused("document.activeElement.id === 'ticket-quantity'"), "the ticket");
  await page.keyboard.type("4");
  await page.keyboard.press("Enter");
  await says(outcome(page), "Bought 4 GOOGL");
  await page.keyboard.press("Enter");
  assert.equal(await stage.cluster.last(), before + 1);
});
