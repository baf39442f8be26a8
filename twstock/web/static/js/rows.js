/** A long table of which only the rows in sight are drawn. */

import { element, nextFrame } from "./dom.js";

const BEYOND = 6;
/** A row's height until one has been measured, in pixels. */
const ROW_PX = 36;

/**
 * Draws rows `0..count-1` of a table inside a scroller. `make` makes an empty row, `fill` fills
 * in the content of row `index`. Rows keep their elements while they stay in sight.
 */
export class Rows {
  #scroller;
  #body;
  #make;
  #fill;
  #count = 0;
  #height = ROW_PX;
  #above;
  #below;
  /** @type {Map<number, any>} */
  #drawn = new Map();
  /** Draws what is in sight, in the next frame. */
  refresh = nextFrame(() => this.#draw(true));

  /**
   * @param {HTMLElement} scroller
   * @param {HTMLElement} body - the tbody
   * @param {() => HTMLElement} make
   * @param {(row: HTMLElement, index: number) => void} fill
   */
  constructor(scroller, body, make, fill) {
    this.#scroller = scroller;
    this.#body = body;
    this.#make = make;
    this.#fill = fill;
    [this.#above, this.#below] = [spacer(), spacer()];
    body.append(this.#above, this.#below);
    const moved = nextFrame(() => this.#draw(false));
    scroller.addEventListener("scroll", moved, { passive: true });
    new ResizeObserver(this.refresh).observe(scroller);
  }

  /** The rows that are drawn, by their index. */
  get drawn() {
    return this.#drawn;
  }

  /** How many rows there are. @param {number} count */
  set count(count) {
    this.#count = count;
    this.refresh();
  }

  /** Scroll until a row is in sight, and draw it. @returns {any} the row */
  show(index) {
    const head = this.#head();
    const top = index * this.#height;
    const room = this.#scroller.clientHeight - head;
    if (top < this.#scroller.scrollTop) this.#scroller.scrollTop = top;
    else if (top + this.#height > this.#scroller.scrollTop + room) {
      this.#scroller.scrollTop = top + this.#height - room;
    }
    this.#draw(false);
    return this.#drawn.get(index);
  }

  /** How many rows are in sight at once. */
  get page() {
    const room = this.#scroller.clientHeight - this.#head();
    return Math.max(1, Math.floor(room / this.#height));
  }

  #head() {
    return this.#body.parentElement.tHead.offsetHeight;
  }

  #draw(isStale) {
    this.#measure();
    const first = Math.max(0, Math.floor(this.#scroller.scrollTop / this.#height) - BEYOND);
    const last = Math.min(this.#count, first + this.page + 2 * BEYOND + 1);
    const free = this.#release(first, last);
    for (let index = first; index < last; index += 1) {
      const known = this.#drawn.get(index);
      if (!known) this.#place(index, first, free.pop() ?? this.#make());
      else if (isStale) this.#fill(known, index);
    }
    for (const row of free) row.remove();
    this.#above.style.height = `${first * this.#height}px`;
    this.#below.style.height = `${(this.#count - Math.max(last, first)) * this.#height}px`;
  }

  /** Stop using the rows that are out of sight; their elements are free for others. */
  #release(first, last) {
    const free = [];
    for (const [index, row] of this.#drawn) {
      if (index >= first && index < last) continue;
      if (row.contains(document.activeElement)) this.#scroller.focus({ preventScroll: true });
      this.#drawn.delete(index);
      free.push(row);
    }
    return free;
  }

  #place(index, first, row) {
    const before = this.#drawn.get(index - 1);
    if (before) before.after(row);
    else if (index === first) this.#above.after(row);
    else this.#below.before(row);
    this.#drawn.set(index, row);
    row.setAttribute("aria-rowindex", String(index + 2));
    this.#fill(row, index);
  }

  /** The height of a row depends on the size of the screen's text. */
  #measure() {
    const row = this.#drawn.values().next().value;
    const height = row?.getBoundingClientRect().height;
    if (height) this.#height = height;
  }
}

function spacer() {
  return element("tr", { "aria-hidden": "true", class: "spacer" }, element("td"));
}
