/** What the console decides without a browser: numbers without a gap, versions, addresses. */

import assert from "node:assert/strict";
import { test } from "node:test";

const STATIC = "../../twstock/web/static/js";
const { Stocks, HISTORY_MAX } = await import(`${STATIC}/model/stocks.js`);
const { Trades, TRADES_MAX } = await import(`${STATIC}/model/trades.js`);
const { Members } = await import(`${STATIC}/model/members.js`);
const { Changes, CHANGES_MAX } = await import(`${STATIC}/model/changes.js`);
const change = await import(`${STATIC}/model/change.js`);
const { bodyOf, fieldOf } = await import(`${STATIC}/model/order.js`);
const { adminLink, parseRoute, ticketLink } = await import(`${STATIC}/route.js`);
const { duration } = await import(`${STATIC}/format.js`);

const stock = (fields) => ({
  name: "A",
  price: 1,
  quantity: 100,
  volume: 0,
  version: 0,
  ...fields,
});
const order = (number, version, fields) => ({
  order_num: number,
  name: "A",
  type: "buy",
  quantity: 10,
  price: 1,
  version,
  ...fields,
});

test("a trade changes its stock once, however often and late it is told", () => {
  const stocks = new Stocks();
  stocks.take([stock({ version: 3 })]);
  for (const version of [4, 4, 3, 5]) stocks.trade(order(version, version));
  stocks.take([stock({ version: 2, quantity: 1 })]);
  const { quantity, volume, version, history } = stocks.get("A");
  assert.deepEqual({ quantity, volume, version }, { quantity: 80, volume: 20, version: 5 });
  assert.deepEqual(history, [100, 90, 80]);
  assert.equal(stocks.stale.size, 0);
});

test("a stock of which a change was missed is stale until it is told anew", () => {
  const stocks = new Stocks();
  stocks.take([stock()]);
  stocks.trade(order(2, 2));
  stocks.trade(order(1, 1, { name: "Unknown" }));
  assert.deepEqual([...stocks.stale.keys()], ["A", "Unknown"]);
  assert.equal(stocks.get("A").quantity, 100);
  stocks.take([stock({ version: 1, quantity: 90 }), stock({ name: "Unknown" })]);
  assert.deepEqual([...stocks.stale.keys()], ["A", "Unknown"], "not shown yet");
  stocks.take([stock({ version: 2, quantity: 80 }), stock({ name: "Unknown", version: 1 })]);
  assert.equal(stocks.stale.size, 0);
});

test("a stock is stale until its newest version is told", () => {
  const stocks = new Stocks();
  stocks.take([stock()]);
  for (const version of [2, 5, 3]) stocks.expect("A", version);
  assert.equal(stocks.stale.get("A"), 5);
  stocks.take([stock({ version: 4 })]);
  assert.equal(stocks.stale.size, 1);
  stocks.take([stock({ version: 5 })]);
  stocks.expect("A", 5);
  assert.equal(stocks.stale.size, 0);
});

test("a halt is seen although nothing traded", () => {
  const stocks = new Stocks();
  const told = [];
  stocks.changed.listen(({ stock: changed }) => told.push(changed.halted));
  stocks.take([stock()]);
  stocks.take([stock({ version: 1, halted: true })]);
  stocks.take([stock({ version: 2 })]);
  assert.deepEqual(told, [true, false]);
});

test("past quantities follow from orders, as far as no version is missing", () => {
  const stocks = new Stocks();
  stocks.take([stock({ version: 5, quantity: 60 })]);
  const sold = { type: "sell", quantity: 5 };
  stocks.recall([order(1, 2), order(2, 4), order(3, 5, sold)]);
  assert.deepEqual(stocks.get("A").history, [65, 55, 60]);
  assert.deepEqual(stocks.get("A").last, { side: "sell", quantity: 5 });
});

test("a stock that is known before its order is recalled once the order has come", () => {
  const stocks = new Stocks();
  stocks.take([stock({ version: 2, quantity: 80 })]);
  stocks.take([stock({ version: 3, quantity: 70 })]);
  stocks.recall([order(1, 1)]);
  assert.deepEqual(stocks.get("A").history, [80, 70]);
  for (let times = 0; times < 2; times += 1) {
    stocks.recall([order(1, 1), order(2, 2), order(3, 3)]);
    assert.deepEqual(stocks.get("A").history, [100, 90, 80, 70]);
  }
  assert.deepEqual(stocks.get("A").last, { side: "buy", quantity: 10 });
});

test("a history keeps the newest quantities", () => {
  const stocks = new Stocks();
  stocks.take([stock({ quantity: 10_000 })]);
  for (let version = 1; version <= 2 * HISTORY_MAX; version += 1) {
    stocks.trade(order(version, version, { quantity: 1 }));
  }
  const { history } = stocks.get("A");
  assert.equal(history.length, HISTORY_MAX);
  assert.equal(history.at(-1), 10_000 - 2 * HISTORY_MAX);
});

