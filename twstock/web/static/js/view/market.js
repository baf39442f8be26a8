/** The market: every stock, live, as rows that flash when they trade. */

import { announce, byId, element, nextFrame, setAttribute, setText } from "../dom.js";
import { count, NOTHING, price, sideMark, signed } from "../format.js";
import { ticketLink } from "../route.js";
import { Rows } from "../rows.js";
import { drawSparkline } from "../sparkline.js";

const FLASH_MS = 1100;
/** Sorting very many stocks takes long: after it, they are not sorted for so many times as long. */
const REST = 4;
const COLLATOR = new Intl.Collator(undefined, { numeric: true });
/** Names are sorted once; stocks with equal numbers stay sorted by name. */
const BY = {
  price: (one, other) => one.price - other.price,
  quantity: (one, other) => one.quantity - other.quantity,
  volume: (one, other) => one.volume - other.volume,
};
const MOVES = { ArrowDown: 1, ArrowUp: -1, PageDown: Infinity, PageUp: -Infinity };
const calm = matchMedia("(prefers-reduced-motion: reduce)");

/** Shows `stocks` as a table of which only what is in sight is drawn. */
export class MarketPage {
  #stocks;
  #rows;
  #table = byId("market-table");
  #search = byId("market-search");
  /** @type {import("../model/stocks.js").Stock[]} */
  #byName = [];
  /** @type {import("../model/stocks.js").Stock[]} */
  #listed = [];
  #sort = { by: "name", down: false };
  #dirty = new Set();
  #restsUntil = 0;
  #resting = 0;
  #arrange = nextFrame(() => this.#listDue());
  #repaint = nextFrame(() => this.#paintChanged());

  /** @param {import("../model/stocks.js").Stocks} stocks */
  constructor(stocks) {
    this.#stocks = stocks;
    const body = this.#table.tBodies[0];
    this.#rows = new Rows(byId("market-scroller"), body, makeRow, (row, index) =>
      this.#fill(row, index),
    );
    stocks.listed.listen(() => {
      this.#byName = [];
      this.#arrange();
    });
    stocks.changed.listen((change) => this.#changed(change));
    this.#search.addEventListener("input", () => this.#searched());
    this.#table.tHead.addEventListener("click", (event) => this.#sorted(event));
    byId("market-scroller").addEventListener("keydown", (event) => this.#moved(event));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", this.#rows.refresh);
    this.#showSort();
  }

  #changed({ stock, side }) {
    this.#dirty.add(stock);
    if (side) flashLater(stock, side);
    this.#repaint();
  }

  /** Paint what changed and is in sight; if sorted by a number, positions may have changed, too. */
  #paintChanged() {
    if (this.#sort.by !== "name") this.#listDue();
    for (const [index, row] of this.#rows.drawn) {
      if (this.#dirty.has(this.#listed[index])) this.#fill(row, index);
    }
    this.#dirty.clear();
  }

  /** List the stocks anew after changes that the user did not ask for: now, or when it is time. */
  #listDue() {
    clearTimeout(this.#resting);
    const began = performance.now();
    if (began < this.#restsUntil) {
      this.#resting = setTimeout(this.#arrange, this.#restsUntil - began);
      return;
    }
    this.#list();
    const ended = performance.now();
    this.#restsUntil = ended + REST * (ended - began);
  }

  #searched() {
    byId("market-scroller").scrollTop = 0;
    this.#list();
  }

  #list() {
    const wanted = this.#search.value.trim().toLowerCase();
    const found = this.#sortedByName().filter((one) => one.name.toLowerCase().includes(wanted));
    const { by, down } = this.#sort;
    if (by !== "name") found.sort((one, other) => (down ? -1 : 1) * BY[by](one, other));
    else if (down) found.reverse();
    this.#listed = found;
    this.#rows.count = found.length;
    setAttribute(this.#table, "aria-rowcount", found.length + 1);
    const all = count(this.#stocks.size);
    setText(byId("market-count"), wanted ? `${count(found.length)} of ${all}` : all);
    const empty = byId("market-empty");
    empty.hidden = found.length > 0 || !this.#stocks.size;
    setText(empty, `No stock has \u201C${this.#search.value.trim()}\u201D in its name.`);
  }

  #sortedByName() {
    if (!this.#byName.length) {
      const all = this.#stocks.all();
      this.#byName = all.sort((one, other) => COLLATOR.compare(one.name, other.name));
    }
    return this.#byName;
  }

