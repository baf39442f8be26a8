/** The live mode: what `/events` tells is shown, nothing twice and nothing missed. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { until } from "../cluster.js";
import { FakeFeed } from "../fake_feed.js";
import { says, stage, stockRow } from "../stage.js";

/** Run a case in a window whose events the case makes up. */
async function streamed(play, hash = "#/") {
  const feed = new FakeFeed(stage.cluster.url);
  await feed.start();
  try {
    const page = await stage.visit(hash, { url: feed.url });
    await says(page.locator("#link-text"), "Live");
    await play(page, feed);
  } finally {
    // A server that goes on would keep the tests from ending.
    await stage.leave().finally(() => feed.stop());
  }
}

const live = (claim, play, hash) => test(claim, () => streamed(play, hash));

/** An order that no log has: what shows it can have come by the stream alone. */
async function madeUp(name, quantity) {
  const { data: stock } = await stage.cluster.ask(`/stocks/${name}`);
  const number = (await stage.cluster.last()) + 1;
  const order = { order_num: number, name, type: "buy", quantity, price: stock.price };
  return { stock, order: { ...order, version: stock.version + 1, time_ms: Date.now() } };
}

const tape = (page, number) =>
  page.locator("#tape-body tr", {
    has: page.getByRole("link", { name: number.toLocaleString("en-GB"), exact: true }),
  });

live(
  "a trade is shown when the stream tells of it, and told twice it is shown once",
  async (page, feed) => {
    const { stock, order } = await madeUp("NVDA", 5);
    feed.send("trades", { trades: [order] }, "1");
    feed.send("trades", { trades: [order] }, "1");
    const fields = {
      quantity: stock.quantity - 5,
      volume: stock.volume + 5,
      version: order.version,
    };
    feed.send("stocks", { stocks: [{ ...stock, ...fields }] }, "2");
    await tape(page, order.order_num).waitFor();
    const shown = (stock.quantity - 5).toLocaleString("en-GB");
    await says(stockRow(page, "NVDA").locator(".c-quantity"), shown);
    assert.equal(await tape(page, order.order_num).count(), 1);
  },
);

live("the latest trades stay where they are under the mouse", async (page, feed) => {
  const { order } = await madeUp("NVDA", 5);
  const at = (number) => ({ ...order, order_num: number, version: order.version + number });
  const [first, second] = [order.order_num, order.order_num + 1];
  feed.send("trades", { trades: [at(first)] }, "1");
  await tape(page, first).hover();
  const place = await tape(page, first).boundingBox();
  feed.send("trades", { trades: [at(second), at(second + 1)] }, "2");
  await says(page.locator("#tape-count"), "2 newer");
  assert.deepEqual(await tape(page, first).boundingBox(), place);
  assert.equal(await tape(page, second).count(), 0);
  await page.mouse.move(0, 0);
  await tape(page, second + 1).waitFor();
  assert.equal(await page.locator("#tape-count").textContent(), "");
});

live("a stock is shown as the stream has it, halted or new", async (page, feed) => {
  const { stock } = await madeUp("META", 1);
  const version = stock.version + 9;
  const added = { name: "AAA New", price: 1.5, quantity: 77, volume: 0, version: 0 };
  feed.send(
    "stocks",
    { stocks: [{ ...stock, version, quantity: 4321, halted: true }, added] },
    "1",
  );
  await says(stockRow(page, "META").locator(".c-quantity"), "4,321");
  await says(stockRow(page, "META"), "Halted");
  await says(stockRow(page, "AAA New").locator(".c-quantity"), "77");
  feed.send("stocks", { stocks: [{ ...stock, version: version - 1, quantity: 1 }] }, "2");
  feed.send("stocks", { stocks: [{ ...added, version: 1, quantity: 78 }] }, "3");
  await says(stockRow(page, "AAA New").locator(".c-quantity"), "78");
  assert.equal(await stockRow(page, "META").locator(".c-quantity").textContent(), "4,321");
});

for (const [hash, rows] of [
  ["#/", "#tape-body tr"],
  ["#/orders", "#orders-body tr"],
]) {
  live(
    `a trade leaves the rows at ${hash} that are there as they are`,
    async (page, feed) => {
      const { order } = await madeUp("NVDA", 5);
      feed.send("trades", { trades: [order] }, "1");
      await says(page.locator(rows).first(), "NVDA");
      const link = page.locator(rows).first().getByRole("link").first();
      await link.evaluate((node) => {
        node.focus();
        window.held = node;
      });
      const next = { ...order, name: "META", order_num: order.order_num + 1 };
      feed.send("trades", { trades: [next] }, "2");
      await says(page.locator(rows).first(), "META");
      await says(page.locator(rows).nth(1), "NVDA");
      assert.ok(await page.evaluate(() => document.activeElement === window.held));
    },
    hash,
  );
}

live(
  "thousands of changes at once are listed at once",
  async (page, feed) => {
    await page.evaluate(() => {
      window.listings = 0;
      const note = () => (window.listings += 1);
      const events = document.getElementById("events");
      // A microtask would see many of them as one.
      events.replaceChildren = (...lines) => {
        note();
        return Element.prototype.replaceChildren.apply(events, lines);
      };
    });
    const told = { kind: "price", name: "AAPL", version: 0, timestamp_ms: Date.now() };
    const change = (number) => ({ ...told, change_number: number });
    const changes = Array.from({ length: 2000 }, (_, i) => change(i + 1));
    feed.send("changes", { changes }, "1");
    await says(page.locator("#events"), "AAPL: price");
    assert.ok((await page.evaluate(() => window.listings)) < 5);
  },
  "#/cluster",
);

