/** Requests to the front-end that served this page. */

const TIMEOUT_MS = 5000;
const DECIDING = [404, 409, 422];
const NOT_DONE = [408, 429, 507];

/**
 * The answer is an error with this `message`. In a front-end's errors `code` is the status, which
 * distinguishes them from those of others, a proxy on the way for example.
 */
export class Refused extends Error {
  /**
   * @param {number} status @param {string} message
   * @param {{outcome?: string, retryS?: number, code?: number}} [more]
   */
  constructor(status, message, { outcome = "", retryS = 1, code } = {}) {
    super(message);
    this.status = status;
    this.outcome = outcome;
    this.retryS = retryS;
    this.code = code;
  }

  /** Whether the same request may have another answer a little later. */
  get isForNow() {
    return this.outcome === "unknown" || [408, 429].includes(this.status) || this.status >= 500;
  }

  /** Whether the request may have been done all the same. */
  get isInDoubt() {
    return this.isForNow && this.outcome !== "none" && !NOT_DONE.includes(this.status);
  }

  /**
   * Whether it decides the outcome of a request with a key, whatever became of earlier attempts:
   * it is refused or malformed, and each attempt would have been answered so. The same rule is
   * `Answer.decides` in `twstock/forms.py`.
   */
  get decides() {
    if (this.code !== this.status || this.message === "no such path") return false;
    return DECIDING.includes(this.status) || (this.status === 400 && this.message.includes(": "));
  }
}

/** Nothing answered, or nothing that could be read; `trouble` says so in a few words. */
export class Unreachable extends Error {
  trouble = "no connection";
}

/** Something other than a front-end answered: the answer does not have the form it should have. */
export class Stranger extends Unreachable {
  trouble = "an answer in another form than a front-end's";
}

/** A signal that aborts if an answer takes too long, or with `stop`. @param {AbortSignal} stop */
function limited(stop) {
  const limit = AbortSignal.timeout(TIMEOUT_MS);
  if (!stop) return limit;
  // As AbortSignal.any, which is younger than the browsers that the console is for.
  const either = new AbortController();
  if (stop.aborted) either.abort();
  for (const signal of [limit, stop]) signal.addEventListener("abort", () => either.abort());
  return either.signal;
}

/**
 * The JSON of a 200 answer.
 * @param {string} path
 * @param {RequestInit} [options] - its `signal` gives the request up
 * @returns {Promise<any>}
 * @throws {Refused | Unreachable}
 */
export async function ask(path, options = {}) {
  let response;
  let body;
  try {
    // Not from a cache: an ETag distinguishes versions of a stock, but not of another market.
    const asked = { cache: "no-store", ...options, signal: limited(options.signal) };
    response = await fetch(path, asked);
    body = await response.json();
  } catch (problem) {
    if (response && !response.ok) throw new Refused(response.status, reasonOf(response));
    throw new Unreachable(problem.message);
  }
  if (response.ok) return body;
  const { message, outcome, code } = body?.error ?? {};
  const retryS = Number(response.headers.get("Retry-After")) || 1;
  throw new Refused(response.status, message ?? reasonOf(response), { outcome, retryS, code });
}

/** The message of an error without one; HTTP/2 has no reason phrases. @param {Response} response */
const reasonOf = ({ status, statusText }) => statusText || `status ${status}`;

/**
 * Every row of a listing, page after page.
 * @param {(after: string) => string} path - of the page after a name or number
 * @param {(rows: any[]) => void} take
 * @param {string} after
 */
export async function askPages(path, take, after) {
  for (let next = after; next !== null;) {
    const page = await ask(path(next));
    // Something other than a front-end may send a page that has no `next`, or itself as `next`.
    if (!Array.isArray(page?.data) || page.next === undefined) throw new Stranger();
    if (page.next !== null && String(page.next) === next) throw new Stranger();
    take(page.data);
    next = page.next === null ? null : String(page.next);
  }
}
