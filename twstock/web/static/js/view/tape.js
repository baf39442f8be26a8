/** The latest trades, newest first, and what a row of an order looks like. */

import { byId, element, nextFrame, setText } from "../dom.js";
import { clock, count, moment, price, sideMark, sideWord } from "../format.js";
import { orderLink, ticketLink } from "../route.js";

const SHOWN = 25;

/** The side of an order as a word, a mark and a colour. */
export function side(order) {
  const mark = element("span", { "aria-hidden": true }, sideMark(order.type));
  return element(
    "span",
    { class: "side-mark", "data-side": order.type },
    mark,
    ` ${sideWord(order.type)}`,
  );
}

/** When an order was executed. */
export function time(order) {
  const at = new Date(order.time_ms);
  const told = { datetime: at.toISOString(), title: moment(order.time_ms) };
  return element("time", told, clock(order.time_ms));
}

/** The name of an order's stock, leading to its ticket. */
export function stockLink(order) {
  return element("a", { href: ticketLink(order.name), title: order.name }, order.name);
}

/** An order's number, leading to its page. */
export function numberLink(order) {
  return element("a", { href: orderLink(order.order_num) }, count(order.order_num));
}

function tapeRow(order) {
  const mark = element("span", { "aria-hidden": true }, `${sideMark(order.type)} `);
  const word = element("span", { class: "unseen" }, `${sideWord(order.type)} `);
  const quantity = { class: "num c-quantity", "data-side": order.type };
  return element(
    "tr",
    {},
    element("td", { class: "c-time" }, time(order)),
    element("td", { class: "c-name" }, stockLink(order)),
    element("td", quantity, mark, word, count(order.quantity)),
    element("td", { class: "num c-price" }, price(order.price)),
    element("td", { class: "num c-number" }, numberLink(order)),
  );
}

/**
 * Show orders, the highest number first. An order that is shown already keeps its row: with a new
 * one, the focus or a click under way would be lost.
 * @param {HTMLElement} body - the tbody
 * @param {any[]} orders
 * @param {(order: any) => any} make - a row for an order
 */
export function showOrders(body, orders, make) {
  let at = /** @type {any} */ (body.firstElementChild);
  const drop = () => {
    const row = at;
    at = row.nextElementSibling;
    row.remove();
  };
  for (const order of orders) {
    while (at && at.order.order_num > order.order_num) drop();
    if (at?.order === order) at = at.nextElementSibling;
    else body.insertBefore(Object.assign(make(order), { order }), at);
  }
  while (at) drop();
}

/**
 * Shows the newest of `trades`. While a mouse points at a row all of them stay where they are, for
 * a link that moves away cannot be clicked; how many newer trades there are is said meanwhile.
 */
export class Tape {
  #body = byId("tape-body");
  #hovers = matchMedia("(hover: hover)");
  #trades;
  /** The highest number that is shown. */
  #shown = 0;

  /** @param {import("../model/trades.js").Trades} trades */
  constructor(trades) {
    this.#trades = trades;
    const draw = nextFrame(() => this.#draw());
    trades.came.listen(draw);
    this.#body.addEventListener("pointerleave", draw);
  }

  #draw() {
    const newest = this.#trades.newest(SHOWN);
    const newer = (newest[0]?.order_num ?? 0) - this.#shown;
    const isHeld = newer >= 0 && this.#hovers.matches && this.#body.matches(":hover");
    setText(byId("tape-count"), isHeld && newer ? `${count(newer)} newer` : "");
    if (isHeld) return;
    this.#shown += newer;
    showOrders(this.#body, newest, tapeRow);
    byId("tape-empty").hidden = newest.length > 0;
  }
}