test("orders are taken in their sequence, each once, and a gap is noticed", () => {
  const trades = new Trades();
  const came = [];
  trades.came.listen((orders) => came.push(...orders.map((each) => each.order_num)));
  trades.begin(10);
  assert.ok(trades.take([order(9), order(10), order(11)]));
  assert.ok(trades.take([order(11), order(12)]));
  assert.ok(!trades.take([order(14)]));
  assert.equal(trades.last, 12);
  assert.deepEqual(came, [11, 12]);
  assert.equal(trades.between(10, 12), null);
  assert.deepEqual(
    trades.between(11, 12).map((each) => each.order_num),
    [12, 11],
  );
});

test("that there is no order is known once the first ones were asked for", () => {
  const trades = new Trades();
  assert.ok(!trades.isKnown);
  trades.begin(0);
  assert.ok(trades.isKnown);
});

test("no more orders are kept than the limit", () => {
  const trades = new Trades();
  trades.take(Array.from({ length: 3 * TRADES_MAX }, (_, i) => order(i + 1)));
  assert.equal(trades.newest(Infinity).length, TRADES_MAX);
  assert.equal(trades.newest(1)[0].order_num, 3 * TRADES_MAX);
});

test("a change is said in words that make sense before it is typed, too", () => {
  const nothing = { name: "", price: "", quantity: "" };
  const said = (kind, typed) => change.KINDS[kind].say({ ...nothing, ...typed }).trim();
  assert.deepEqual(
    Object.keys(change.KINDS).map((kind) => said(kind, {})),
    ["Set the price", "Add shares", "Halt trading", "Resume trading", "Add the stock"],
  );
  assert.equal(said("price", { name: "A" }), "Set the price of A");
  assert.equal(said("price", { price: "2.50" }), "Set the price to 2.50");
  assert.equal(said("restock", { name: "A" }), "Add shares of A");
  assert.equal(said("restock", { quantity: "3" }), "Add 3");
  assert.equal(said("restock", { name: "A", quantity: "3" }), "Add 3 A");
  assert.equal(said("halt", { name: "A" }), "Halt trading in A");
});

test("of a leadership only newer terms are news", () => {
  const members = new Members();
  const row = (id, role, term) => ({ service: "order", id, role, term, alive: true });
  members.take([row(1, "follower", 2), row(3, "leader", 2)]);
  assert.deepEqual(members.events, []);
  members.lead("order", 2, 1);
  assert.deepEqual(members.leads.get("order"), { leaderId: 3, term: 2 });
  members.lead("order", 2, 3);
  members.take([row(2, "leader", 3), row(3, "leader", 2)]);
  assert.equal(members.events.length, 1);
  assert.match(members.events[0].text, /^order-2 leads the order group, term 3$/);
  assert.ok(members.isLeader(members.rows[0]) && !members.isLeader(members.rows[1]));
  assert.deepEqual(
    members.rows.map((each) => members.stateOf(each)),
    ["leader", "former"],
  );
  members.lead("order", null, 4);
  assert.deepEqual(
    members.rows.map((each) => members.stateOf(each)),
    ["former", "former"],
  );
});

test("a quantity goes to the API as it was typed", () => {
  const body = (quantity) => bodyOf({ name: 'a"b', quantity, type: "buy" });
  assert.equal(
    body(" 9007199254740993 "),
    '{"name":"a\\"b","quantity":9007199254740993,"type":"buy"}',
  );
  for (const typed of ["", "1.5", "1e3", "01", "+1", "x", "0x10"]) {
    assert.equal(JSON.parse(body(typed)).quantity, typed);
  }
  assert.equal(JSON.parse(body("-3")).quantity, -3);
});

test("each refusal of an order is said at its field", () => {
  const fields = {
    "invalid transaction type": "type",
    "invalid stock name": "name",
    "trading in this stock is halted": "name",
    "num stocks traded should be non negative": "quantity",
    "not enough stocks left to buy": "quantity",
    "the quantity or volume of the stock would exceed 9007199254740991": "quantity",
    "name: missing": "name",
    "quantity: expected an integer": "quantity",
    "too many requests": "",
    "a page of another origin may not trade or change stocks": "",
  };
  for (const [message, field] of Object.entries(fields)) assert.equal(fieldOf(message), field);
});

