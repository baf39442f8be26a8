/** Requests to the front-end that served this page. */

const TIMEOUT_MS = 5000;

/** The front-end answered with an error; `message` has its words. */
export class Refused extends Error {
  /** @param {number} status @param {string} message @param {string} [outcome] @param {number} [retryS] */
  constructor(status, message, outcome = "", retryS = 1) {
    super(message);
    this.status = status;
    this.outcome = outcome;
    this.retryS = retryS;
  }
}

/** Nothing answered, or nothing that could be read. */
export class Unreachable extends Error {}

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
    response = await fetch(path, { ...options, signal: limited(options.signal) });
    body = await response.json();
  } catch (problem) {
    if (response && !response.ok) throw new Refused(response.status, response.statusText);
    throw new Unreachable(problem.message);
  }
  if (response.ok) return body;
  const { message, outcome } = body.error ?? {};
  const retryS = Number(response.headers.get("Retry-After")) || 1;
  throw new Refused(response.status, message ?? response.statusText, outcome, retryS);
}

/**
 * Every row of a listing, page after page.
 * @param {(after: string) => string} path - of the page after a name or number
 * @param {(rows: any[]) => void} take
 * @param {string} after
 */
export async function askPages(path, take, after) {
  for (let next = after; next !== null;) {
    const page = await ask(path(next));
    take(page.data);
    next = page.next;
  }
}
