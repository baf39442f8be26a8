/** An order as the ticket sends it, and kept over a reload of the page while it is on its way. */

import { ask, Stranger } from "../http.js";
import { typedInteger } from "./submission.js";

const STORED = "twstock.submission";

/** @typedef {{name: string, quantity: string, type: string}} Draft - as it was typed */

/** The body of an order. @param {Draft} draft */
export function bodyOf({ name, quantity, type }) {
  const terms = `"name":${JSON.stringify(name)},"quantity":${typedInteger(quantity)}`;
  return `{${terms},"type":${JSON.stringify(type)}}`;
}

/** Place an order under a key. @param {Draft} draft @param {string} key @param {AbortSignal} signal */
export async function placeOrder(draft, key, signal) {
  const headers = { "Content-Type": "application/json", "Idempotency-Key": key };
  const placed = await ask("/orders", { method: "POST", headers, body: bodyOf(draft), signal });
  if (!Number.isInteger(placed?.data?.transaction_number)) throw new Stranger();
  return placed;
}

/** The field that a refusal is about: name, quantity or type; empty: none of them. */
export function fieldOf(message) {
  const named = /^(name|quantity|type): /.exec(message);
  if (named) return named[1];
  if (/transaction type/.test(message)) return "type";
  if (/stock name|halted/.test(message)) return "name";
  return /stocks (traded|left)|quantity/.test(message) ? "quantity" : "";
}

/** Keep an order that is on its way. @param {Draft} draft @param {string} key */
export function keep(draft, key) {
  try {
    sessionStorage.setItem(STORED, JSON.stringify({ draft, key }));
  } catch {
    // A browser that stores nothing forgets the key with the page.
  }
}

/** Forget the order if it is still that with this key: it is over. @param {string} key */
export function forget(key) {
  try {
    if (kept()?.key === key) sessionStorage.removeItem(STORED);
  } catch {
    // As above.
  }
}

/** What was under way when the page was left. @returns {{draft: Draft, key: string} | null} */
export function kept() {
  try {
    const { draft, key } = JSON.parse(sessionStorage.getItem(STORED));
    // Another version of the console may have stored it in another form.
    const texts = [draft.name, draft.quantity, draft.type, key];
    return texts.every((text) => typeof text === "string") ? { draft, key } : null;
  } catch {
    return null;
  }
}
