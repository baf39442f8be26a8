/** Administration: one filled-in change is made at most once, and only with the token. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { ADMIN_TOKEN, until } from "../cluster.js";
import { fill, gate, ready, says, stage, stockRow } from "../stage.js";

const outcome = (page) => page.locator("#admin-outcome");
const submit = (page) => page.locator("#admin-submit");
const field = (page, name) => page.locator(`#admin-${name}`);

/** A window on the page that knows the market. */
async function visit(hash = "#/admin") {
  const page = await stage.visit(hash);
  await says(page.locator("#link-text"), "Live");
  return page;
}

/** Fill in a change, and leave it at that. */
async function fillIn(page, { kind, token = ADMIN_TOKEN, ...fields }) {
  const form = page.locator("#admin-form");
  await form.getByRole("radio", { name: kind, exact: true }).check();
  for (const [name, value] of Object.entries({ token, ...fields })) {
    await field(page, name).fill(value);
  }
}

/** Make a change and wait for its answer. */
async function change(page, draft, words) {
  await fillIn(page, draft);
  await submit(page).click();
  await says(outcome(page), words);
}

test("a stock is added, restocked, priced, halted and resumed, and everybody sees it", async () => {
  const [mine, other] = [await visit(), await stage.visit("#/")];
  await ready(other);
  const before = (await stage.cluster.changes()).length;
  const name = "Lemon & <Lime>";
  await change(
    mine,
    { kind: "New stock", name, price: "2.50", quantity: "100" },
    `New stock: ${name}`,
  );
  await says(outcome(mine), `Change ${before + 1}`);
  await change(mine, { kind: "Restock", name, quantity: "50" }, `Restock: ${name}`);
  await says(field(mine, "now-quantity"), "150");
  await change(mine, { kind: "Price", name, price: "2.75" }, `Price: ${name}`);
  await other.locator("#market-search").fill("Lemon");
  await says(stockRow(other, name).locator(".c-price"), "2.75");
  await says(stockRow(other, name).locator(".c-quantity"), "150");
  await fillIn(mine, { kind: "Halt", name });
  assert.equal(await submit(mine).textContent(), `Halt trading in ${name}`);
  assert.equal(await field(mine, "price").isVisible(), false);
  await submit(mine).click();
  await says(outcome(mine), `Halt: ${name}`);
  await other.locator("#market-table .halted").waitFor();
  await fill(other, { name, quantity: "1" });
  await other.locator("#ticket-submit").click();
  await says(other.locator("#ticket-name-error"), "trading in this stock is halted");
  await change(mine, { kind: "Resume", name }, `Resume: ${name}`);
  await other.locator("#ticket-submit").click();
  await says(other.locator("#ticket-outcome"), `Bought 1 ${name}`);
  const made = (await stage.cluster.changes()).slice(before);
  assert.deepEqual(
    made.map((each) => each.kind),
    ["add", "restock", "price", "halt", "resume"],
  );
  await says(mine.locator("#changes-body tr").first(), "Resume");
});

test("without the token nothing changes, and no browser keeps it", async () => {
  const page = await visit("#/admin/AAPL");
  const before = (await stage.cluster.changes()).length;
  const refusals = [
    ["", "token: missing"],
    ["a b", "token: expected letters"],
    ["guessed", "expected the admin token"],
  ];
  for (const [token, words] of refusals) {
    await fillIn(page, { kind: "Price", token, price: "1.00" });
    await submit(page).click();
    await says(page.locator("#admin-token-error"), words);
    const isFocused = () =>
      field(page, "token").evaluate((node) => node === document.activeElement);
    await until(isFocused, "the focus");
  }
  assert.equal((await stage.cluster.changes()).length, before);
  assert.equal(await field(page, "token").getAttribute("type"), "password");
  await change(page, { kind: "Price", price: "25.50" }, "Price: AAPL");
  const stores = () => sessionStorage.length + window.localStorage.length;
  assert.equal(await page.evaluate(stores), 0);
  await page.reload();
  assert.equal(await field(page, "token").inputValue(), "");
});

