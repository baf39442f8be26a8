/** The cluster: who is alive, who leads, who lags, and what happened to them. */

import { announce, byId, element, nextFrame, setAttribute, setText } from "../dom.js";
import { clock, count, duration, NOTHING } from "../format.js";
import { ask } from "../http.js";

const POLL_MS = 1000;
const GROUPS = { order: "Order leader", catalog: "Catalog leader" };

/** Shows `members`, and asks for them each second while the page is shown. */
export class ClusterPage {
  #members;
  #plots;
  #timer = 0;
  #isShown = false;
  /** @type {Map<string, any>} */
  #rows = new Map();

  /**
   * @param {import("../model/members.js").Members} members
   * @param {import("./plots.js").Plots} plots
   */
  constructor(members, plots) {
    this.#members = members;
    this.#plots = plots;
    members.changed.listen(() => this.#isShown && this.#show());
    // Thousands of stocks may be changed at once.
    members.happened.listen(nextFrame(() => this.#showEvents()));
    members.elected.listen(() => announce(members.events[0].text));
  }

  /** Begin to ask. */
  enter() {
    this.#isShown = true;
    this.#show();
    this.#plots.start();
    this.#turn();
  }

  /** Nobody looks any more. */
  leave() {
    this.#isShown = false;
    this.#plots.stop();
    clearTimeout(this.#timer);
  }

  async #turn() {
    clearTimeout(this.#timer);
    try {
      if (!document.hidden) this.#members.take((await ask("/cluster")).data.services);
    } catch {
      // The feed shows that the connection is lost.
    }
    clearTimeout(this.#timer);
    if (this.#isShown) this.#timer = setTimeout(() => this.#turn(), POLL_MS);
  }

  #show() {
    const alive = this.#members.rows.filter((row) => row.alive).length;
    setText(byId("members-count"), `${alive} of ${this.#members.rows.length} alive`);
    byId("leaders").replaceChildren(...Object.keys(GROUPS).map((group) => this.#tile(group)));
    const body = byId("members-body");
    for (const row of this.#members.rows) {
      const name = `${row.service}-${row.id}`;
      if (!this.#rows.has(name)) this.#rows.set(name, body.appendChild(makeRow(name)));
      fillRow(this.#rows.get(name), row, this.#members.stateOf(row));
    }
  }

  #tile(group) {
    const lead = this.#members.leads.get(group);
    const leaderId = lead?.leaderId ?? null;
    const name = leaderId === null ? "None: electing" : `${group}-${leaderId}`;
    const term = lead ? `Term ${count(lead.term)}` : NOTHING;
    const kind = leaderId === null ? "tile electing" : "tile";
    return element(
      "div",
      { class: kind, "data-group": group },
      element("p", { class: "tile-name" }, GROUPS[group]),
      element("p", { class: "tile-value" }, name),
      element("p", { class: "tile-more" }, term),
    );
  }

  #showEvents() {
    const lines = this.#members.events.map(({ at, text }) => {
      const time = element("time", { datetime: new Date(at).toISOString() }, clock(at));
      return element("li", {}, time, text);
    });
    byId("events").replaceChildren(...lines);
    byId("events-empty").hidden = lines.length > 0;
  }
}

function makeRow(name) {
  const cell = (kind) => element("td", { class: kind });
  const kinds = ["c-role", "num c-term", "num c-transaction", "num c-lag", "num c-uptime"];
  const cells = [...kinds, "c-address", "num c-pid"].map(cell);
  const uptime = element("span", { class: "under" });
  const member = element("th", { scope: "row", class: "c-member" }, name, uptime);
  return element("tr", {}, member, ...cells);
}

function fillRow(node, row, state) {
  const [member, role, term, transaction, lag, uptime, address, pid] = node.cells;
  setAttribute(node, "data-state", state);
  setAttribute(node, "title", row.reason || null);
  const shown = { leader: "\u2605 Leader", former: "Former leader", down: "\u2715 Down" };
  if (!role.firstChild) role.append(element("span", { class: "badge" }));
  setText(role.firstChild, shown[state] ?? state[0].toUpperCase() + state.slice(1));
  setText(term, count(row.term));
  setText(transaction, count(row.last_transaction));
  setText(lag, count(row.lag));
  setText(uptime, duration(row.uptime_s));
  setText(member.lastChild, row.alive ? duration(row.uptime_s) : "");
  setText(address, row.address);
  setText(pid, row.pid == null ? NOTHING : String(row.pid));
}
