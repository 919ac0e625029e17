// The endpoints of one upstream as a table, a row each that stays the same row while its numbers change.

import { ALL, actionButton, labelButton, sensible } from "./actions.js";
import { arrange, copy, make, setAttribute, setHidden, setShape, setText } from "./dom.js";
import { UNKNOWN, count, plural, seconds, span, timeOfDay, words } from "./format.js";
import { endpointState, total } from "./model.js";

// Outcomes that are an endpoint's fault, as the breaker counts them (sidecar/model/outcome.py).
const FAILURES = [
  "failure_status",
  "connect_refused",
  "connect_timeout",
  "request_timeout",
  "reset",
  "bad_response",
  "outrun",
  "tls_expired",
  "tls_wrong_host",
  "tls_unknown_ca",
  "tls_failed",
];

const CAUSES = {
  open_time_over: () => "its open time was over",
  probe_succeeded: () => "its probe succeeded",
  probe_failed: () => "its probe failed",
  consecutive_failures: (entry) => `${plural(entry.failures, "failure")} in a row`,
  failure_rate: (entry) => `${entry.window.bad} of ${entry.window.good + entry.window.bad} attempts failed`,
  check_failed: () => "health checks failed",
  check_passed: () => "health checks passed",
  shared: () => "another worker saw it",
  tripped: () => "tripped by hand",
  reset: () => "reset by hand",
};

/** Why a breaker moved: its cause with counts, and the outcome that decided it. */
function cause(entry) {
  const text = CAUSES[entry.cause]?.(entry) ?? words(entry.cause);
  return entry.evidence && entry.evidence !== "success" ? `${text} (${words(entry.evidence)})` : text;
}

function journalLine(entry) {
  const lasting = entry.open_for ? `, for ${seconds(entry.open_for)}` : "";
  return `${timeOfDay(entry.at)} ${words(entry.to)}: ${cause(entry)}${lasting}`;
}

class EndpointRow {
  constructor(table, address) {
    const { content, parts } = copy("endpoint-template");
    this.node = content.firstElementChild;
    this.parts = parts;
    this.details = this.node.querySelector("details");
    this.journal = "";
    const port = address.lastIndexOf(":");
    parts.address.append(address.slice(0, port), make("span", { class: "port" }, address.slice(port)));
    const find = () => {
      const upstream = table.upstream;
      const endpoint = upstream.endpoints.find((one) => one.address === address);
      return endpoint && { upstream, endpoint };
    };
    this.buttons = [0, 1].map(() => actionButton(find, table.token));
    parts.actions.firstElementChild.append(...this.buttons);
  }

  update(endpoint, upstream, control) {
    const { parts } = this;
    this.endpoint = endpoint;
    const place = [endpoint.zone && `zone ${endpoint.zone}`, endpoint.weight !== 1 && `weight ${endpoint.weight}`];
    setText(parts.place, place.filter(Boolean).join(", "));
    const state = endpointState(endpoint, upstream.panic);
    setShape(parts.shape, state.shape);
    setAttribute(this.node, "data-tone", state.tone);
    setText(parts.state, state.text);
    this.updateBreaker(endpoint.breaker);
    setText(parts.check, checkText(endpoint.check));
    setText(parts["in-flight"], count(endpoint.in_flight));
    setText(parts.connections, `${count(endpoint.connections.idle)} / ${count(endpoint.connections.open)}`);
    const failed = FAILURES.reduce((sum, outcome) => sum + (endpoint.attempts[outcome] ?? 0), 0);
    setText(parts.good, count(endpoint.attempts.success ?? 0));
    setText(parts.failed, count(failed));
    setAttribute(parts.failed, "data-some", String(failed > 0));
    setHidden(parts.actions, !control);
    sensible(endpoint).forEach((action, at) => {
      labelButton(this.buttons[at], action, upstream.name, endpoint.address);
    });
  }

  updateBreaker(breaker) {
    const { journal } = breaker;
    const last = journal.at(-1);
    const failures = breaker.failures ? `${breaker.failures} of ${breaker.threshold} failures in a row` : "no failures";
    const moved = last && `${words(breaker.state)} since ${timeOfDay(last.at)}: ${cause(last)}`;
    setText(this.parts.evidence, moved ?? `${words(breaker.state)}, ${failures}`);
    const key = last ? `${journal.length} ${last.at} ${last.to}` : "";
    if (key === this.journal && this.parts.journal.firstChild) return;
    this.journal = key;
    const lines = journal.length ? [...journal].reverse().map(journalLine) : ["it has not moved since the start"];
    this.parts.journal.replaceChildren(...lines.map((line) => make("li", {}, line)));
  }

  /** What counts by itself. clock: see Model.clock. */
  tick(clock) {
    const { retry_at: due, probing } = this.endpoint.breaker;
    let text = "";
    if (probing) text = "probe under way";
    else if (due !== null) {
      const left = Math.ceil((Date.parse(due) - clock) / 1000);
      text = left > 0 ? `next probe in ${span(left)}` : "probe due, with the next request";
    }
    setText(this.parts.countdown, text);
  }
}

function checkText(check) {
  if (!check) return UNKNOWN;
  if (check.ok) return "passes";
  return `${check.ok === null ? "cannot be made" : "fails"}${check.error ? `: ${check.error}` : ""}`;
}

/** The table, in `parent`. token: see TokenPrompt. */
export class EndpointTable {
  constructor(parts, body, token) {
    this.parts = parts;
    this.body = body;
    this.token = token;
    this.rows = new Map();
    this.all = ALL.map((action) => [action, actionButton(() => ({ upstream: this.upstream, endpoint: null }), token)]);
    this.group = parts["all-label"].parentNode;
    this.group.append(...this.all.map(([, button]) => button));
  }

  update(upstream, control) {
    this.upstream = upstream;
    const { parts } = this;
    setText(parts.caption, `Endpoints of ${upstream.name}`);
    setAttribute(this.group, "aria-label", `All endpoints of ${upstream.name}`);
    setHidden(this.group, !control);
    setHidden(parts["actions-head"], !control);
    for (const [action, button] of this.all) labelButton(button, action, upstream.name, null);
    const present = new Map();
    for (const endpoint of upstream.endpoints) {
      const row = this.rows.get(endpoint.address) ?? new EndpointRow(this, endpoint.address);
      row.update(endpoint, upstream, control);
      present.set(endpoint.address, row);
    }
    this.rows = present;
    arrange(this.body, [...present.values()].map((row) => row.node));
    const more = total(upstream) - upstream.endpoints.length;
    setHidden(parts.more, more <= 0);
    setText(parts.more, more > 0 ? `${more} more, which are no worse; sidecar status lists all of them.` : "");
  }

  tick(clock) {
    for (const row of this.rows.values()) row.tick(clock);
  }
}
