/** What the console asks for when it has missed something: enough, and no more than it shows. */

import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";

const STATIC = "../../twstock/web/static/js";
const { Changes } = await import(`${STATIC}/model/changes.js`);
const { Feed } = await import(`${STATIC}/model/feed.js`);
const { Members } = await import(`${STATIC}/model/members.js`);
const { Stocks } = await import(`${STATIC}/model/stocks.js`);
const { Trades, TRADES_MAX } = await import(`${STATIC}/model/trades.js`);

const given = globalThis.fetch;
/** The market: the number of its last order, null while no order replica answers. */
let last;
/** The version of its one stock. */
let version;
/** The numbers behind which orders were asked for. */
let asked;
let feed;
let models;

function answer(path) {
  const { pathname, searchParams: query } = new URL(path, "http://x");
  if (pathname === "/cluster") {
    const order = { service: "order", id: 1, alive: last !== null, last_transaction: last };
    return Response.json({ data: { services: [order] } });
  }
  if (pathname === "/stocks") {
    const stock = { name: "A", price: 1, quantity: version, volume: 0, version };
    return Response.json({ data: [stock], next: null });
  }
  assert.equal(pathname, "/orders");
  const [after, limit] = [Number(query.get("after")), Number(query.get("limit"))];
  asked.push(after);
  if (last === null) {
    return Response.json({ error: { code: 503, message: "nobody leads" } }, { status: 503 });
  }
  const size = Math.max(0, Math.min(limit, last - after));
  const data = Array.from({ length: size }, (_, i) => {
    const number = after + i + 1;
    return { order_num: number, name: "A", type: "buy", quantity: 1, price: 1, version: 0 };
  });
  return Response.json({ data, next: after + size < last ? after + size : null });
}

beforeEach(() => {
  [last, version, asked] = [0, 0, []];
  globalThis.fetch = async (path) => answer(path);
  const [stocks, trades] = [new Stocks(), new Trades()];
  models = { stocks, trades, members: new Members(), changes: new Changes() };
  feed = new Feed(models);
});

afterEach(() => {
  globalThis.fetch = given;
});

test("who is not told what the last order is does not ask for all of them", async () => {
  last = null;
  await feed.refresh();
  assert.deepEqual([feed.state, models.stocks.size, asked], ["lost", 1, []]);
  last = 50_000;
  await feed.refresh();
  assert.deepEqual([feed.state, models.trades.last], ["polling", last]);
  assert.deepEqual(asked, [last - TRADES_MAX]);
});

test("what the order service does not tell for a while is not taken for another market", async () => {
  [last, version] = [50_000, 7];
  await feed.refresh();
  globalThis.fetch = () => Promise.reject(new TypeError("no connection"));
  await feed.refresh();
  globalThis.fetch = async (path) => answer(path);
  last = null;
  await feed.refresh();
  assert.equal(models.trades.last, 50_000);
  assert.equal(models.stocks.get("A").version, 7);
});

test("who has missed more orders than are shown begins anew, and else asks for each", async () => {
  last = 50_000;
  await feed.refresh();
  asked = [];
  last += TRADES_MAX;
  await feed.refresh();
  assert.deepEqual([asked, models.trades.newest(1)[0].order_num], [[50_000], last]);
  asked = [];
  last += 100 * TRADES_MAX;
  await feed.refresh();
  assert.deepEqual(asked, [last - TRADES_MAX]);
  assert.deepEqual([feed.state, models.trades.newest(1)[0].order_num], ["polling", last]);
});

/** Streams that a test has say what it likes. */
class Stream extends EventTarget {
  static opened = [];

  constructor(url) {
    super();
    this.url = url;
    Stream.opened.push(this);
  }

  close() {}

  say(kind, data, lastEventId) {
    const event = Object.assign(new Event(kind), { data: JSON.stringify(data), lastEventId });
    this.dispatchEvent(event);
  }
}

async function streamed(play) {
  globalThis.EventSource = Stream;
  Stream.opened = [];
  try {
    feed.start();
    await play();
  } finally {
    feed.pause();
    delete globalThis.EventSource;
  }
}

test("a reset forgets the stocks of the other market, whatever their versions were", () =>
  streamed(async () => {
    [last, version] = [10, 7];
    await feed.refresh();
    assert.equal(models.stocks.get("A").version, 7);
    // As many orders there, and fewer changes.
    version = 3;
    Stream.opened[0].say("reset", {}, "10.0.1.1");
    await feed.refresh();
    assert.deepEqual([models.stocks.get("A").version, models.trades.last], [3, 10]);
  }));

test("a stream that goes on from nowhere is opened before the stocks are loaded", () =>
  streamed(async () => {
    last = 10;
    await feed.refresh();
    assert.equal(models.stocks.get("A").version, 0);
    version = 1; // An administrator has changed it: no order tells of that.
    await Stream.opened[0].onopen();
    assert.equal(models.stocks.get("A").version, 1);
  }));

