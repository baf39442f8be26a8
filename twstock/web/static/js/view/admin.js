/**
 * Administration: a change is filled in, asked for under a key of its own, and answered; below
 * are the changes that were made. The token is not stored: it is gone with the page.
 */

import { byId, element, nextFrame, setAttribute, setText } from "../dom.js";
import { clock, count, NOTHING, price } from "../format.js";
import { fieldOf, flawOf, KINDS, makeChange } from "../model/change.js";
import { newKey, Submission } from "../model/submission.js";
import { adminLink } from "../route.js";
import { complain, disable, onceAtATime, showAskingAgain, showOutcome, suggest } from "./form.js";

const INPUTS = ["token", "name", "price", "quantity"];
const KIND_WORDS = {
  price: "Price",
  restock: "Restock",
  halt: "Halt",
  resume: "Resume",
  add: "New stock",
};

const input = (field) => byId(`admin-${field}`);

/** The page; `onChanged` is called when a change was made. */
export class AdminPage {
  #stocks;
  #changes;
  #onChanged;
  #form = byId("admin-form");
  #button = byId("admin-submit");
  #outcome = byId("admin-outcome");
  /** @type {Submission | null} */
  #submission = null;
  #isAnswered = false;
  #list = nextFrame(() => this.#showChanges());

  /**
   * @param {import("../model/stocks.js").Stocks} stocks
   * @param {import("../model/changes.js").Changes} changes
   * @param {() => void} onChanged
   */
  constructor(stocks, changes, onChanged) {
    this.#stocks = stocks;
    this.#changes = changes;
    this.#onChanged = onChanged;
    stocks.changed.listen(({ stock }) => stock.name === input("name").value && this.#quote());
    stocks.listed.listen(() => this.#quote());
    changes.came.listen(() => this.#list());
    this.#form.addEventListener("submit", (event) => this.#submitted(event));
    this.#form.addEventListener("input", () => this.#edited());
    onceAtATime(this.#form, this.#button);
    input("name").addEventListener("input", () =>
      suggest(byId("admin-names"), stocks, input("name").value),
    );
    this.#edited();
  }

  /** The page is shown. @param {string} name - a stock to be changed; empty: none */
  enter(name) {
    if (name && !this.#isBusy) {
      input("name").value = name;
      this.#edited();
    }
    this.#list();
    this.#changes.watch();
  }

  /** Nobody looks any more. */
  leave() {
    this.#changes.leave();
  }

  get #isBusy() {
    return this.#submission !== null && !this.#submission.isOver;
  }

  get #draft() {
    const kind = this.#form.elements.namedItem("kind").value;
    const [name, price_, quantity] = ["name", "price", "quantity"].map((at) => input(at).value);
    return { kind, name, price: price_, quantity };
  }

  #edited() {
    if (this.#isBusy) return;
    this.#isAnswered = false;
    this.#submission = null;
    this.#outcome.replaceChildren();
    delete this.#outcome.dataset.state;
    const { fields } = KINDS[this.#draft.kind];
    for (const field of ["price", "quantity"]) {
      byId(`admin-${field}-field`).hidden = !fields.includes(field);
    }
    for (const field of INPUTS) complain(input(field), "");
    this.#quote();
    this.#label();
  }

  #quote() {
    const stock = this.#stocks.get(input("name").value);
    setText(byId("admin-now-price"), stock ? price(stock.price) : NOTHING);
    setText(byId("admin-now-quantity"), stock ? count(stock.quantity) : NOTHING);
    let state = NOTHING;
    if (stock) state = stock.halted ? "Halted" : "Trades";
    setText(byId("admin-now-state"), state);
  }

  #label() {
    const asking = this.#isBusy;
    let text = KINDS[this.#draft.kind].say(this.#draft).replace(/\s+/g, " ").trim();
    if (this.#isAnswered) text = "Another change";
    if (asking) text = this.#submission.attempt > 1 ? "Asking again" : "Sending";
    setText(this.#button, text);
    this.#button.dataset.type = this.#isAnswered ? "next" : "change";
    setAttribute(this.#button, "aria-disabled", asking && "true");
    for (const field of INPUTS) input(field).readOnly = asking;
    disable(this.#form.elements.namedItem("kind"), this.#button, asking);
  }

  #submitted(event) {
    event.preventDefault();
    if (this.#isBusy) return;
    if (this.#isAnswered) {
      this.#edited();
      input("name").focus();
      input("name").select();
      return;
    }
    const [draft, token, key] = [this.#draft, input("token").value.trim(), newKey()];
    const flaw = flawOf(draft, token);
    if (flaw) this.#complain(flaw.field, flaw.message);
    else {
      const tell = (submission) => submission === this.#submission && this.#show(draft, submission);
      this.#submission = new Submission((stop) => makeChange(draft, token, key, stop), tell);
      this.#submission.run();
    }
  }

  #show(draft, submission) {
    this.#outcome.dataset.state = submission.state;
    if (submission.state === "asking") this.#showAsking(submission);
    else if (submission.state === "answered") this.#showChanged(draft, submission.answer);
    else if (submission.state === "refused") this.#showRefused(submission);
    else {
      const text = "Stopped asking. The change may have been made all the same: see below.";
      showOutcome(this.#outcome, text);
      if (submission.isOver) this.#changes.refresh();
    }
    this.#label();
  }

  #showAsking(submission) {
    if (submission.attempt === 1) this.#outcome.replaceChildren();
    else {
      this.#outcome.dataset.state = "unknown";
      showAskingAgain(this.#outcome, submission, "it is made once");
    }
  }

  #showChanged(draft, { change_number: number, stock }) {
    this.#isAnswered = true;
    const text = `${KIND_WORDS[draft.kind]}: ${stock.name}`;
    showOutcome(this.#outcome, element("strong", {}, text), `Change ${count(number)}`);
    this.#stocks.take([stock]);
    this.#changes.refresh();
    this.#onChanged();
  }

  #showRefused({ status, message }) {
    const field = fieldOf(status, message);
    if (field) this.#complain(field, message);
    else showOutcome(this.#outcome, element("strong", {}, "Refused"), message);
  }

  #complain(field, message) {
    this.#outcome.replaceChildren();
    delete this.#outcome.dataset.state;
    complain(input(field), message);
    input(field).focus();
  }

  #showChanges() {
    const newest = [...this.#changes.rows].reverse();
    setText(byId("changes-count"), count(this.#changes.last));
    byId("changes-empty").hidden = newest.length > 0;
    byId("changes-body").replaceChildren(...newest.map(changeRow));
  }
}

function changeRow(change) {
  const link = element("a", { href: adminLink(change.name) }, change.name);
  return element(
    "tr",
    { "data-number": change.change_number },
    element("th", { scope: "row", class: "num c-number" }, count(change.change_number)),
    element("td", { class: "c-time" }, clock(change.timestamp_ms)),
    element("td", { class: "c-kind" }, KIND_WORDS[change.kind] ?? change.kind),
    element("td", { class: "c-name" }, link),
    element("td", { class: "num c-price" }, change.price == null ? NOTHING : price(change.price)),
    element("td", { class: "num c-quantity" }, count(change.quantity)),
  );
}
