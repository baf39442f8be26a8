/** A lost connection is said, and heals by itself. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { ready, says, stage, stockRow } from "../stage.js";

const banner = (page) => page.locator("#banner");

test("a front-end that dies is told of, and what happened meanwhile is shown when it is back", async () => {
  const page = await stage.visit();
  await ready(page);
  await says(page.locator("#link-text"), "Live");
  const front = (await stage.cluster.members()).find((row) => row.service === "front");
  stage.cluster.kill(front);
  await says(banner(page), "The connection is lost.");
  assert.equal(await banner(page).getAttribute("role"), "status");
  await says(page.locator("#link-text"), "No connection");
  await stage.cluster.revive(front);
  const number = await stage.cluster.trade("GOOGL", 8);
  await says(stockRow(page, "GOOGL").locator(".c-last"), "bought 8");
  await says(page.locator("#tape-body tr").first(), number.toLocaleString("en-GB"));
  await says(page.locator("#link-text"), "Live");
  await banner(page).filter({ hasNotText: "lost" }).waitFor({ state: "attached" });
});

test("a market that cannot be read is told of in the API's words", async () => {
  const page = await stage.visit();
  await ready(page);
  const error = { code: 503, message: "no order leader is known", outcome: "none" };
  await page.route(/:\d+\/(orders|stocks|events)/, (route) =>
    route.fulfill({ status: 503, json: { error } }),
  );
  // A stream that is open says nothing of it: end it, as a front-end that restarts does.
  await page.reload();
  await says(banner(page), "The market cannot be read: no order leader is known.");
  await page.unrouteAll();
  await ready(page);
  await banner(page).filter({ hasNotText: "cannot" }).waitFor({ state: "attached" });
});
