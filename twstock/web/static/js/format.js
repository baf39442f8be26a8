/** Numbers and times as people read them, in the browser's language. */

const PRICE = new Intl.NumberFormat(undefined, {
  minimumFractionDigits: 2,
  maximumFractionDigits: 2,
});
const COUNT = new Intl.NumberFormat();
const CLOCK = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const DAY = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const MOMENT = new Intl.DateTimeFormat(undefined, { dateStyle: "long", timeStyle: "long" });

/** Shown where nothing is known. */
export const NOTHING = "\u2013";

/** @param {number} value */
export const price = (value) => PRICE.format(value);

/** @param {number | null | undefined} value */
export const count = (value) => (value == null ? NOTHING : COUNT.format(value));

/** @param {number} value - with its sign, in words that a font aligns */
export const signed = (value) => (value < 0 ? "\u2212" : "+") + COUNT.format(Math.abs(value));

/** @param {number} ms - since 1970; today's times come without the day */
export function clock(ms) {
  const at = new Date(ms);
  const today = at.toDateString() === new Date().toDateString();
  return today ? CLOCK.format(at) : `${DAY.format(at)}, ${CLOCK.format(at)}`;
}

/** @param {number} ms - since 1970 */
export const moment = (ms) => MOMENT.format(new Date(ms));

/** @param {number | null} seconds - the two largest units of it */
export function duration(seconds) {
  if (seconds == null) return NOTHING;
  const whole = Math.floor(seconds);
  const [days, hours] = [Math.floor(whole / 86400), Math.floor(whole / 3600) % 24];
  const [minutes, rest] = [Math.floor(whole / 60) % 60, whole % 60];
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min ${rest} s` : `${rest} s`;
}

/** @param {string} side - "buy" or "sell" */
export const sideMark = (side) => (side === "buy" ? "\u25B2" : "\u25BC");

/** @param {string} side */
export const sideWord = (side) => (side === "buy" ? "Buy" : "Sell");
