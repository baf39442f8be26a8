/** Requests to the front-end that served this page. */

const TIMEOUT_MS = 5000;
const DECIDING = [404, 409, 422];
const NOT_DONE = [408, 429, 507];

/**
 * The answer is an error; `message` has its words. A front-end's `code` is the status, and tells
 * its errors from those of who is none: a proxy on the way, say.
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
   * Whether it tells what becomes of a request with a key, whatever became of earlier attempts:
   * it is refused, or malformed, as each attempt would have been told. The same rule is
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

/** Who answered is no front-end: the answer has not the form that it should have. */
export class Stranger extends Unreachable {
  trouble = "an answer in another form than a front-end's";
}

/** A signal for when an answer has taken too long, or `stop` is given. @param {AbortSignal} stop */
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
    // An ETag tells versions of a stock apart, not markets: data that was made anew has them, too.
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

/** The words of an error that has none of its own; HTTP/2 has no reasons. @param {Response} response */
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
    // Who is no front-end may have a page that is followed by itself, or by nobody knows what.
    if (!Array.isArray(page?.data) || page.next === undefined) throw new Stranger();
    if (page.next !== null && String(page.next) === next) throw new Stranger();
    take(page.data);
    next = page.next === null ? null : String(page.next);
  }
}
