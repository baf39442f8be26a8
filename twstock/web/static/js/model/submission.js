/** A request on its way: made under one key until its outcome is known. */

import { Refused } from "../http.js";

const WAIT_MAX_S = 5;
const INTEGER = /^-?(0|[1-9][0-9]*)$/;

/** A key that nobody else makes; `randomUUID` exists only over HTTPS or from localhost. */
export function newKey() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * The JSON of a number as it was typed: nothing is rounded, and what is not an integer is sent as
 * a text, so that the API refuses it in its own words.
 * @param {string} text
 */
export function typedInteger(text) {
  const typed = text.trim();
  return INTEGER.test(typed) ? typed : JSON.stringify(typed);
}

/**
 * One request. `state` is "asking", "answered", "refused" or "stopped"; `attempt` counts from 1;
 * `trouble` says why the last attempt failed. Once it is answered, `answer` is the data; once it
 * is refused, `status` and `message` say why. `isOver`: no attempt is or will be under way.
 */
export class Submission {
  state = "asking";
  isOver = false;
  attempt = 1;
  trouble = "";
  /** @type {any} */
  answer = null;
  status = 0;
  message = "";
  #send;
  #tell;
  #isDoubtful;
  #stopping = new AbortController();

  /**
   * @param {(stop: AbortSignal) => Promise<any>} send - makes the request, each time under the
   *   same key, until it is told to stop
   * @param {(submission: Submission) => void} tell - is called whenever something changes
   * @param {boolean} [isDoubtful] - an earlier request under the key may have been done
   */
  constructor(send, tell, isDoubtful = false) {
    this.#send = send;
    this.#tell = tell;
    this.#isDoubtful = isDoubtful;
  }

  /** Ask until the outcome is known, or `stop` is called. */
  async run() {
    while (this.state === "asking") {
      this.#tell(this);
      const waitS = await this.#attemptOnce();
      if (waitS) await this.#pause(waitS);
    }
    this.isOver = true;
    this.#tell(this);
  }

  /** Give up, also an attempt under way; the request may have been done all the same. */
  stop() {
    if (this.state !== "asking") return;
    this.state = "stopped";
    this.#stopping.abort();
    this.#tell(this);
  }

  /** @returns {Promise<number>} seconds to wait before asking again; 0: the outcome is known */
  async #attemptOnce() {
    try {
      this.answer = (await this.#send(this.#stopping.signal)).data;
      this.state = "answered";
      return 0;
    } catch (problem) {
      if (!this.#isOpen(problem)) {
        this.status = problem.status;
        this.message = problem.message;
        this.state = "refused";
        return 0;
      }
      if (this.state === "stopped") return 0;
      this.trouble = problem.trouble ?? problem.message;
      this.#isDoubtful ||= problem.isInDoubt ?? true;
      this.attempt += 1;
      this.#tell(this);
      return Math.min(problem.retryS ?? 1, WAIT_MAX_S);
    }
  }

  /** Whether the outcome is still open after an error: then it is sent again under the same key. */
  #isOpen(problem) {
    if (!(problem instanceof Refused) || problem.isForNow) return true;
    return this.#isDoubtful && !problem.decides;
  }

  #pause(seconds) {
    if (this.state !== "asking") return undefined;
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, seconds * 1000);
      this.#stopping.signal.addEventListener("abort", () => {
        clearTimeout(timer);
        resolve();
      });
    });
  }
}