test("a change whose answer is lost is asked for again under its key, and made once", async () => {
  const page = await visit("#/admin/META");
  const before = (await stage.cluster.changes()).length;
  const keys = [];
  let losses = 1;
  const [again, askAgain] = gate();
  await page.route("**/admin/stocks/**", async (route) => {
    keys.push(route.request().headers()["idempotency-key"]);
    if (!losses) return again.then(() => route.continue());
    losses -= 1;
    await route.fetch();
    return route.abort("connectionreset");
  });
  await fillIn(page, { kind: "Restock", quantity: "7" });
  await submit(page).click();
  await says(outcome(page), "Outcome not known yet");
  askAgain();
  await says(outcome(page), "Restock: META");
  assert.ok(keys.length > 1);
  assert.equal(new Set(keys).size, 1);
  assert.equal((await stage.cluster.changes()).length, before + 1);
});

test("a double click, and a second one on what is answered, change once", async () => {
  const page = await visit("#/admin/META");
  const before = (await stage.cluster.changes()).length;
  await fillIn(page, { kind: "Restock", quantity: "3" });
  await submit(page).dblclick();
  await says(outcome(page), "Restock: META");
  await page.getByRole("button", { name: "Another change" }).click();
  await page.getByRole("button", { name: "Add 3 META" }).waitFor();
  assert.equal((await stage.cluster.changes()).length, before + 1);
});

const REFUSALS = [
  ["name", { kind: "Halt", name: "" }, "name: missing"],
  ["name", { kind: "Halt", name: "Nobody" }, "stock not found"],
  ["name", { kind: "Resume", name: "AAPL" }, "not halted"],
  ["name", { kind: "New stock", name: "AAPL", price: "1", quantity: "1" }, "stock exists already"],
  ["name", { kind: "New stock", name: "", price: "1", quantity: "1" }, "name: expected"],
  ["price", { kind: "Price", name: "AAPL", price: "1.005" }, "price: "],
  ["price", { kind: "Price", name: "AAPL", price: "" }, "price: "],
  ["quantity", { kind: "Restock", name: "AAPL", quantity: "1.5" }, "quantity: "],
  ["quantity", { kind: "Restock", name: "AAPL", quantity: "0" }, "quantity: "],
];

test("a refusal is said in the API's words at the field that it is about", async () => {
  const page = await visit();
  const before = (await stage.cluster.changes()).length;
  for (const [at, draft, words] of REFUSALS) {
    await fillIn(page, draft);
    await submit(page).click();
    await says(page.locator(`#admin-${at}-error`), words);
    assert.equal(await field(page, at).getAttribute("aria-invalid"), "true");
  }
  assert.equal((await stage.cluster.changes()).length, before);
  await field(page, "quantity").fill("1");
  assert.equal(await page.locator("#page-admin .field-error:visible").count(), 0);
});

test("a front-end without a token says that administration is off", async () => {
  const page = await visit("#/admin/AAPL");
  const message = "administration is off: no admin token is configured";
  await page.route("**/admin/stocks/**", (route) =>
    route.fulfill({ status: 403, json: { error: { code: 403, message } } }),
  );
  await fillIn(page, { kind: "Halt" });
  await submit(page).click();
  await says(outcome(page), message);
});

test("changes that others make are listed as they are made", async () => {
  const page = await visit();
  const number = await stage.cluster.change("/admin/stocks/NVDA/restock", { quantity: 11 });
  const row = page.locator(`#changes-body tr[data-number="${number}"]`);
  await says(row, "NVDA");
  await says(row.locator(".c-quantity"), "11");
  assert.equal(
    await page.locator("#changes-body tr").first().getAttribute("data-number"),
    `${number}`,
  );
  await row.getByRole("link").click();
  await until(async () => (await field(page, "name").inputValue()) === "NVDA", "the stock's name");
});
