/** Who reads with a screen reader, in the dark, on a telephone or on a wall sees it as well. */

import assert from "node:assert/strict";
import { test } from "node:test";
import axe from "axe-core";
import { until } from "../cluster.js";
import { fill, noteMarks, ready, says, stage } from "../stage.js";

/** Each page, and what is there when it is complete. */
const PAGES = {
  "#/": "#market-table tbody a",
  "#/ticket/AAPL": "#tape-body a",
  "#/orders": "#orders-body a",
  "#/orders/1": ".facts",
  "#/orders/999999": "#order-detail [role=alert]",
  "#/cluster": "#plots canvas",
  "#/admin/AAPL": "#changes-body a",
};
const SIZES = [
  { width: 360, height: 740 },
  { width: 1280, height: 800 },
  { width: 3840, height: 2160 },
];

/** What axe-core finds serious or critical, as text. */
async function found(page) {
  await page.evaluate(axe.source);
  const results = await page.evaluate(() => window.axe.run(document));
  return results.violations
    .filter(({ impact }) => impact === "serious" || impact === "critical")
    .map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" ")}`);
}

for (const colorScheme of ["light", "dark"]) {
  for (const hash of Object.keys(PAGES)) {
    test(`axe finds nothing serious at ${hash}, ${colorScheme}`, async () => {
      await stage.cluster.trade("AAPL", 1);
      await stage.cluster.change("/admin/stocks/AAPL/restock", { quantity: 1 });
      const page = await stage.visit(hash, { colorScheme });
      await says(page.locator("#link-text"), "Live");
      await page.locator(PAGES[hash]).first().waitFor();
      assert.deepEqual(await found(page), []);
      await page.setViewportSize({ width: 360, height: 740 });
      assert.deepEqual(await found(page), []);
    });
  }
  test(`axe finds nothing serious in refusals, receipts and banners, ${colorScheme}`, async () => {
    const page = await stage.visit("#/ticket/AAPL", { colorScheme });
    await ready(page);
    await fill(page, { name: "AAPL", quantity: "0" });
    await page.locator("#ticket-submit").click();
    await says(page.locator("#ticket-quantity-error"), "non negative");
    assert.deepEqual(await found(page), []);
    await fill(page, { name: "AAPL", quantity: "1", type: "sell" });
    await page.locator("#ticket-submit").click();
    await says(page.locator("#ticket-outcome"), "Sold 1 AAPL");
    assert.deepEqual(await found(page), []);
    // A page that is offline keeps a stream that is open: end the front-end.
    const front = (await stage.cluster.members()).find((row) => row.service === "front");
    stage.cluster.kill(front);
    await says(page.locator("#banner"), "The connection is lost.");
    assert.deepEqual(await found(page), []);
    await stage.cluster.revive(front);
  });
}

test("nothing is cut off or scrolls sideways, from a telephone to a wall", async () => {
  for (const [hash, complete] of Object.entries(PAGES)) {
    const page = await stage.visit(hash);
    await page.locator(complete).first().waitFor();
    for (const viewport of SIZES) {
      await page.setViewportSize(viewport);
      const sideways = () => document.documentElement.scrollWidth - window.innerWidth;
      const wide = () =>
        [...document.querySelectorAll(".scroller")].filter(
          (each) => each.scrollWidth > each.clientWidth,
        ).length;
      // Plots follow a window's size in the next frame.
      const fits = async () => (await page.evaluate(sideways)) <= 0 && !(await page.evaluate(wide));
      await until(fits, `${hash} to fit at ${viewport.width}`);
    }
  }
});

test("who wants no motion sees a mark that stands still", async () => {
  const page = await stage.visit("#/", { reducedMotion: "reduce" });
  await ready(page);
  await says(page.locator("#link-text"), "Live");
  await page.evaluate(() => {
    window.animated = 0;
    const animate = Element.prototype.animate;
    Element.prototype.animate = function (...rest) {
      window.animated += 1;
      return animate.apply(this, rest);
    };
  });
  await noteMarks(page);
  await stage.cluster.trade("AMZN", 2);
  await page.waitForFunction(() => window.marked === "buy AMZN");
  assert.equal(await page.evaluate(() => window.animated), 0);
});

test("the first stop of the keyboard leads past the navigation", async () => {
  const page = await stage.visit();
  await ready(page);
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "main");
});
