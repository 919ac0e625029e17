// What is done to endpoints by hand: asked about in a dialog first, sent, and what came of it told.

import { announce, notify } from "./announce.js";
import { byId, make, setHidden, setText } from "./dom.js";
import { plural } from "./format.js";
import { inRotation, isHttp, serves, total } from "./model.js";
import { credentials, hasToken, keepToken, refusal } from "./stream.js";

const PATIENCE = 10000; // milliseconds for an answer, which takes a few

// verb: on the button. done: what has been done then. will: what happens, `it` being one endpoint or all of them.
const ACTIONS = {
  drain: {
    verb: "Drain",
    done: "drained",
    takes: true,
    will: (it) => `Nothing new is sent to ${it}, and what is under way finishes. It stays so until enabled again.`,
  },
  enable: { verb: "Enable", done: "enabled", takes: false, will: (it) => `New work is sent to ${it} again.` },
  trip: {
    verb: "Trip",
    done: "tripped",
    takes: true,
    will: (it) => `Out of rotation whatever requests and checks say of ${it}, until reset.`,
  },
  reset: {
    verb: "Reset",
    done: "reset",
    takes: false,
    will: (it) => `What the breaker of ${it} knows is forgotten: back into rotation at once.`,
  },
};

/** The two that make sense for an endpoint as it is. */
export function sensible(endpoint) {
  return [endpoint.drained ? "enable" : "drain", endpoint.breaker.state === "closed" ? "trip" : "reset"];
}

export const ALL = Object.keys(ACTIONS);

/** A button; what `find()` gives when it is pressed is what it is about: `{upstream, endpoint}`, null for all. */
export function actionButton(find, token) {
  const button = make("button", { type: "button" });
  button.addEventListener("click", () => {
    const found = find();
    if (found) ask(button.dataset.action, found.upstream, found.endpoint, token);
  });
  return button;
}

/** Makes it the button of `action` for an endpoint's address, or of all when null. */
export function labelButton(button, action, name, address) {
  if (button.dataset.action === action && button.dataset.name === name) return;
  button.dataset.action = action;
  button.dataset.name = name;
  button.textContent = ACTIONS[action].verb;
  button.setAttribute("aria-label", `${ACTIONS[action].verb} ${address ?? "all endpoints"} of ${name}`);
}

/** Shows the dialog; the action is sent once it is confirmed. */
function ask(action, upstream, endpoint, token) {
  const { verb, takes, will } = ACTIONS[action];
  const many = total(upstream);
  const what = endpoint ? endpoint.address : many === 1 ? "the one endpoint" : `all ${many} endpoints`;
  setText(byId("confirm-heading"), `${verb} ${what} of ${upstream.name}?`);
  setText(byId("confirm-text"), will(endpoint ? "it" : "each of them"));
  const warning = takes ? lossWarning(upstream, endpoint) : "";
  setText(byId("confirm-warning"), warning);
  setHidden(byId("confirm-warning"), !warning);
  setText(byId("confirm-yes"), verb);
  byId("confirm-yes").onclick = () => {
    byId("confirm").close();
    send(action, upstream.name, endpoint?.address ?? null, token);
  };
  byId("confirm").showModal();
}

/** What is lost when nobody is left in rotation; empty when somebody is. */
function lossWarning(upstream, endpoint) {
  const serving = inRotation(upstream);
  const left = endpoint ? serving - Number(serves(endpoint)) : 0;
  const matters = endpoint ? serves(endpoint) : serving;
  if (left || !matters) return "";
  const served = isHttp(upstream) ? "requests are answered 503" : "sessions are closed at once";
  const which = endpoint ? "It is the last one in rotation." : "Nobody is left in rotation then.";
  // Who is out by its breaker is used in panic, who is out by hand is not.
  const others = endpoint && upstream.endpoints.some((one) => one !== endpoint && !one.drained && one.breaker.held !== "hand");
  const then = others ? `those whose breakers are open are used (panic), or ${served}` : served;
  return `${which} Until one is back, ${then}.`;
}

async function send(action, name, address, token) {
  const what = address === null ? name : `${address} of ${name}`;
  const query = address === null ? "" : `?${new URLSearchParams({ endpoint: address })}`;
  try {
    const response = await fetch(`v1/upstreams/${encodeURIComponent(name)}/${action}${query}`, {
      method: "POST",
      headers: { "X-Sidecar-Control": "1", ...credentials() },
      cache: "no-store",
      signal: AbortSignal.timeout(PATIENCE),
    });
    if (response.status === 401) token.ask();
    if (!response.ok) throw new Error(await refusal(response));
    const { endpoints } = await response.json();
    const whom = address === null ? `${plural(endpoints.length, "endpoint")} of ${name}` : what;
    notify(`${whom}: ${ACTIONS[action].done}`);
  } catch (error) {
    notify(`${ACTIONS[action].verb} ${what} failed: ${reasonOf(error)}`, { failed: true });
  }
}

function reasonOf(error) {
  if (error.name === "TimeoutError") {
    // A browser has six connections to an address, and each tab of this page keeps one.
    return "no answer in time; it may be done all the same. Six tabs of this page keep each other from asking.";
  }
  return error instanceof TypeError ? "the sidecar does not answer" : error.message;
}

byId("confirm-no").addEventListener("click", () => byId("confirm").close());

/** The dialog that asks for the token after a 401. entered(): there is one to try. left(): it was closed without. */
export class TokenPrompt {
  constructor({ entered, left }) {
    this.dialog = byId("token");
    this.given = false;
    byId("token-form").addEventListener("submit", (event) => {
      event.preventDefault();
      keepToken(byId("token-value").value);
      this.given = true;
      this.dialog.close();
    });
    byId("token-no").addEventListener("click", () => this.dialog.close());
    this.dialog.addEventListener("close", () => {
      byId("token-value").value = "";
      if (this.given) entered();
      else left();
    });
  }

  ask() {
    if (this.dialog.open) return;
    byId("confirm").close();
    const refused = hasToken();
    setText(byId("token-error"), refused ? "The token was refused. Is it the one of this sidecar?" : "");
    setHidden(byId("token-error"), !refused);
    this.given = false;
    this.dialog.showModal();
    announce("This sidecar asks for a token");
  }
}
