/** An order on its way: asked for under one key until its outcome is known. */

import { ask, Refused } from "../http.js";

const WAIT_MAX_S = 5;
const STORED = "twstock.submission";
const INTEGER = /^-?(0|[1-9][0-9]*)$/;

/** A key that nobody else makes; `randomUUID` exists only where the page came safely. */
export function newKey() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * The body of an order. A quantity goes as it was typed: what is no integer, or too large for
 * this language, the API refuses in its own words.
 * @param {{name: string, quantity: string, type: string}} draft
 */
export function bodyOf({ name, quantity, type }) {
  const typed = quantity.trim();
  const value = INTEGER.test(typed) ? typed : JSON.stringify(typed);
  return `{"name":${JSON.stringify(name)},"quantity":${value},"type":${JSON.stringify(type)}}`;
}

/** The field that a refusal is about: name, quantity or type; empty: none of them. */
export function fieldOf(message) {
  const named = /^(name|quantity|type): /.exec(message);
  if (named) return named[1];
  if (/transaction type/.test(message)) return "type";
  if (/stock name|halted/.test(message)) return "name";
  return /stocks|quantity/.test(message) ? "quantity" : "";
}

/** Whether an error leaves open what became of the order: then the same key is asked again. */
function isOpen(problem) {
  if (!(problem instanceof Refused)) return true;
  return problem.outcome === "unknown" || problem.status === 429 || problem.status >= 500;
}

/**
 * One order. `state` is "asking", "traded", "refused" or "stopped"; `attempt` counts from 1;
 * `trouble` has the words of the attempt before; `tell` is called whenever something changes.
 */
export class Submission {
  state = "asking";
  attempt = 1;
  trouble = "";
  number = 0;
  replayed = false;
  message = "";
  #tell;
  #wake = () => {};

  /** @param {{name: string, quantity: string, type: string}} draft @param {string} key */
  constructor(draft, key, tell) {
    this.draft = draft;
    this.key = key;
    this.#tell = tell;
  }

  /** Ask until the outcome is known, or `stop` is called. */
  async run() {
    keep(this);
    while (this.state === "asking") {
      this.#tell(this);
      const waitS = await this.#attemptOnce();
      if (waitS) await this.#pause(waitS);
    }
    keep(null);
    this.#tell(this);
  }

  /** Give up; the order may have traded all the same. */
  stop() {
    if (this.state === "asking") this.state = "stopped";
    this.#wake();
  }

  /** @returns {Promise<number>} seconds to wait before asking again; 0: the outcome is known */
  async #attemptOnce() {
    const headers = { "Content-Type": "application/json", "Idempotency-Key": this.key };
    try {
      const { data } = await ask("/orders", { method: "POST", headers, body: bodyOf(this.draft) });
      this.number = data.transaction_number;
      this.state = "traded";
      return 0;
    } catch (problem) {
      if (!isOpen(problem)) {
        this.message = problem.message;
        this.state = "refused";
        return 0;
      }
      this.trouble = problem instanceof Refused ? problem.message : "no connection";
      this.attempt += 1;
      this.#tell(this);
      return Math.min(problem.retryS ?? 1, WAIT_MAX_S);
    }
  }

  #pause(seconds) {
    if (this.state !== "asking") return undefined;
    return new Promise((resolve) => {
      this.#wake = resolve;
      setTimeout(resolve, seconds * 1000);
    });
  }
}

/** Keep what is on its way over a reload of the page. @param {Submission | null} submission */
function keep(submission) {
  try {
    if (submission) {
      const { draft, key } = submission;
      sessionStorage.setItem(STORED, JSON.stringify({ draft, key }));
    } else sessionStorage.removeItem(STORED);
  } catch {
    // A browser that stores nothing forgets the key with the page.
  }
}

/** What was on its way when the page was left. @returns {{draft: any, key: string} | null} */
export function kept() {
  try {
    return JSON.parse(sessionStorage.getItem(STORED));
  } catch {
    return null;
  }
}
