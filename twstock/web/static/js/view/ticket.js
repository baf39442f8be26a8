/**
 * The ticket: an order is filled in, sent under a key of its own, and answered.
 *
 * One draft trades at most once. After its answer the button cannot trade again, however often it
 * is pressed, until the draft is changed or a new order is begun.
 */

import { byId, element, setAttribute, setText } from "../dom.js";
import { count, NOTHING, price } from "../format.js";
import { fieldOf, forget, keep, kept, placeOrder } from "../model/order.js";
import { newKey, Submission } from "../model/submission.js";
import { orderLink } from "../route.js";
import { complain, disable, onceAtATime, showAskingAgain, showOutcome, suggest } from "./form.js";

const FIELDS = ["type", "name", "quantity"];

/** The form; `onTraded` is called with the number of each order that was executed. */
export class Ticket {
  #stocks;
  #onTraded;
  #form = byId("ticket-form");
  #name = byId("ticket-name");
  #quantity = byId("ticket-quantity");
  #button = byId("ticket-submit");
  #outcome = byId("ticket-outcome");
  /** @type {Submission | null} */
  #submission = null;
  #isAnswered = false;

  /**
   * @param {import("../model/stocks.js").Stocks} stocks
   * @param {(number: number) => void} onTraded
   */
  constructor(stocks, onTraded) {
    this.#stocks = stocks;
    this.#onTraded = onTraded;
    stocks.changed.listen(({ stock }) => stock.name === this.#name.value && this.#quote());
    stocks.listed.listen(() => this.#quote());
    this.#form.addEventListener("submit", (event) => this.#submitted(event));
    this.#form.addEventListener("input", () => this.#edited());
    onceAtATime(this.#form, this.#button);
    this.#name.addEventListener("input", () =>
      suggest(byId("ticket-names"), this.#stocks, this.#name.value),
    );
    this.#takeUp();
    this.#edited();
  }

  /** Put a stock on the ticket. @param {string} name */
  choose(name) {
    if (this.#isBusy || this.#name.value === name) return;
    this.#name.value = name;
    this.#edited();
  }

  /** Focus the first field that is to be filled in. */
  focus() {
    (this.#name.value ? this.#quantity : this.#name).focus();
  }

  get #isBusy() {
    return this.#submission !== null && !this.#submission.isOver;
  }

  get #draft() {
    const type = this.#form.elements.namedItem("type").value;
    return { name: this.#name.value, quantity: this.#quantity.value, type };
  }

  /** Continue with the order that was on its way when the page was left. */
  #takeUp() {
    const left = kept();
    if (!left) return;
    this.#name.value = left.draft.name;
    this.#quantity.value = left.draft.quantity;
    this.#form.elements.namedItem("type").value = left.draft.type;
    this.#send(left.draft, left.key, true);
  }

  #edited() {
    if (this.#isBusy) return;
    if (this.#isAnswered || this.#submission) {
      this.#isAnswered = false;
      this.#submission = null;
      this.#outcome.replaceChildren();
      delete this.#outcome.dataset.state;
    }
    for (const field of FIELDS) complain(byId(`ticket-${field}`), "");
    this.#quote();
    this.#label();
  }

  #quote() {
    const stock = this.#stocks.get(this.#name.value);
    const quantity = Number(this.#quantity.value.trim() || Number.NaN);
    setText(byId("quote-price"), stock ? price(stock.price) : NOTHING);
    setText(byId("quote-quantity"), stock ? count(stock.quantity) : NOTHING);
    const value = stock && quantity > 0 ? price(stock.price * quantity) : NOTHING;
    setText(byId("quote-value"), value);
  }

  #label() {
    const { name, quantity, type } = this.#draft;
    const verb = type === "buy" ? "Buy" : "Sell";
    const asking = this.#isBusy;
    let text = [verb, quantity.trim(), name].filter(Boolean).join(" ");
    if (this.#isAnswered) text = "New order";
    if (asking) text = this.#submission.attempt > 1 ? "Asking again" : "Sending";
    setText(this.#button, text);
    this.#button.dataset.type = this.#isAnswered ? "next" : type;
    setAttribute(this.#button, "aria-disabled", asking && "true");
    for (const field of [this.#name, this.#quantity]) field.readOnly = asking;
    disable(this.#form.elements.namedItem("type"), this.#button, asking);
  }

  #submitted(event) {
    event.preventDefault();
    if (this.#isBusy) return;
    if (this.#isAnswered) {
      this.#edited();
      this.#quantity.focus();
      this.#quantity.select();
      return;
    }
    this.#send(this.#draft, newKey(), false);
  }

  #send(draft, key, isDoubtful) {
    for (const field of FIELDS) complain(byId(`ticket-${field}`), "");
    keep(draft, key);
    const tell = (submission) => submission === this.#submission && this.#show(draft, submission);
    const send = (stop) => placeOrder(draft, key, stop);
    this.#submission = new Submission(send, tell, isDoubtful);
    this.#submission.run().finally(() => forget(key));
  }

  #show(draft, submission) {
    this.#outcome.dataset.state = submission.state;
    if (submission.state === "asking") this.#showAsking(submission);
    else if (submission.state === "answered") this.#showTraded(draft, submission.answer);
    else if (submission.state === "refused") this.#showRefused(submission);
    else {
      const text = "Stopped asking. The order may have traded all the same: see Orders.";
      showOutcome(this.#outcome, text);
    }
    this.#label();
  }

  #showAsking(submission) {
    if (submission.attempt === 1) this.#outcome.replaceChildren();
    else {
      this.#outcome.dataset.state = "unknown";
      showAskingAgain(this.#outcome, submission, "it trades once");
    }
  }

  #showTraded(draft, { transaction_number: number }) {
    this.#isAnswered = true;
    const verb = draft.type === "buy" ? "Bought" : "Sold";
    const link = element("a", { href: orderLink(number) }, `Order ${count(number)}`);
    const text = `${verb} ${draft.quantity.trim()} ${draft.name}`;
    showOutcome(this.#outcome, element("strong", {}, text), link);
    this.#onTraded(number);
  }

  #showRefused({ message }) {
    const field = fieldOf(message);
    if (field) {
      this.#outcome.replaceChildren();
      delete this.#outcome.dataset.state;
      complain(byId(`ticket-${field}`), message);
      const at = { name: this.#name, quantity: this.#quantity };
      (at[field] ?? this.#form.querySelector("[name=type]:checked"))?.focus();
    } else showOutcome(this.#outcome, element("strong", {}, "Refused"), message);
  }
}
