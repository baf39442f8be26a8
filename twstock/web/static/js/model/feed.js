/**
 * Keeps the models up to date: from `/events` as long as it streams, otherwise by polling each
 * second.
 *
 * Both ways may overlap. What comes twice changes nothing, because orders have numbers without a
 * gap and stocks have versions; what was missed shows as a gap and is asked for.
 */

import { ask, askPages, Refused } from "../http.js";
import { Signal } from "../signal.js";
import { TRADES_MAX } from "./trades.js";

const POLL_MS = 1000;
const STOCKS_EVERY_MS = 15_000;
/** How long the stream may take to open before polling begins. */
const START_MS = 2000;
const REOPEN_MS = 1000;
/** Seldom, because a front-end whose stream never opened may have none. */
const REOPEN_NEVER_OPENED_MS = 15_000;
/**
 * How long a stream may be silent before it is opened again. A dead connection causes no error,
 * and a page does not see the comments that keep one open, so this happens in a quiet market, too.
 */
const SILENT_MS = 30_000;
const PAGE = 1000;
/** How many times, a second apart, the stocks' histories are extended backwards. */
const RECALLS = 3;
/** If more stocks than this have missed a change, all stocks are asked for. */
const STALE_MAX = 20;

/**
 * `state` is "starting", "live", "polling" or "lost", and `reason` says why it is lost; `linked`
 * signals that either has changed.
 */
export class Feed {
  state = "starting";
  reason = "";
  linked = new Signal();
  #stocks;
  #trades;
  #members;
  #changes;
  #source = null;
  #lastEventId = "";
  #hasOpened = false;
  #isStreaming = false;
  #isLoaded = false;
  #recalls = 0;
  #resets = 0;
  #isPaused = false;
  #highestHeard = 0;
  #stocksAskedAt = 0;
  #reopenAt = 0;
  #heardAt = 0;
  #asking = null;
  #timer = 0;

  /**
   * @param {{stocks: import("./stocks.js").Stocks, trades: import("./trades.js").Trades,
   *   members: import("./members.js").Members, changes: import("./changes.js").Changes}} models
   */
  constructor({ stocks, trades, members, changes }) {
    this.#stocks = stocks;
    this.#trades = trades;
    this.#members = members;
    this.#changes = changes;
  }

  /** Begin. The stream is opened first, so that what is loaded after it cannot miss a change. */
  start() {
    this.#open();
    this.#again(START_MS);
  }

  /** Stop while nobody looks: a stream takes one of a browser's few connections. */
  pause() {
    this.#isPaused = true;
    clearTimeout(this.#timer);
    this.#close();
    // When somebody looks again, what is shown at first is old.
    this.#become("starting");
  }

  /** Continue from the last event, or load everything again if that is too long ago. */
  async resume() {
    if (!this.#isPaused) return;
    this.#isPaused = false;
    await this.refresh();
    this.#turn();
  }

  /** Ask now for what is new. @returns {Promise<void>} never rejects */
  refresh() {
    this.#asking ??= this.#ask().finally(() => {
      this.#asking = null;
    });
    return this.#asking;
  }

  async #turn() {
    if (this.#isStreaming && performance.now() - this.#heardAt > SILENT_MS) {
      // The state stays "live" unless it does not open again: the next turn sees that.
      this.#close();
      this.#open();
      this.#again(START_MS);
      return;
    }
    if (!this.#source && performance.now() >= this.#reopenAt) this.#open();
    if (!this.#isStreaming || !this.#isLoaded || this.#isBehind()) await this.refresh();
    this.#recall();
    this.#again();
  }

  #again(waitMs = POLL_MS) {
    clearTimeout(this.#timer);
    if (!this.#isPaused) this.#timer = setTimeout(() => this.#turn(), waitMs);
  }

  #isBehind() {
    return this.#stocks.stale.size > 0 || this.#highestHeard > this.#trades.last;
  }

  async #ask() {
    // A stream that opens meanwhile asks for everything once more, and makes the state "live".
    const isStreaming = this.#isStreaming;
    try {
      if (!this.#isLoaded || !this.#isStreaming) await this.#look();
      // If a reset came while loading, what was loaded is of another market, or forgotten.
      while (!this.#isLoaded) await this.#load();
      await this.#catchUp();
      await this.#askForStale();
      this.#become(isStreaming && this.#isStreaming ? "live" : "polling");
    } catch (problem) {
      // A front-end that does not answer at all may come back with another market: load all anew.
      if (!(problem instanceof Refused)) this.#isLoaded = false;
      this.#become("lost", problem instanceof Refused ? problem.message : "");
    }
  }

  /**
   * Ask for the members. If more orders were missed than are kept here, everything is loaded anew,
   * because to receive each of them could take hours.
   */
  async #look() {
    const { data } = await ask("/cluster");
    this.#members.take(data.services);
    const missed = this.#members.lastTransaction - this.#trades.last;
    const isFirst = !this.#isLoaded && !this.#trades.last;
    if (!isFirst && missed > TRADES_MAX) this.#beginAnew();
  }

  #beginAnew() {
    this.#lastEventId = "";
    this.#isLoaded = false;
    this.#changes.clear();
  }

