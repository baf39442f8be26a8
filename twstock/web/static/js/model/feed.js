/**
 * Brings the models up to date: by `/events` as long as it streams, else by asking each second.
 *
 * Both ways may overlap. What is told twice changes nothing, because orders have numbers without
 * a gap and stocks have versions; what was missed shows as a gap and is asked for.
 */

import { ask, askPages, Refused } from "../http.js";
import { Signal } from "../signal.js";
import { TRADES_MAX } from "./trades.js";

const POLL_MS = 1000;
const STOCKS_EVERY_MS = 15_000;
/** How long the stream may take to open before everything is asked for without it. */
const START_MS = 2000;
const REOPEN_MS = 1000;
/** A front-end whose stream never opened may have none. */
const REOPEN_NEVER_OPENED_MS = 15_000;
/**
 * How long a stream may say nothing. Nobody tells of a connection that leads nowhere, and what
 * keeps one open is not told to a page: so a market that is quiet has it opened anew, too.
 */
const SILENT_MS = 30_000;
const PAGE = 1000;
/** How many times, a second apart, it is tried to learn what came before. */
const RECALLS = 3;
/** Above this, stocks that were missed are asked for all at once. */
const STALE_MAX = 20;

/**
 * `state` is "starting", "live", "polling" or "lost", and `reason` says why it is lost;
 * `linked` tells when it has changed.
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

  /** Begin, and never end. The stream comes first: what is loaded later cannot miss a change. */
  start() {
    this.#open();
    this.#again(START_MS);
  }

  /** Stop asking while nobody looks: a stream holds one of the few connections of a browser. */
  pause() {
    this.#isPaused = true;
    clearTimeout(this.#timer);
    this.#close();
    // Who looks again sees at first what is old.
    this.#become("starting");
  }

  /** Go on where it was, unless that is too long ago. */
  async resume() {
    if (!this.#isPaused) return;
    this.#isPaused = false;
    await this.refresh();
    this.#turn();
  }

  /** Ask now for what may have happened. @returns {Promise<void>} never rejects */
  refresh() {
    this.#asking ??= this.#ask().finally(() => {
      this.#asking = null;
    });
    return this.#asking;
  }

  async #turn() {
    if (this.#isStreaming && performance.now() - this.#heardAt > SILENT_MS) {
      // It is live until it does not open: the next turn sees that.
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
    // One that opens meanwhile has everything asked for once more, and is live then.
    const isStreaming = this.#isStreaming;
    try {
      if (!this.#isLoaded || !this.#isStreaming) await this.#look();
      // What was loaded when a reset came was of another market, or is forgotten.
      while (!this.#isLoaded) await this.#load();
      await this.#catchUp();
      await this.#askForStale();
      this.#become(isStreaming && this.#isStreaming ? "live" : "polling");
    } catch (problem) {
      // Who does not answer at all may come back as another: begin anew then.
      if (!(problem instanceof Refused)) this.#isLoaded = false;
      this.#become("lost", problem instanceof Refused ? problem.message : "");
    }
  }

  /**
   * How the members are. When more orders were missed than are kept, everything is loaded anew:
   * to be told of each of them could take hours.
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

  /** Everything that the pages show at first. */
  async #load() {
    const last = this.#members.lastTransaction;
    if (last !== null && last < this.#trades.last) {
      this.#forget();
      this.#members.take(this.#members.rows);
    }
    const resets = this.#resets;
    await this.#askForStocks();
    // Behind no order all are new, from the first one on.
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

  /** The orders that are new since the last one known, and what they did to stocks. */
  async #catchUp() {
    const path = (after) => `/orders?after=${after}&limit=${PAGE}`;
    await askPages(path, (orders) => this.#heard(orders), String(this.#trades.last));
    if (this.#trades.last >= this.#highestHeard) this.#highestHeard = 0;
  }

  /** What was loaded has come about by the orders that are kept, and a few that come late. */
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
      // Who knows of an order may be told of its new stock a moment before lookups show it.
      if (problem.status !== 404) throw problem;
    }
  }

  #heard(orders) {
    if (!orders.length) return;
    const known = this.#trades.last;
    if (this.#isLoaded && this.#trades.take(orders)) {
      const news = orders.filter((order) => order.order_num > known);
      // Right after loading most are long past, and no news.
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
    // What happened before the stream began is asked for once; then the stream alone tells. One
    // that goes on from nowhere tells of no stock that changed since it was loaded.
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

  /** What comes next is another market, whose versions and numbers tell nothing of this one's. */
  #forget() {
    this.#stocks.clear();
    this.#changes.clear();
    this.#members.forget();
    this.#highestHeard = 0;
  }
}
