/** The changes that administrators made, while their page is shown. Their numbers have no gap. */

import { ask, askPages } from "../http.js";
import { Signal } from "../signal.js";

const PAGE = 1000;
/** How many of the newest are kept. */
export const CHANGES_MAX = 100;

/** `came` signals that the rows have changed. */
export class Changes {
  /** Rows as `GET /admin/changes` has them, the oldest first. @type {any[]} */
  rows = [];
  came = new Signal();
  #isWatched = false;
  #highestHeard = 0;
  #asking = null;

  /** The number of the last known change; 0: none. */
  get last() {
    return this.rows.at(-1)?.change_number ?? 0;
  }

  /** The page is shown: ask for what came meanwhile, and from now on for what is missing. */
  watch() {
    this.#isWatched = true;
    return this.refresh();
  }

  /** The page is not shown any more. */
  leave() {
    this.#isWatched = false;
  }

  /** Forget everything: what comes next is another market. */
  clear() {
    this.rows = [];
    this.#highestHeard = 0;
    this.came.tell();
    if (this.#isWatched) this.refresh();
  }

  /** Take changes in sequence; those that are known change nothing. @param {any[]} rows */
  take(rows) {
    const news = rows.filter((row) => row.change_number > this.last);
    if (!news.length) return;
    this.rows = [...this.rows, ...news].slice(-CHANGES_MAX);
    this.came.tell();
  }

  /** A change was made: take it, or ask for it and those missing before it. @param {any} change */
  heard(change) {
    this.#highestHeard = Math.max(this.#highestHeard, change.change_number);
    if (change.change_number === this.last + 1) this.take([change]);
    else if (this.#isWatched && this.#highestHeard > this.last) this.refresh();
  }

  /** Ask for what is new. @returns {Promise<void>} never rejects: the feed shows lost contact */
  refresh() {
    this.#asking ??= this.#ask().finally(() => {
      this.#asking = null;
    });
    return this.#asking;
  }

  async #ask() {
    try {
      // A change that is made while a page is on its way may not be on it.
      for (let isBehind = true; isBehind;) {
        const before = this.last;
        await this.#askForNewest();
        isBehind = this.last > before && this.#highestHeard > this.last;
      }
    } catch {
      // The next change asks again, or the next time that the page is shown.
    }
  }

  async #askForNewest() {
    const before = this.last;
    const { last } = await ask("/admin/changes?limit=1");
    if (last < before) this.rows = []; // Another market.
    const first = Math.max(this.last, last - CHANGES_MAX);
    const path = (after) => `/admin/changes?after=${after}&limit=${PAGE}`;
    await askPages(path, (rows) => this.take(rows), String(first));
  }
}
