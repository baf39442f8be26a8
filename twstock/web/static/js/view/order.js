/** One order, under an address that can be shared. */

import { announce, byId, element, setText } from "../dom.js";
import { count, moment, price } from "../format.js";
import { ask, Refused } from "../http.js";
import { orderLink } from "../route.js";
import { side, stockLink } from "./tape.js";

const RETRY_MS = 1000;

/** Shows the order whose number the address has. */
export class OrderPage {
  #number = "";
  #timer = 0;

  /** @param {string} number - as the address spells it */
  async enter(number) {
    this.#number = number;
    setText(byId("order-heading"), `Order ${number}`);
    byId("order-detail").replaceChildren(element("p", { class: "empty" }, "Asking for it"));
    await this.#ask(number);
  }

  /** Nobody looks any more. */
  leave() {
    this.#number = "";
    clearTimeout(this.#timer);
  }

  async #ask(number) {
    try {
      const { data } = await ask(`/orders/${encodeURIComponent(number)}`);
      if (number === this.#number) byId("order-detail").replaceChildren(...told(data));
    } catch (problem) {
      if (number !== this.#number) return;
      if (problem instanceof Refused && problem.status === 404) {
        const text = element("p", { class: "empty", role: "alert" }, problem.message);
        byId("order-detail").replaceChildren(text);
      } else this.#timer = setTimeout(() => this.#ask(number), RETRY_MS);
    }
  }
}

function told(order) {
  const facts = [
    ["Stock", stockLink(order)],
    ["Side", side(order)],
    ["Quantity", count(order.quantity)],
    ["Price", price(order.price)],
    ["Value", price(order.price * order.quantity)],
    ["Executed", moment(order.time_ms)],
    ["Version of the stock", count(order.version)],
  ];
  const rows = facts.map(([name, fact]) =>
    element(
      "div",
      { class: name === "Executed" ? "whole" : "" },
      element("dt", {}, name),
      element("dd", {}, fact),
    ),
  );
  return [element("dl", { class: "facts" }, ...rows), shared(order), neighbours(order)];
}

function neighbours(order) {
  const before =
    order.order_num > 1 && element("a", { href: orderLink(order.order_num - 1) }, "Previous order");
  const after = element("a", { href: orderLink(order.order_num + 1) }, "Next order");
  return element("p", { class: "neighbours" }, ...(before ? [before] : []), after);
}

function shared(order) {
  const address = new URL(orderLink(order.order_num), location.href).href;
  const field = element("input", { id: "order-link", readonly: true, value: address });
  field.addEventListener("focus", () => field.select());
  const label = element("label", { for: "order-link" }, "Link to this order");
  const box = element("div", { class: "share" }, label, field);
  // Only over HTTPS or from localhost may a page write to the clipboard.
  if (navigator.clipboard) box.append(copyButton(address));
  return box;
}

function copyButton(address) {
  const button = element("button", { type: "button", class: "quiet" }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(address);
      setText(button, "Copied");
      announce("The link is copied");
    } catch {
      byId("order-link").focus();
    }
  });
  return button;
}
