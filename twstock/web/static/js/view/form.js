/** What the forms share: what is typed is sent once, and errors are shown at their fields. */

import { byId, element, setAttribute, setText } from "../dom.js";

const SUGGESTED_MAX = 20;

/**
 * Keep a form from being sent twice by one gesture.
 * @param {HTMLElement} form @param {HTMLElement} button
 */
export function onceAtATime(form, button) {
  form.addEventListener("keydown", (event) => {
    // A key that is held down counts once.
    if (event.key === "Enter" && event.repeat) event.preventDefault();
  });
  button.addEventListener("click", (event) => {
    // The second click of a double click.
    if (event.detail > 1) event.preventDefault();
  });
}

/**
 * Suggest the stocks whose names contain what was typed.
 * @param {HTMLElement} list - a datalist
 * @param {import("../model/stocks.js").Stocks} stocks
 * @param {string} text
 */
export function suggest(list, stocks, text) {
  const typed = text.trim().toLowerCase();
  const fits = stocks.all().filter((stock) => stock.name.toLowerCase().includes(typed));
  const names = fits.slice(0, SUGGESTED_MAX).map((stock) => stock.name);
  list.replaceChildren(...names.map((value) => element("option", { value })));
}

/** Show at a field what is wrong with it; empty: nothing is. */
export function complain(field, message) {
  setText(byId(`${field.id}-error`), message);
  const isInput = field.tagName === "INPUT";
  setAttribute(field, "aria-invalid", isInput && message && "true");
}

/**
 * While a request is on its way, its kind cannot be changed. A radio button that is disabled loses
 * the focus, so the focus moves to the button first.
 * @param {Iterable<HTMLInputElement>} radios @param {HTMLElement} button @param {boolean} isAsking
 */
export function disable(radios, button, isAsking) {
  for (const radio of radios) {
    if (isAsking && radio === document.activeElement) button.focus();
    radio.disabled = isAsking;
  }
}

/**
 * Show what became of a request. If the focus was on the button that stops it, it stays in this
 * place, where another press of a key sends nothing.
 * @param {HTMLElement} outcome @param {...(Node | string)} said
 */
export function showOutcome(outcome, ...said) {
  const wasThere = outcome.contains(document.activeElement);
  outcome.replaceChildren(...said);
  if (wasThere) outcome.focus();
}

/**
 * Show that a request is sent again, with a button that stops it. Later attempts change only the
 * text: if the button were replaced, the focus or a click under way would be lost.
 * @param {HTMLElement} outcome - empty before the second attempt
 * @param {import("../model/submission.js").Submission} submission
 * @param {string} once - what the same key makes sure of
 */
export function showAskingAgain(outcome, submission, once) {
  if (!outcome.firstChild) {
    const stop = element("button", { type: "button", class: "quiet" }, "Stop asking");
    stop.addEventListener("click", () => submission.stop());
    const said = element("strong", {}, "Outcome not known yet");
    outcome.append(said, element("span"), element("span"), stop);
  }
  const [trouble, attempt] = outcome.querySelectorAll("span");
  setText(trouble, submission.trouble);
  setText(attempt, `Asking again under the same key, so ${once}. Attempt ${submission.attempt}.`);
}