  #fill(row, index) {
    const stock = this.#listed[index];
    if (stock) fillRow(row, stock);
  }

  #sorted(event) {
    const by = event.target.closest("th")?.dataset.sort;
    if (!by) return;
    const isSame = this.#sort.by === by;
    this.#sort = { by, down: isSame ? !this.#sort.down : by !== "name" };
    this.#showSort();
    this.#list();
    announce(`Sorted by ${by}, ${this.#sort.down ? "descending" : "ascending"}`);
  }

  #showSort() {
    const direction = this.#sort.down ? "descending" : "ascending";
    for (const head of this.#table.tHead.rows[0].cells) {
      setAttribute(head, "aria-sort", head.dataset.sort === this.#sort.by && direction);
    }
  }

  /** Arrows move from stock to stock; Enter on one opens its ticket, as any link does. */
  #moved(event) {
    const last = this.#listed.length - 1;
    const from = this.#focused();
    let to = -1;
    if (event.key === "Home") to = 0;
    else if (event.key === "End") to = last;
    else if (event.key in MOVES) {
      const step = Math.max(-this.#rows.page, Math.min(this.#rows.page, MOVES[event.key]));
      to = from < 0 ? 0 : Math.max(0, Math.min(last, from + step));
    }
    if (to < 0 || last < 0 || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    this.#rows.show(to)?.querySelector("a").focus({ preventScroll: true });
  }

  #focused() {
    for (const [index, row] of this.#rows.drawn) {
      if (row.contains(document.activeElement)) return index;
    }
    return -1;
  }
}

function makeRow() {
  const badge = element("span", { class: "badge halted", hidden: true }, "Halted");
  const named = element("div", { class: "named" }, element("a"), badge);
  const name = element("th", { scope: "row", class: "c-name" }, named);
  const number = (kind) => element("td", { class: `num ${kind}` });
  const trend = element("td", { class: "c-trend" }, element("canvas", { "aria-hidden": true }));
  const numbers = ["c-price", "c-quantity", "c-last", "c-volume"].map(number);
  return element("tr", {}, name, ...numbers, trend);
}

function fillRow(row, stock) {
  const [name, cost, quantity, last, volume, trend] = row.cells;
  const [link, badge] = name.firstChild.children;
  if (link.textContent !== stock.name) unflash(row);
  setText(link, stock.name);
  setAttribute(link, "href", ticketLink(stock.name));
  setAttribute(name, "title", stock.name);
  badge.hidden = !stock.halted;
  setText(cost, price(stock.price));
  setText(quantity, count(stock.quantity));
  setText(volume, count(stock.volume));
  showLast(last, stock.last);
  drawSparkline(trend.firstChild, stock.history);
  flash(row, stock);
}

function showLast(cell, last) {
  setAttribute(cell, "data-side", last?.side ?? null);
  if (!last) setText(cell, NOTHING);
  else {
    const change = last.side === "buy" ? -last.quantity : last.quantity;
    const word = last.side === "buy" ? "bought" : "sold";
    setText(cell, `${sideMark(last.side)} ${word} ${signed(change).slice(1)}`);
  }
}

/** Stocks that traded just now, with the side and the time. */
const flashing = new Map();

function flashLater(stock, side) {
  const at = performance.now();
  flashing.set(stock, { side, at, isShown: false });
  setTimeout(() => {
    if (flashing.get(stock)?.at === at) flashing.delete(stock);
  }, FLASH_MS);
}

/** Mark a row whose stock trades: it fades, or with reduced motion just stays for a moment. */
function flash(row, stock) {
  const news = flashing.get(stock);
  if (!news || news.isShown) return;
  unflash(row);
  news.isShown = true;
  row.dataset.traded = news.side;
  row.flashEnds = setTimeout(() => unflash(row), FLASH_MS);
  if (calm.matches) return;
  const wash = getComputedStyle(row).getPropertyValue(`--${news.side}-wash`);
  row.animate([{ backgroundColor: wash }, { backgroundColor: wash, offset: 0.25 }, {}], FLASH_MS);
}

/** Unmark a row that shows another stock now, or was marked for long enough. */
function unflash(row) {
  clearTimeout(row.flashEnds);
  delete row.dataset.traded;
  for (const running of row.getAnimations()) running.cancel();
}
