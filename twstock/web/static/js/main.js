/** Where the parts meet: the feed updates the models, pages show them, the address says which. */

import { byId, setAttribute, setText } from "./dom.js";
import { Changes } from "./model/changes.js";
import { Feed } from "./model/feed.js";
import { Members } from "./model/members.js";
import { Stocks } from "./model/stocks.js";
import { Trades } from "./model/trades.js";
import { parseRoute } from "./route.js";
import { AdminPage } from "./view/admin.js";
import { ClusterPage } from "./view/cluster.js";
import { showLink } from "./view/link.js";
import { MarketPage } from "./view/market.js";
import { OrderPage } from "./view/order.js";
import { OrdersPage } from "./view/orders.js";
import { Plots } from "./view/plots.js";
import { Tape } from "./view/tape.js";
import { Ticket } from "./view/ticket.js";

/** How long a hidden page keeps its connection. */
const HIDDEN_MS = 30_000;

const stocks = new Stocks();
const trades = new Trades();
const members = new Members();
const changes = new Changes();
const feed = new Feed({ stocks, trades, members, changes });
const ticket = new Ticket(stocks, () => feed.refresh());
const orders = new OrdersPage(trades);
const order = new OrderPage();
const cluster = new ClusterPage(members, new Plots());
const admin = new AdminPage(stocks, changes, () => feed.refresh());

const pages = {
  market: { title: "Market", nav: "market", section: "market" },
  ticket: { title: "Ticket", nav: "ticket", section: "market", enter: toTicket },
  orders: {
    title: "Orders",
    nav: "orders",
    section: "orders",
    enter: toOrders,
    leave: () => orders.leave(),
  },
  order: {
    title: "Order",
    nav: "orders",
    section: "order",
    enter: toOrder,
    leave: () => order.leave(),
  },
  cluster: {
    title: "Cluster",
    nav: "cluster",
    section: "cluster",
    enter: () => cluster.enter(),
    leave: () => cluster.leave(),
  },
  admin: {
    title: "Administration",
    nav: "admin",
    section: "admin",
    enter: ({ argument }) => admin.enter(argument),
    leave: () => admin.leave(),
  },
  lost: { title: "No such page", nav: "", section: "lost" },
};
let shown = null;

function toTicket({ argument }) {
  if (argument) ticket.choose(argument);
}

function toOrders({ query }) {
  orders.enter(query);
}

function toOrder({ argument }) {
  order.enter(argument);
}

function show(isFirst) {
  const route = parseRoute(location.hash);
  const page = pages[route.page];
  shown?.leave?.();
  shown = page;
  document.body.dataset.page = route.page;
  const title = route.page === "order" ? `Order ${route.argument}` : page.title;
  document.title = `${title} - twstock`;
  setText(byId("title"), title);
  for (const section of document.querySelectorAll(".page")) {
    section.hidden = section.id !== `page-${page.section}`;
  }
  for (const link of document.querySelectorAll("[data-nav]")) {
    setAttribute(link, "aria-current", link.dataset.nav === page.nav && "page");
  }
  page.enter?.(route);
  if (route.page === "ticket") ticket.focus();
  else if (!isFirst) byId("title").focus({ preventScroll: true });
}

byId("skip").addEventListener("click", (event) => {
  event.preventDefault();
  byId("main").focus();
});

// A link to what is shown already does not change the address, so there is no `hashchange`.
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href^='#/']");
  if (link && link.hash === location.hash) show(false);
});

let hiding = 0;
document.addEventListener("visibilitychange", () => {
  clearTimeout(hiding);
  if (document.hidden) hiding = setTimeout(() => feed.pause(), HIDDEN_MS);
  else feed.resume();
});

new MarketPage(stocks);
new Tape(trades);
showLink(feed, members);
addEventListener("hashchange", () => show(false));
show(true);
feed.start();