live("however long sorting takes, most of the time is left", async (page, feed) => {
  await page.getByRole("button", { name: "Volume" }).click();
  await page.evaluate(() => {
    const sort = Array.prototype.sort;
    window.sortings = 0;
    Array.prototype.sort = function (...rest) {
      const end = performance.now() + 100;
      while (performance.now() < end);
      window.sortings += 1;
      return sort.apply(this, rest);
    };
  });
  const { stock } = await madeUp("META", 1);
  let version = stock.version;
  const began = performance.now();
  await until(() => {
    version += 1;
    feed.send("stocks", { stocks: [{ ...stock, version, volume: version }] }, "1");
    return performance.now() - began > 3000;
  }, "three seconds");
  // Each takes a tenth of a second, and is followed by a rest of four.
  const sortings = await page.evaluate(() => window.sortings);
  assert.ok(sortings > 0 && sortings < 10, `${sortings}`);
  feed.send("stocks", { stocks: [{ ...stock, version: version + 1, volume: 1e9 }] }, "2");
  await says(page.locator("#market-table tbody tr:not(.spacer)").first(), "META");
});

live("a halted stock says so however long its name is, on a telephone, too", async (page, feed) => {
  const name = "A".repeat(255);
  const stock = { name, price: 1, quantity: 1, volume: 0, version: 1, halted: true };
  feed.send("stocks", { stocks: [stock] }, "1");
  await page.setViewportSize({ width: 360, height: 740 });
  const cell = page.locator("#market-table th.c-name", { hasText: name });
  await says(cell, "Halted");
  const isInside = (node) => {
    const [badge, room] = [node.querySelector(".halted"), node].map((each) =>
      each.getBoundingClientRect(),
    );
    return badge.left >= room.left && badge.right <= room.right;
  };
  assert.ok(await cell.evaluate(isInside));
});

live("orders that the stream left out are asked for", async (page, feed) => {
  const first = await stage.cluster.trade("AMZN", 1);
  await stage.cluster.trade("AMZN", 2);
  await stage.cluster.trade("AMZN", 3);
  const { data } = await stage.cluster.ask(`/orders/${first + 2}`);
  feed.send("trades", { trades: [data] }, "1");
  for (const number of [first, first + 1, first + 2]) await tape(page, number).waitFor();
  const stock = (await stage.cluster.ask("/stocks/AMZN")).data;
  const shown = stock.quantity.toLocaleString("en-GB");
  await says(stockRow(page, "AMZN").locator(".c-quantity"), shown);
});

live("a stream that breaks is taken up where it was", async (page, feed) => {
  const { order } = await madeUp("GOOGL", 2);
  feed.send("trades", { trades: [order] }, "7.1.2.3");
  await tape(page, order.order_num).waitFor();
  feed.refusals = 1;
  feed.end();
  await says(page.locator("#link-text"), "Updated each second");
  await says(page.locator("#link-text"), "Live");
  assert.deepEqual(feed.cursors, ["", "7.1.2.3"]);
  feed.send("trades", { trades: [order] }, "7.1.2.3");
  const next = { ...order, order_num: order.order_num + 1, version: order.version + 1 };
  feed.send("trades", { trades: [next] }, "8.1.2.3");
  await tape(page, next.order_num).waitFor();
  assert.equal(await tape(page, order.order_num).count(), 1);
});

live("a reset reloads everything", async (page, feed) => {
  const { stock } = await madeUp("FishCo", 1);
  const { order } = await madeUp("FishCo", 1);
  feed.send("trades", { trades: [order] }, "1");
  await tape(page, order.order_num).waitFor();
  feed.send("reset", {}, "0");
  await until(async () => !(await tape(page, order.order_num).count()), "the order to go");
  const shown = stock.quantity.toLocaleString("en-GB");
  await says(stockRow(page, "FishCo").locator(".c-quantity"), shown);
});

live(
  "an election is seen when the stream tells of it",
  async (page, feed) => {
    const tile = page.locator('[data-group="order"] .tile-value');
    const { leaderId, term } = await stage.cluster
      .leader()
      .then((row) => ({ leaderId: row.id, term: row.term }));
    await says(tile, `order-${leaderId}`);
    await page.route("**/cluster", (route) => route.abort());
    feed.send("leader", { group: "order", leader_id: null, term: term + 1 }, "1");
    await says(tile, "None: electing");
    await says(page.locator("#banner"), "The order service has no leader");
    feed.send("leader", { group: "order", leader_id: 2, term: term + 1 }, "2");
    await says(tile, "order-2");
    await says(page.locator("#events"), `order-2 leads the order group, term ${term + 1}`);
    assert.equal(await page.locator("#banner").textContent(), "");
  },
  "#/cluster",
);

test("the front-end's own stream is taken", async (context) => {
  if (!(await stage.cluster.has("/events"))) return context.skip("no /events here");
  const page = await stage.visit();
  await says(page.locator("#link-text"), "Live");
  const number = await stage.cluster.trade("META", 3, "sell");
  await tape(page, number).waitFor();
  await page.getByRole("link", { name: "Cluster" }).click();
  const leader = await stage.cluster.leader();
  return says(page.locator('[data-group="order"] .tile-value'), `order-${leader.id}`);
});
