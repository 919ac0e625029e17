// One upstream: a line that says how it is, and what is behind it once it is opened.

import { copy, make, setAttribute, setHidden, setShape, setText } from "./dom.js";
import { EndpointTable } from "./endpoints.js";
import { bytes, count, plural, rate, ratio, seconds, words } from "./format.js";
import { VERDICTS, feedText, inRotation, isHttp, pace, total } from "./model.js";
import { Sparkline } from "./sparkline.js";

let made = 0; // for ids, as names may hold anything

export class UpstreamRow {
  constructor(name, token) {
    const { content, parts } = copy("upstream-template");
    this.node = content.firstElementChild;
    this.parts = parts;
    this.token = token;
    this.inside = this.node.querySelector(".inside");
    this.toggle = this.node.querySelector(".toggle");
    this.chosen = null; // whether it is open, once the reader has said so
    this.open = false;
    this.table = null; // made when it is first opened
    this.facts = new Map();
    made += 1;
    parts.name.id = `name-${made}`;
    this.inside.id = `inside-${made}`;
    this.node.querySelector("article").setAttribute("aria-labelledby", parts.name.id);
    this.toggle.setAttribute("aria-controls", this.inside.id);
    setText(parts.name, name);
    this.requests = new Sparkline(parts["requests-spark"], ["rate"], ["errors"]);
    this.latency = new Sparkline(parts["latency-spark"], ["p50", "p99"]);
    this.toggle.addEventListener("click", () => {
      this.chosen = !this.open;
      this.setOpen(this.chosen);
    });
  }

  /** suggested: whether it should be open as long as the reader has not said. */
  suggest(suggested) {
    const open = this.chosen ?? suggested;
    // What the reader is at does not close under the hands.
    if (open === this.open || (!open && this.inside.contains(document.activeElement))) return;
    this.setOpen(open);
  }

  setOpen(open) {
    this.open = open;
    this.toggle.setAttribute("aria-expanded", String(open));
    setHidden(this.inside, !open);
    if (open && this.last) this.updateInside(...this.last);
  }

  /** upstream: its view. model: for verdict, history and what is allowed. */
  update(upstream, model) {
    const { parts } = this;
    const found = model.verdicts.get(upstream.name);
    const { shape, tone } = VERDICTS[found.name];
    setAttribute(this.node, "data-tone", tone);
    setShape(parts.shape, shape);
    setText(parts.verdict, found.name);
    setText(parts.reason, found.reason || routesText(upstream) || `${upstream.scheme}, ${words(upstream.strategy)}`);
    const { recent } = upstream;
    setText(parts["rate-label"], isHttp(upstream) ? "Requests" : "Sessions");
    setText(parts.rate, rate(pace(upstream)));
    setText(parts.errors, ratio(recent?.errors));
    setAttribute(parts.errors, "data-some", String((recent?.errors ?? 0) > 0));
    setText(parts.p50, seconds(recent?.p50));
    setText(parts.p99, seconds(recent?.p99));
    setText(parts.serving, upstream.routes ? "–" : `${inRotation(upstream)} of ${total(upstream)}`);
    if (this.points !== model.points) this.drawSparks(upstream, model.history.upstreams[upstream.name]);
    this.points = model.points;
    this.last = [upstream, model];
    if (this.open) this.updateInside(upstream, model);
  }

  drawSparks(upstream, series) {
    if (!series) return;
    const failed = series.requests.map((value, at) => (value === null ? null : value * (series.errors[at] ?? 0)));
    const things = isHttp(upstream) ? "Requests" : "Sessions";
    this.requests.draw({ rate: series.requests, errors: failed }, requestsText(things, series));
    this.latency.draw({ p50: series.p50, p99: series.p99 }, latencyText(series));
  }

  updateInside(upstream, model) {
    if (!this.table) {
      const { content, parts } = copy("inside-template");
      const body = content.querySelector("tbody");
      this.insideParts = parts;
      this.inside.append(content);
      this.table = new EndpointTable(parts, body, this.token);
    }
    this.table.update(upstream, model.control);
    for (const [label, value] of factsOf(upstream)) this.setFact(label, value);
    this.tick(model.clock());
  }

  setFact(label, value, looks = "") {
    let fact = this.facts.get(label);
    if (!fact) {
      fact = { row: make("div", { class: looks }, make("dt", {}, label)), value: make("dd") };
      fact.row.append(fact.value);
      this.facts.set(label, fact);
      this.insideParts.facts.append(fact.row);
    }
    setText(fact.value, value ?? "");
    setHidden(fact.row, !value);
  }

