/** What is shown is in the address behind `#`, so that a link can be shared. */

const PAGES = {
  "": "market",
  ticket: "ticket",
  orders: "orders",
  cluster: "cluster",
  admin: "admin",
};

/**
 * @typedef {{page: string, argument: string, query: URLSearchParams}} Route
 * `page` is market, ticket, orders, order, cluster, admin or lost.
 */

/** @param {string} hash @returns {Route} */
export function parseRoute(hash) {
  const [path, query = ""] = hash.replace(/^#?\/?/, "").split("?");
  const [room, ...rest] = path.split("/");
  const argument = decoded(rest.join("/"));
  const page = room === "orders" && argument ? "order" : (PAGES[room] ?? "lost");
  return { page, argument, query: new URLSearchParams(query) };
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** @param {string} name - a stock's; its page is the ticket */
export const ticketLink = (name) => `#/ticket/${encodeURIComponent(name)}`;

/** @param {string} name - a stock's; the page of its changes */
export const adminLink = (name) => `#/admin/${encodeURIComponent(name)}`;

/** @param {number | string} number */
export const orderLink = (number) => `#/orders/${encodeURIComponent(number)}`;

/** @param {number | null} before - null: the newest */
export const ordersLink = (before) => (before === null ? "#/orders" : `#/orders?before=${before}`);
