/** The cluster: who leads, an election as it happens, and the last ten minutes. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { fill, says, stage } from "../stage.js";

const tile = (page) => page.locator('[data-group="order"] .tile-value');
const member = (page, name) => page.locator("#members-body tr", { hasText: name });

test("each member is listed with role, term, last transaction, lag and uptime", async () => {
  const page = await stage.visit("#/cluster");
  const leader = await stage.cluster.leader();
  const row = member(page, `order-${leader.id}`);
  await says(row, "Leader");
  assert.equal(await row.getAttribute("data-state"), "leader");
  await says(tile(page), `order-${leader.id}`);
  for (const [kind, value] of [
    ["c-term", leader.term],
    ["c-transaction", leader.last_transaction],
    ["c-lag", 0],
  ]) {
    await says(row.locator(`.${kind}`), new RegExp(`^${value.toLocaleString("en-GB")}$`));
  }
  await says(row.locator(".c-uptime"), / s$/);
  await says(member(page, "front-1"), "Serving");
  await says(page.locator("#members-count"), "5 of 5 alive");
});

test("the leader is killed, and the next one is seen", async () => {
  const page = await stage.visit("#/cluster");
  const killed = await stage.cluster.leader();
  await says(tile(page), `order-${killed.id}`);
  stage.cluster.kill(killed);
  await says(member(page, `order-${killed.id}`), "Down");
  await tile(page)
    .filter({ hasNotText: `order-${killed.id}` })
    .filter({ hasText: /order-\d/ })
    .waitFor();
  const leader = await stage.cluster.leader();
  assert.notEqual(leader.id, killed.id);
  await says(member(page, `order-${leader.id}`), "Leader");
  await says(page.locator("#events"), `order-${leader.id} leads the order group, term`);
  await says(page.locator("#announcer"), "leads the order group");
  await says(page.locator("#events"), `order-${killed.id} does not answer`);
  // Trading goes on.
  await page.getByRole("link", { name: "Market" }).click();
  await fill(page, { name: "AAPL", quantity: "1" });
  await page.locator("#ticket-submit").click();
  await says(page.locator("#ticket-outcome"), "Bought 1 AAPL");
  await page.getByRole("link", { name: "Cluster" }).click();
  await stage.cluster.revive(killed);
  await says(page.locator("#events"), `order-${killed.id} answers again`);
});

const HISTORY = Array.from({ length: 600 }, (_, i) => ({
  at: Math.floor(Date.now() / 1000) - 600 + i,
  lookups: 100 + (i % 50),
  orders: 20,
  refused: 1,
  errors: 0,
  hits: 90,
  misses: 10,
  p50_ms: i % 100 ? 1.25 : null,
  p99_ms: i % 100 ? 9.5 : null,
  reactor_lag_ms: 0.5,
}));

test("throughput, latency and cache hits of the last ten minutes are plotted", async () => {
  const json = { data: { step_s: 1, rows: HISTORY } };
  const fake = (page) => page.route("**/history", (route) => route.fulfill({ json }));
  const page = await stage.visit("#/cluster", { before: fake });
  await says(page.locator("#plots"), "149/s");
  await says(page.locator("#plots"), "9.50 ms");
  await says(page.locator("#plots"), "90.0 %");
  assert.equal(await page.locator("#plots canvas").count(), 3);
  assert.equal(await page.locator("#plots").getByText("No history").first().isVisible(), false);
});

test("plots whose library was out of reach are drawn once it is there", async () => {
  let failures = 1;
  const page = await stage.visit("#/cluster", {
    before: (window_) =>
      window_.route("**/uPlot.esm.js", (route) => {
        failures -= 1;
        return failures < 0 ? route.continue() : route.abort("connectionrefused");
      }),
  });
  await page.locator("#plots canvas").first().waitFor();
  assert.ok(failures < 0);
});

test("a front-end without a history says so", async () => {
  const none = { status: 404, json: { error: { code: 404, message: "no such path" } } };
  const fake = (page) => page.route("**/history", (route) => route.fulfill(none));
  const page = await stage.visit("#/cluster", { before: fake });
  await page.locator("#plots").getByText("No history").first().waitFor();
});

test("the front-end's own history is plotted", async (context) => {
  if (!(await stage.cluster.has("/history"))) return context.skip("no /history here");
  const page = await stage.visit("#/cluster");
  await page.locator("#plots figure:not(.without)").first().waitFor();
  return says(page.locator("#plots"), "/s");
});