  /** What counts by itself. clock: see Model.clock. */
  tick(clock) {
    if (!this.open || !this.table) return;
    this.table.tick(clock);
    for (const feed of this.last[0].registries ?? []) this.setFact(`Registry ${feed.source}`, feedFact(feed, clock), "sentence");
  }
}

function feedFact(feed, clock) {
  const parts = [feedText(feed, clock)];
  if (feed.endpoints !== null) parts.push(plural(feed.endpoints, "endpoint"));
  if (feed.stale) parts.push("stale: its last word is used");
  if (feed.saved) parts.push("from the last good file");
  if (feed.error) parts.push(feed.error);
  return parts.join(", ");
}

const matchText = (route) =>
  [route.methods.join(" or "), route.host + route.path, route.headers.length ? `with ${route.headers.join(", ")}` : ""].filter(Boolean).join(" ");

/** Where a router sends requests, the first route that fits being the one; null of any other upstream. */
function routesText(upstream) {
  if (!upstream.routes) return null;
  const parts = upstream.routes.map((route) => {
    const share = (one) => (route.to.length > 1 ? `${one.upstream} ${one.weight}` : one.upstream);
    return `${matchText(route)} → ${route.to.map(share).join(", ")}`;
  });
  return parts.length > 3 ? `${parts.slice(0, 3).join("; ")} and ${plural(parts.length - 3, "more route")}` : parts.join("; ");
}

const used = (now, limit) => (limit === null ? count(now) : `${count(now)} of ${count(limit)}`);

/** `[label, text or null]`; what is null has nothing to say and is not shown. */
function factsOf(upstream) {
  const { limits, retries, hedges, recent, overflows, deadlines } = upstream;
  const answered = Object.entries(upstream.requests.by_class).map(([name, number]) => `${name} ${count(number)}`);
  const reasons = Object.entries(upstream.requests.by_reason)
    .filter(([reason]) => reason !== "none")
    .map(([reason, number]) => `${words(reason)} ${count(number)}`);
  const ended = Object.entries(upstream.sessions.by_reason).map(([name, number]) => `${words(name)} ${count(number)}`);
  const retried = ["succeeded", "failed", "refused", "active"].filter((result) => retries[result]);
  const relayed = recent && (!isHttp(upstream) || recent.bytes_sent || recent.bytes_received); // of sessions
  const over = Object.entries(overflows.by_limit).map(([name, number]) => `${words(name)} ${count(number)}`);
  return [
    ["Protocol", `${upstream.scheme}, ${words(upstream.strategy)}`],
    ["Endpoints from", upstream.source],
    ["In flight", used(limits.in_flight_used, limits.in_flight)],
    ["Connections", used(limits.connections_used, limits.connections)],
    ["Waiting", used(limits.pending_used, limits.pending)],
    ["Bytes out, in", relayed ? `${bytes(recent.bytes_sent)}/s, ${bytes(recent.bytes_received)}/s` : null],
    ["Answers", answered.join(", ") || null],
    ["Failures", reasons.join(", ") || null],
    ["Sessions ended", ended.join(", ") || null],
    ["Retries", retried.map((result) => `${count(retries[result])} ${result}`).join(", ") || null],
    ["Hedges", hedges.won + hedges.lost ? `${count(hedges.won)} won, ${count(hedges.lost)} lost` : null],
    ["Overflows", over.join(", ") || null],
    ["Deadlines exceeded", deadlines.exceeded ? count(deadlines.exceeded) : null],
  ];
}

/** The least, the most and the last of what is known; null when nothing is. */
function range(values, format) {
  const known = values.filter((value) => value !== null);
  if (!known.length) return null;
  return { least: format(Math.min(...known)), most: format(Math.max(...known)), last: format(known.at(-1)) };
}

function requestsText(things, series) {
  const paces = range(series.requests, rate);
  if (!paces) return `${things} of the last ten minutes: nothing known yet`;
  const errors = range(series.errors, ratio);
  const failed = errors ? `; errors at most ${errors.most}, now ${errors.last}` : "";
  return `${things} of the last ten minutes: ${paces.least} to ${paces.most}, now ${paces.last}${failed}`;
}

function latencyText(series) {
  const slow = range(series.p99, seconds);
  const half = range(series.p50, seconds);
  if (!slow || !half) return `Latency of the last ten minutes: nothing known yet`;
  return `Latency of the last ten minutes: p99 ${slow.least} to ${slow.most}, now ${slow.last}; p50 now ${half.last}`;
}
