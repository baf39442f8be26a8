/** The members of the cluster, and who leads. */

import { Signal } from "../signal.js";

const EVENTS_MAX = 100;

/** @typedef {{leaderId: number | null, term: number}} Lead */

/**
 * `changed` signals that rows have changed, `elected` that a group's lead has, `happened` an event
 * worth a line: `{at, text}`.
 */
export class Members {
  /** Rows as `GET /cluster` has them. @type {any[]} */
  rows = [];
  /** @type {Map<string, Lead>} */
  leads = new Map();
  /** @type {{at: number, text: string}[]} */
  events = [];
  changed = new Signal();
  elected = new Signal();
  happened = new Signal();

  /**
   * The highest transaction number that any order replica has committed.
   * @returns {number | null} null while none of them answers
   */
  get lastTransaction() {
    const orders = this.rows.filter((row) => row.service === "order");
    const known = orders.map((row) => row.last_transaction).filter((last) => last != null);
    return known.length ? Math.max(...known) : null;
  }

  /** Take the rows of `GET /cluster`. @param {any[]} rows */
  take(rows) {
    this.#tellOfDeaths(rows);
    this.rows = rows;
    for (const group of ["order", "catalog"]) {
      const members = rows.filter((row) => row.service === group);
      const leading = members.filter((row) => row.role === "leader");
      leading.sort((one, other) => other.term - one.term);
      const term = Math.max(0, ...members.map((row) => row.term ?? 0));
      this.lead(group, leading[0]?.id ?? null, leading[0]?.term ?? term);
    }
    this.changed.tell();
  }

  /** What comes next is another market; its terms do not continue this one's. */
  forget() {
    this.leads.clear();
  }

  /** Set who leads a group. News of an older term than the known one comes late, and is ignored. */
  lead(group, leaderId, term) {
    const known = this.leads.get(group);
    if (known && (term < known.term || (term === known.term && leaderId === known.leaderId)))
      return;
    this.leads.set(group, { leaderId, term });
    if (!known) return;
    const who =
      leaderId === null ? `The ${group} group has no leader` : `${group}-${leaderId} leads`;
    this.happen(leaderId === null ? `${who}: electing` : `${who} the ${group} group, term ${term}`);
    this.elected.tell({ group, leaderId, term });
    this.changed.tell();
  }

  /** Note an event. @param {string} text */
  happen(text) {
    const event = { at: Date.now(), text };
    this.events = [event, ...this.events].slice(0, EVENTS_MAX);
    this.happened.tell(event);
  }

  /** Whether a row's member leads its group. */
  isLeader(row) {
    const lead = this.leads.get(row.service);
    return row.alive && lead !== undefined && lead.leaderId === row.id;
  }

  /**
   * What a row's member is at the moment. Only one leads: a member that said so before another one
   * did is `former` until it is asked again.
   */
  stateOf(row) {
    if (!row.alive) return "down";
    if (this.isLeader(row)) return "leader";
    return row.role === "leader" ? "former" : (row.role ?? "unknown");
  }

  #tellOfDeaths(rows) {
    for (const row of rows) {
      const known = this.rows.find((old) => old.service === row.service && old.id === row.id);
      const name = `${row.service}-${row.id}`;
      if (known?.alive && !row.alive) this.happen(`${name} does not answer`);
      if (known && !known.alive && row.alive) this.happen(`${name} answers again`);
    }
  }
}