  /** Load everything that the pages show at first. */
  async #load() {
    const last = this.#members.lastTransaction;
    if (last !== null && last < this.#trades.last) {
      this.#forget();
      this.#members.take(this.#members.rows);
    }
    const resets = this.#resets;
    await this.#askForStocks();
    // Otherwise all orders would be asked for, from the very first on.
    if (last === null) throw new Refused(503, "no order replica answers");
    this.#trades.begin(Math.max(0, last - TRADES_MAX));
    this.#isLoaded = resets === this.#resets;
    this.#recalls = RECALLS;
  }

  async #askForStocks() {
    this.#stocksAskedAt = performance.now();
    const path = (after) => `/stocks?after=${encodeURIComponent(after)}&limit=${PAGE}`;
    await askPages(path, (rows) => this.#stocks.take(rows), "");
  }

  /** Ask for the orders after the last known one, and apply them to the stocks. */
  async #catchUp() {
    const path = (after) => `/orders?after=${after}&limit=${PAGE}`;
    await askPages(path, (orders) => this.#heard(orders), String(this.#trades.last));
    if (this.#trades.last >= this.#highestHeard) this.#highestHeard = 0;
  }

  /** Extend histories by the orders that are kept; a few orders come late, so several times. */
  #recall() {
    if (!this.#isLoaded || !this.#recalls) return;
    this.#stocks.recall(this.#trades.newest(TRADES_MAX).reverse());
    this.#recalls -= 1;
    if (!this.#recalls) this.#stocks.settle();
  }

  async #askForStale() {
    const due = !this.#isStreaming && performance.now() - this.#stocksAskedAt > STOCKS_EVERY_MS;
    const stale = [...this.#stocks.stale.keys()];
    if (due || stale.length > STALE_MAX) await this.#askForStocks();
    else for (const name of stale) await this.#askForStock(name);
  }

  async #askForStock(name) {
    try {
      const { data } = await ask(`/stocks/${encodeURIComponent(name)}`);
      this.#stocks.take([data]);
    } catch (problem) {
      // An order for a new stock may be read a moment before lookups show the stock.
      if (problem.status !== 404) throw problem;
    }
  }

  #heard(orders) {
    if (!orders.length) return;
    const known = this.#trades.last;
    if (this.#isLoaded && this.#trades.take(orders)) {
      const news = orders.filter((order) => order.order_num > known);
      // Right after loading, most of these orders are old, and not to be shown as news.
      const isLate = this.#recalls === RECALLS;
      for (const order of news) {
        if (isLate) this.#stocks.follow(order);
        else this.#stocks.trade(order);
      }
    } else {
      this.#highestHeard = Math.max(this.#highestHeard, orders.at(-1).order_num);
    }
  }

  #become(state, reason = "") {
    if (this.state === state && this.reason === reason) return;
    this.state = state;
    this.reason = reason;
    this.linked.tell();
  }

  #open() {
    if (this.#source || this.#isPaused || typeof EventSource === "undefined") return;
    const from = this.#lastEventId && `?last_event_id=${encodeURIComponent(this.#lastEventId)}`;
    const source = new EventSource(`/events${from}`);
    this.#source = source;
    source.onopen = () => this.#opened(!from);
    source.onerror = () => this.#failed(source);
    this.#on("trades", ({ trades }) => this.#heardLive(trades));
    this.#on("stocks", ({ stocks }) => this.#stocks.take(stocks));
    this.#on("changes", ({ changes }) => changes.forEach((change) => this.#changed(change)));
    this.#on("leader", (lead) => this.#members.lead(lead.group, lead.leader_id, lead.term));
    this.#on("reset", () => this.#reset());
  }

  #on(kind, take) {
    this.#source.addEventListener(kind, (event) => {
      this.#heardAt = performance.now();
      this.#lastEventId = event.lastEventId || this.#lastEventId;
      take(JSON.parse(event.data));
    });
  }

  async #opened(isNew) {
    this.#hasOpened = true;
    this.#isStreaming = true;
    this.#heardAt = performance.now();
    // What happened before the stream began is asked for once; from then on the stream has it all.
    // A stream without a last id does not send stocks that changed since they were loaded.
    await this.#asking;
    if (isNew) this.#isLoaded = false;
    await this.refresh();
    this.#recall();
    this.#again();
  }

  #failed(source) {
    if (source !== this.#source) return;
    this.#close();
    const wait = this.#hasOpened ? REOPEN_MS : REOPEN_NEVER_OPENED_MS;
    this.#reopenAt = performance.now() + wait;
    this.refresh().then(() => this.#again());
  }

  #close() {
    this.#source?.close();
    this.#source = null;
    this.#isStreaming = false;
  }

  #heardLive(orders) {
    this.#heard(orders);
    if (this.#isBehind()) this.refresh();
  }

  #changed(change) {
    const said = { halt: "is halted", resume: "trades again", add: "is new" };
    const stock = change.name;
    if (change.kind in said) this.#members.happen(`${stock} ${said[change.kind]}`);
    else this.#members.happen(`${stock}: ${change.kind}`);
    this.#changes.heard(change);
    this.#stocks.expect(stock, change.version);
  }

  #reset() {
    this.#resets += 1;
    this.#forget();
    this.#beginAnew();
    this.refresh();
  }

  /** What comes next is another market; its versions and numbers do not continue this one's. */
  #forget() {
    this.#stocks.clear();
    this.#changes.clear();
    this.#members.forget();
    this.#highestHeard = 0;
  }
}
