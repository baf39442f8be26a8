/** The newest executed orders. Their numbers are 1, 2, 3, ... without a gap. */

import { Signal } from "../signal.js";

/** How many are kept here; older ones are asked for when somebody looks at them. */
export const TRADES_MAX = 1000;

/** `came` signals orders that are new, in the sequence of their numbers. */
export class Trades {
  /** @type {any[]} */
  #newest = [];
  /** The highest number that is known here. */
  last = 0;
  /** Whether that is known at all; until then nothing says that there are no orders. */
  isKnown = false;
  came = new Signal();

  /** Start anew after an order. @param {number} after */
  begin(after) {
    this.#newest = [];
    this.last = after;
    this.isKnown = true;
    this.came.tell([]);
  }

  /**
   * Take orders in the sequence of their numbers; those that are known are left out.
   * @param {any[]} orders
   * @returns {boolean} false when some before them are missing: nothing was taken
   */
  take(orders) {
    const news = orders.filter((order) => order.order_num > this.last);
    if (!news.length) return true;
    if (news[0].order_num !== this.last + 1) return false;
    this.last = news.at(-1).order_num;
    this.#newest.push(...news);
    if (this.#newest.length > TRADES_MAX) this.#newest = this.#newest.slice(-TRADES_MAX);
    this.came.tell(news);
    return true;
  }

  /** @param {number} limit @returns {any[]} the newest first */
  newest(limit) {
    return this.#newest.slice(-limit).reverse();
  }

  /**
   * The orders from one number to another, the highest first.
   * @returns {any[] | null} null when not all of them are kept here
   */
  between(first, last) {
    const start = this.last - this.#newest.length + 1;
    if (first < start || last > this.last) return null;
    return this.#newest.slice(first - start, last - start + 1).reverse();
  }
}
