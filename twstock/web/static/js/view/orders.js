/** All orders, page by page. Their numbers have no gap, so a page's numbers can be computed. */

import { byId, element, nextFrame, setAttribute, setText } from "../dom.js";
import { count, price } from "../format.js";
import { ask } from "../http.js";
import { orderLink, ordersLink } from "../route.js";
import { numberLink, showOrders, side, stockLink, time } from "./tape.js";

/** Orders of one page. */
export const PAGE = 50;
const RETRY_MS = 1000;

function orderRow(order) {
  const value = order.price * order.quantity;
  return element(
    "tr",
    { "data-number": order.order_num },
    element("th", { scope: "row", class: "num c-number" }, numberLink(order)),
    element("td", { class: "c-time" }, time(order)),
    element("td", { class: "c-name" }, stockLink(order)),
    element("td", { class: "c-side" }, side(order)),
    element("td", { class: "num c-quantity" }, count(order.quantity)),
    element("td", { class: "num c-price" }, price(order.price)),
    element("td", { class: "num c-value" }, price(value)),
  );
}

/** A number as it was typed, perhaps in groups of digits, as shown. @param {string} typed */
function numberOf(typed) {
  const digits = typed.replace(/\D/g, "");
  return typed === count(Number(digits)) ? digits : typed;
}

/** Shows the newest orders, live, or those before a number. */
export class OrdersPage {
  #trades;
  #before = null;
  #isShown = false;
  #timer = 0;
  /** The page not kept here that is asked for or shown. It is asked for once: it never changes. */
  #asked = "";
  #draw = nextFrame(() => this.#show());

  /** @param {import("../model/trades.js").Trades} trades */
  constructor(trades) {
    this.#trades = trades;
    trades.came.listen((orders) => {
      if (!orders.length) this.#asked = ""; // It may be another market.
      if (this.#isShown) this.#draw();
    });
    byId("orders-find").addEventListener("submit", (event) => {
      event.preventDefault();
      const number = numberOf(byId("orders-number").value.trim());
      if (number) location.hash = orderLink(number);
    });
  }

  /** Show the page that ends before a number. @param {URLSearchParams} query */
  enter(query) {
    const before = Number.parseInt(query.get("before"), 10);
    this.#before = before > 1 ? before : null;
    this.#isShown = true;
    this.#asked = "";
    byId("orders-scroller").scrollTop = 0;
    this.#draw();
  }

  /** Nobody looks any more. */
  leave() {
    this.#isShown = false;
    clearTimeout(this.#timer);
  }

  #show() {
    const total = this.#trades.last;
    const last = Math.min(total, (this.#before ?? Infinity) - 1);
    const first = Math.max(1, last - PAGE + 1);
    this.#showPager(first, last, total);
    const kept = last < 1 ? [] : this.#trades.between(first, last);
    if (kept) {
      this.#asked = "";
      showOrders(byId("orders-body"), kept, orderRow);
    } else this.#showPage(first, last);
  }

  async #showPage(first, last) {
    const asked = `${first} to ${last}`;
    if (asked === this.#asked) return;
    this.#asked = asked;
    const orders = await page(first, last);
    // Another page may have been chosen meanwhile.
    if (asked !== this.#asked) return;
    showOrders(byId("orders-body"), orders ?? [], orderRow);
    if (orders) return;
    this.#asked = "";
    clearTimeout(this.#timer);
    if (this.#isShown) this.#timer = setTimeout(this.#draw, RETRY_MS);
  }

  #showPager(first, last, total) {
    setText(byId("orders-count"), this.#trades.isKnown ? count(total) : "");
    const empty = byId("orders-empty");
    empty.hidden = total > 0 || !this.#trades.isKnown;
    setText(empty, "No order yet.");
    setText(byId("orders-range"), total ? `${count(first)} to ${count(last)}` : "");
    const newer = last + PAGE + 1 > total ? null : last + PAGE + 1;
    lead(byId("orders-newest"), last < total && ordersLink(null));
    lead(byId("orders-newer"), last < total && ordersLink(newer));
    lead(byId("orders-older"), first > 1 && ordersLink(first));
    lead(byId("orders-oldest"), first > 1 && ordersLink(Math.min(PAGE, total) + 1));
  }
}

/** Set where a link leads; without an address it is disabled. */
function lead(link, address) {
  setAttribute(link, "href", address);
  setAttribute(link, "aria-disabled", !address && "true");
}

/** @returns {Promise<any[] | null>} null: the connection is lost, which the feed shows */
async function page(first, last) {
  try {
    const { data } = await ask(`/orders?after=${first - 1}&limit=${last - first + 1}`);
    return data.reverse();
  } catch {
    return null;
  }
}
