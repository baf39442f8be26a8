/** Every stock, kept up to date with what the front-end sends. */

import { Signal } from "../signal.js";

/** How many quantities of a stock are kept for its sparkline. */
export const HISTORY_MAX = 60;

/**
 * @typedef {{name: string, price: number, quantity: number, volume: number, version: number,
 *   halted: boolean, history: number[], last: {side: string, quantity: number} | null}} Stock
 * `history` ends with the present quantity.
 */

/** @param {{type: string, quantity: number}} order @returns {number} what it adds to a stock */
const effect = (order) => (order.type === "buy" ? -order.quantity : order.quantity);

/**
 * The stocks. What comes twice or late changes nothing, because versions only grow. `changed`
 * signals a stock and the side of the trade that changed it, if one did; `listed` signals that
 * there are new stocks, or longer histories.
 */
export class Stocks {
  /** @type {Map<string, Stock>} */
  #found = new Map();
  /** The version at which a stock's history begins, as long as it may be extended further back. */
  #since = new Map();
  /**
   * Names of stocks that missed a change, and the version that is known to exist. They are asked
   * for until it is shown: an order may be read before lookups show it. @type {Map<string, number>}
   */
  stale = new Map();
  changed = new Signal();
  listed = new Signal();

  get size() {
    return this.#found.size;
  }

  /** @param {string} name @returns {Stock | undefined} */
  get(name) {
    return this.#found.get(name);
  }

  /** @returns {Stock[]} */
  all() {
    return [...this.#found.values()];
  }

  /** Forget everything: what comes next is another market. */
  clear() {
    this.#found.clear();
    this.#since.clear();
    this.stale.clear();
    this.listed.tell();
  }

  /** Take stocks as the API shows them. @param {any[]} rows */
  take(rows) {
    let isNew = false;
    for (const row of rows) isNew = this.#takeOne(row) || isNew;
    if (isNew) this.listed.tell();
  }

  #takeOne(row) {
    const { name, price, quantity, volume, version } = row;
    const halted = row.halted === true;
    const known = this.#found.get(name);
    if (version >= (this.stale.get(name) ?? 0)) this.stale.delete(name);
    if (!known) {
      const history = [quantity];
      if (version) this.#since.set(name, version);
      this.#found.set(name, {
        name,
        price,
        quantity,
        volume,
        version,
        halted,
        history,
        last: null,
      });
      return true;
    }
    const same = known.version === version && known.halted === halted && known.price === price;
    if (known.version > version || same) return false;
    if (known.version < version) remember(known, quantity);
    Object.assign(known, { price, quantity, volume, version, halted });
    this.changed.tell({ stock: known, side: "" });
    return false;
  }

  /** This version of a stock exists: if an older one is known, the stock is stale. */
  expect(name, version) {
    if ((this.#found.get(name)?.version ?? -1) >= version) return;
    this.stale.set(name, Math.max(version, this.stale.get(name) ?? version));
  }

  /** An order that may be old: it changes its stock only if it is newer. */
  follow(order) {
    if (order.version > (this.#found.get(order.name)?.version ?? -1)) this.trade(order);
  }

  /** An executed order changes its stock. @param {any} order - as the API shows it */
  trade(order) {
    const stock = this.#found.get(order.name);
    if (stock && order.version <= stock.version) {
      if (order.version === stock.version) this.#traded(stock, order);
      return;
    }
    if (!stock || order.version > stock.version + 1) {
      this.expect(order.name, order.version);
      return;
    }
    stock.quantity += effect(order);
    stock.volume += order.quantity;
    stock.version = order.version;
    stock.price = order.price;
    remember(stock, stock.quantity);
    this.#traded(stock, order);
  }

  #traded(stock, order) {
    stock.last = { side: order.type, quantity: order.quantity };
    this.changed.tell({ stock, side: order.type });
  }

  /** Extend histories no further back. */
  settle() {
    this.#since.clear();
  }

  /**
   * Extend histories backwards, from executed orders. A stock may be known before the order that
   * led to its state; its history is then left for the next time.
   * @param {any[]} orders - in the sequence of their numbers
   */
  recall(orders) {
    const newestFirst = [...orders].reverse();
    for (const [name, own] of grouped(newestFirst)) {
      const stock = this.#found.get(name);
      const since = this.#since.get(name);
      if (stock && own[0].version === stock.version) {
        stock.last = { side: own[0].type, quantity: own[0].quantity };
      }
      if (since && recallOne(stock, own, since)) this.#since.delete(name);
    }
    this.listed.tell();
  }
}

function remember(stock, quantity) {
  stock.history.push(quantity);
  if (stock.history.length > HISTORY_MAX) stock.history.shift();
}

/**
 * Extend a history backwards from its first quantity, as long as no version is missing.
 * @returns {boolean} whether the order that led to that quantity is known
 */
function recallOne(stock, newestFirst, since) {
  const past = [];
  let [quantity, version] = [stock.history[0], since];
  for (const order of newestFirst) {
    if (order.version > version) continue;
    if (order.version < version || past.length >= HISTORY_MAX) break;
    quantity -= effect(order);
    past.unshift(quantity);
    version -= 1;
  }
  stock.history = [...past, ...stock.history].slice(-HISTORY_MAX);
  return past.length > 0;
}

function grouped(orders) {
  const groups = new Map();
  for (const order of orders) {
    if (!groups.has(order.name)) groups.set(order.name, []);
    groups.get(order.name).push(order);
  }
  return groups;
}
