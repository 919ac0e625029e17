// What changes is said once, politely, to whoever does not see it; what was done by hand to everybody.

import { byId, setHidden, setText } from "./dom.js";

const TOGETHER = 300; // milliseconds: an outage turns several upstreams, in one sentence
const NAMED = 3; // of more than so many only the number is said

let waiting = [];

/** Says it to a screen reader when it has a moment. */
export function announce(text) {
  waiting.push(text);
  if (waiting.length > 1) return;
  setTimeout(() => {
    const rest = waiting.length - NAMED;
    const said = waiting.slice(0, NAMED).join(". ");
    waiting = [];
    byId("announcer").textContent = rest > 0 ? `${said}. And ${rest} more changes.` : `${said}.`;
  }, TOGETHER);
}

/** Shows what came of an action until it is dismissed, and says it. */
export function notify(text, { failed = false } = {}) {
  const notice = byId("notice");
  notice.classList.toggle("failed", failed);
  setText(byId("notice-text"), text);
  setHidden(notice, false);
  if (failed) byId("alerter").textContent = text;
  else announce(text);
}

byId("notice-dismiss").addEventListener("click", () => {
  setHidden(byId("notice"), true);
  byId("alerter").textContent = "";
  byId("upstreams").focus({ preventScroll: true }); // the button is gone, and the focus would be nowhere
});