test("a stream that opens while everything is asked for is live when it was asked for anew", () =>
  streamed(async () => {
    last = 10;
    const asking = feed.refresh();
    const opening = Stream.opened[0].onopen();
    await asking;
    assert.equal(feed.state, "polling");
    await opening;
    assert.equal(feed.state, "live");
  }));

test("who was away is told what was missed, unless that is more than is shown", () =>
  streamed(async () => {
    last = 50_000;
    await feed.refresh();
    Stream.opened[0].say("trades", { trades: [] }, "50000.0.1.1");
    for (const missed of [1, 2 * TRADES_MAX]) {
      feed.pause();
      last += missed;
      await feed.resume();
      await feed.refresh();
    }
    const urls = Stream.opened.map((stream) => stream.url);
    assert.deepEqual(urls, ["/events", "/events?last_event_id=50000.0.1.1", "/events"]);
    assert.equal(models.trades.newest(1)[0].order_num, last);
  }));

test("a lost connection does not have everything told that was missed", () =>
  streamed(async () => {
    last = 50_000;
    await feed.refresh();
    Stream.opened[0].say("trades", { trades: [] }, "50000.0.1.1");
    globalThis.fetch = () => Promise.reject(new TypeError("no connection"));
    Stream.opened[0].onerror();
    await feed.refresh();
    assert.equal(feed.state, "lost");
    globalThis.fetch = async (path) => answer(path);
    last += 2 * TRADES_MAX;
    feed.pause();
    await feed.resume();
    const urls = Stream.opened.map((stream) => stream.url);
    assert.deepEqual([urls, feed.state], [["/events"], "polling"]);
    assert.deepEqual(asked.slice(-1), [last - TRADES_MAX]);
  }));

test("a reset while everything is loaded has all of it loaded anew", () =>
  streamed(async () => {
    [last, version] = [10, 7];
    await feed.refresh();
    const page = (name, next) =>
      Response.json({ data: [{ name, price: 1, quantity: 1, volume: 0, version: 1 }], next });
    let resets = 1;
    globalThis.fetch = async (path) => {
      if (!path.startsWith("/stocks?")) return answer(path);
      if (path.startsWith("/stocks?after=&")) return page("A", "A");
      if (resets) Stream.opened[0].say("reset", {}, "10.0.1.1");
      resets = 0;
      return page("B", null);
    };
    feed.pause();
    last += 2 * TRADES_MAX; // So that everything is loaded.
    await feed.resume();
    assert.deepEqual(
      models.stocks.all().map((stock) => stock.name),
      ["B", "A"],
    );
    assert.equal(models.trades.last, last);
  }));

test("another market's terms do not hide who leads this one", async () => {
  const row = (term, order) => ({
    service: "order",
    id: 3,
    alive: true,
    role: "leader",
    term,
    ...order,
  });
  const led = (id, term) => {
    const given_ = globalThis.fetch;
    globalThis.fetch = async (path) =>
      path === "/cluster"
        ? Response.json({ data: { services: [row(term, { id, last_transaction: last })] } })
        : given_(path);
  };
  last = 10;
  led(3, 7);
  await feed.refresh();
  globalThis.fetch = () => Promise.reject(new TypeError("no connection"));
  await feed.refresh();
  globalThis.fetch = async (path) => answer(path);
  last = 2;
  led(1, 1);
  await feed.refresh();
  assert.deepEqual(models.members.leads.get("order"), { leaderId: 1, term: 1 });
});

test("a stream that is silent for long is opened anew where it was, and live until it does not open", async () => {
  const [later, now] = [globalThis.setTimeout, performance.now];
  let [time, due] = [0, null];
  globalThis.setTimeout = (run) => (due = run);
  performance.now = () => time;
  const turnAt = (ms) => {
    time = ms;
    return due();
  };
  try {
    await streamed(async () => {
      last = 10;
      await Stream.opened[0].onopen();
      Stream.opened[0].say("trades", { trades: [] }, "10.0.1.1");
      await turnAt(29_000);
      Stream.opened[0].say("trades", { trades: [] }, "10.0.1.1");
      await turnAt(58_000);
      assert.equal(Stream.opened.length, 1);
      await turnAt(60_000);
      const urls = Stream.opened.map((stream) => stream.url);
      assert.deepEqual(urls, ["/events", "/events?last_event_id=10.0.1.1"]);
      assert.equal(feed.state, "live");
      globalThis.fetch = () => Promise.reject(new TypeError("no connection"));
      await turnAt(62_000);
      assert.equal(feed.state, "lost");
      globalThis.fetch = async (path) => answer(path);
      await Stream.opened[1].onopen();
      assert.equal(feed.state, "live");
      await turnAt(63_000);
      assert.equal(Stream.opened.length, 2);
    });
  } finally {
    [globalThis.setTimeout, performance.now] = [later, now];
  }
});

test("what nobody has looked at for long is not called live", () =>
  streamed(async () => {
    await Stream.opened[0].onopen();
    feed.pause();
    assert.equal(feed.state, "starting");
    await feed.resume();
    assert.equal(feed.state, "polling");
  }));
