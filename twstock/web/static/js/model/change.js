/** A change of a stock, as an administrator asks for it. */

import { ask, Stranger } from "../http.js";
import { typedInteger } from "./submission.js";

const TOKEN = /^[A-Za-z0-9\-._~+/=]+$/;

/**
 * The kinds of changes: which fields each has besides the stock's name, and how to say it.
 * @type {Record<string, {fields: string[], say: (draft: Draft) => string}>}
 */
export const KINDS = {
  price: {
    fields: ["price"],
    say: ({ name, price }) => `Set the price${typed("of", name)}${typed("to", price)}`,
  },
  restock: {
    fields: ["quantity"],
    say: ({ name, quantity }) =>
      quantity && name
        ? `Add ${quantity} ${name}`
        : `Add ${quantity || "shares"}${typed("of", name)}`,
  },
  halt: { fields: [], say: ({ name }) => `Halt trading${typed("in", name)}` },
  resume: { fields: [], say: ({ name }) => `Resume trading${typed("in", name)}` },
  add: { fields: ["price", "quantity"], say: ({ name }) => `Add the stock ${name}` },
};

/** A word and what was typed; empty if nothing was. @param {string} word @param {string} text */
function typed(word, text) {
  return text.trim() && ` ${word} ${text}`;
}

/** @typedef {{kind: string, name: string, price: string, quantity: string}} Draft - as it was typed */

/** The body of a change; empty: it has none. @param {Draft} draft */
export function bodyOf({ kind, name, price, quantity }) {
  const terms = [];
  if (kind === "add") terms.push(`"name":${JSON.stringify(name)}`);
  for (const field of KINDS[kind].fields) {
    const isPrice = field === "price";
    terms.push(`"${field}":${isPrice ? JSON.stringify(price.trim()) : typedInteger(quantity)}`);
  }
  return terms.length ? `{${terms.join(",")}}` : "";
}

/** The path to which a change is sent. @param {Draft} draft */
export function pathOf({ kind, name }) {
  return kind === "add" ? "/admin/stocks" : `/admin/stocks/${encodeURIComponent(name)}/${kind}`;
}

/**
 * What is wrong with a draft that cannot even be sent: a header cannot hold every token, and no
 * path leads to a stock without a name.
 * @param {Draft} draft @param {string} token
 * @returns {{field: string, message: string} | null}
 */
export function flawOf({ kind, name }, token) {
  if (!token) return { field: "token", message: "token: missing" };
  if (!TOKEN.test(token)) {
    return { field: "token", message: "token: expected letters, digits and -._~+/= alone" };
  }
  if (kind !== "add" && !name) return { field: "name", message: "name: missing" };
  return null;
}

/**
 * Ask for a change under a key.
 * @param {Draft} draft @param {string} token @param {string} key @param {AbortSignal} signal
 */
export async function makeChange(draft, token, key, signal) {
  const body = bodyOf(draft);
  const headers = { Authorization: `Bearer ${token}`, "Idempotency-Key": key };
  if (body) headers["Content-Type"] = "application/json";
  const request = { method: "POST", headers, body: body || undefined, signal };
  const made = await ask(pathOf(draft), request);
  if (!Number.isInteger(made?.data?.change_number) || !made.data.stock) throw new Stranger();
  return made;
}

/** The field that a refusal is about: token, name, price or quantity; empty: none of them. */
export function fieldOf(status, message) {
  const named = /^(name|price|quantity): /.exec(message);
  if (named) return named[1];
  if (status === 401) return "token";
  if (status === 404 || /^(stock exists already|already halted|not halted)$/.test(message)) {
    return "name";
  }
  return /quantity of the stock/.test(message) ? "quantity" : "";
}
