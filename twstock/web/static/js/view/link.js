/** Whether what is shown is up to date: shown in the head, and in a banner if it is not. */

import { byId, element, setText } from "../dom.js";

const WORDS = {
  starting: "Connecting",
  live: "Live",
  polling: "Updated each second",
  lost: "No connection",
};

/**
 * Shows the state of the feed, and of the order group as far as it is known.
 * @param {import("../model/feed.js").Feed} feed
 * @param {import("../model/members.js").Members} members
 */
export function showLink(feed, members) {
  const show = () => {
    byId("link-state").dataset.state = feed.state;
    setText(byId("link-text"), WORDS[feed.state]);
    say(byId("banner"), trouble(feed, members));
  };
  feed.linked.listen(show);
  members.changed.listen(show);
  show();
}

function trouble(feed, members) {
  if (feed.state === "lost") {
    const what = feed.reason
      ? `The market cannot be read: ${feed.reason}.`
      : "The connection is lost.";
    return `${what} What is shown may be old. Trying again each second.`;
  }
  const lead = members.leads.get("order");
  if (lead?.leaderId === null) return "The order service has no leader at the moment. Orders wait.";
  return "";
}

function say(banner, text) {
  if (banner.textContent === text) return;
  banner.replaceChildren(...(text ? [element("p", { class: "banner-text" }, text)] : []));
}