test("a change goes to the API as it was typed", () => {
  const draft = { name: 'a/"b', price: " 0.30000000000000004 ", quantity: " 5 " };
  const asked = (kind) => [change.pathOf({ ...draft, kind }), change.bodyOf({ ...draft, kind })];
  assert.deepEqual(asked("add"), [
    "/admin/stocks",
    '{"name":"a/\\"b","price":"0.30000000000000004","quantity":5}',
  ]);
  const at = "/admin/stocks/a%2F%22b";
  assert.deepEqual(asked("price"), [`${at}/price`, '{"price":"0.30000000000000004"}']);
  assert.deepEqual(asked("restock"), [`${at}/restock`, '{"quantity":5}']);
  for (const kind of ["halt", "resume"]) assert.deepEqual(asked(kind), [`${at}/${kind}`, ""]);
});

test("what no request can carry is said before one is made", () => {
  const flaw = (kind, name, token) => change.flawOf({ kind, name }, token)?.field;
  assert.equal(flaw("halt", "A", ""), "token");
  for (const token of ["a b", "a\nb", "\u20AC", '"'])
    assert.equal(flaw("halt", "A", token), "token");
  assert.equal(flaw("halt", "", "t"), "name");
  assert.equal(flaw("add", "", "t"), undefined, "the API says so itself");
  assert.equal(flaw("halt", "A", "aZ09-._~+/="), undefined);
});

test("each refusal of a change is said at its field", () => {
  const refusals = [
    [400, "price: expected a number of cents", "price"],
    [400, "quantity: expected an integer", "quantity"],
    [400, "name: expected 1 to 255 characters", "name"],
    [401, "expected the admin token", "token"],
    [403, "administration is off: no admin token is configured", ""],
    [404, "stock not found", "name"],
    [409, "stock exists already", "name"],
    [409, "already halted", "name"],
    [409, "not halted", "name"],
    [409, "the quantity of the stock would exceed 9007199254740991", "quantity"],
    [409, "there are as many stocks as there may be (limits.stocks_max)", ""],
  ];
  for (const [status, message, field] of refusals) {
    assert.equal(change.fieldOf(status, message), field, message);
  }
});

test("changes have no gap, and those that are missing are asked for while somebody looks", async () => {
  const rows = (first, last) =>
    Array.from({ length: last - first + 1 }, (_, i) => ({ change_number: first + i }));
  const changes = new Changes();
  let [made, asked] = [2, 0];
  const given = globalThis.fetch;
  globalThis.fetch = async (path) => {
    asked += 1;
    const { searchParams: query } = new URL(path, "http://x");
    const after = Number(query.get("after"));
    const data = rows(after + 1, Math.min(made, after + Number(query.get("limit"))));
    return Response.json({ data, next: null, last: made });
  };
  try {
    changes.heard({ change_number: 2 });
    assert.equal(asked, 0, "nobody looks");
    await changes.watch();
    assert.deepEqual([changes.last, asked], [2, 2]);
    changes.heard({ change_number: 3 });
    changes.heard({ change_number: 2 });
    assert.deepEqual([changes.last, asked], [3, 2]);
    made = 5;
    changes.heard({ change_number: 5 });
    made = CHANGES_MAX + 50;
    // It comes while an answer is on its way that does not have it.
    changes.heard({ change_number: made });
    await changes.refresh();
    assert.equal(changes.last, made);
    assert.equal(changes.rows.length, CHANGES_MAX);
    const numbers = changes.rows.map((row) => row.change_number);
    assert.deepEqual(
      numbers,
      rows(51, made).map((row) => row.change_number),
    );
    // Another market, with fewer; what was heard of the one before never comes.
    made = 1;
    asked = 0;
    await changes.refresh();
    assert.deepEqual([changes.last, changes.rows.length, asked], [1, 1, 2]);
    changes.heard({ change_number: 9 });
    await changes.refresh();
    assert.ok(asked <= 6, "it does not ask without end");
    changes.clear();
    await changes.refresh();
    assert.equal(changes.last, 1);
  } finally {
    globalThis.fetch = given;
  }
});

test("any name of a stock survives the address", () => {
  for (const name of ["A", "a/b", "100%", "<b>", "\u20AC ?#&"]) {
    const route = parseRoute(ticketLink(name));
    assert.deepEqual([route.page, route.argument], ["ticket", name]);
    const administered = parseRoute(adminLink(name));
    assert.deepEqual([administered.page, administered.argument], ["admin", name]);
  }
  assert.equal(parseRoute("").page, "market");
  assert.equal(parseRoute("#/orders?before=51").query.get("before"), "51");
  assert.equal(parseRoute("#/orders/42").page, "order");
  assert.equal(parseRoute("#/ticket/%").argument, "%");
  assert.equal(parseRoute("#/nowhere").page, "lost");
});

test("a duration has its two largest units", () => {
  assert.deepEqual([7.9, 60, 3700, 90_000, null].map(duration), [
    "7 s",
    "1 min 0 s",
    "1 h 1 min",
    "1 d 1 h",
    "\u2013",
  ]);
});
