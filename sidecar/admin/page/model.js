// What is known of the sidecar, and what follows from it. No DOM here.

import { plural, ratio, span } from "./format.js";

// As sidecar status has it (console/facts.py): half of at least one request a second, and one in a hundred.
const FAILING = 0.5;
const ENOUGH = 1;
const DEGRADED = 0.01;

// Requests that would have ended by now had it gone on as before: when none has, that is no chance. After a minute
// time-outs have spoken, and what is still under way is a stream.
const EXPECTED = 20;
const STALLED = [0.9, 60]; // seconds

// Worst first. shape: see index.html. tone: the colour's name in style.css.
export const VERDICTS = {
  down: { rank: 0, shape: "down", tone: "bad" },
  panic: { rank: 1, shape: "panic", tone: "bad" },
  failing: { rank: 2, shape: "failing", tone: "bad" },
  degraded: { rank: 3, shape: "degraded", tone: "warn" },
  drained: { rank: 4, shape: "drained", tone: "warn" },
  leaving: { rank: 5, shape: "leaving", tone: "calm" },
  well: { rank: 6, shape: "well", tone: "good" },
};

const SERIES = ["requests", "errors", "p50", "p99"];

export const isHttp = (upstream) => upstream.scheme === "http";

/** What counts as its pace: requests, or sessions that have ended. */
export function pace(upstream) {
  if (!upstream.recent) return null;
  return isHttp(upstream) ? upstream.recent.requests : upstream.recent.sessions;
}

/** How many endpoints it has; a view names at most the hundred that are least well. */
export const total = (upstream) => upstream.endpoints_total ?? upstream.endpoints.length;

/** Those that new requests go to. */
export const inRotation = (upstream) => upstream.endpoints_serving ?? upstream.endpoints.filter(serves).length;

const drainedOf = (upstream) =>
  upstream.endpoints_drained ?? upstream.endpoints.filter((endpoint) => endpoint.drained).length;

export const serves = (endpoint) => endpoint.in_rotation && !endpoint.drained;

/** How an endpoint is: `{shape, tone, text}`. panic: its upstream's. */
export function endpointState(endpoint, panic) {
  const { state, held } = endpoint.breaker;
  if (endpoint.drained) return { shape: "drained", tone: "warn", text: "drained" };
  if (held === "hand") return { shape: "down", tone: "bad", text: "tripped by hand" };
  if (held === "checks" && !endpoint.in_rotation) return { shape: "down", tone: "bad", text: "out: checks fail" };
  if (state === "open" && endpoint.in_rotation) {
    const why = panic ? "panic" : "its breaker only observes";
    return { shape: "degraded", tone: "warn", text: `breaker open, used all the same: ${why}` };
  }
  if (state === "open") return { shape: "down", tone: "bad", text: "out: breaker open" };
  if (state === "half_open") return { shape: "probing", tone: "warn", text: "half open" };
  if (!endpoint.in_rotation) return { shape: "degraded", tone: "warn", text: "out of rotation" };
  return { shape: "well", tone: "good", text: "in rotation" };
}

/**
 * How an upstream is: `{name, reason}`; a name of VERDICTS, and why in words.
 *
 * quiet: seconds for which none of its requests has ended, where some should have; 0 where all is as usual.
 */
export function verdict(upstream, quiet = 0) {
  const all = total(upstream);
  const serving = inRotation(upstream);
  const drained = drainedOf(upstream);
  const ill = all - serving - drained;
  const errors = upstream.recent?.errors ?? 0;
  const notes = [];
  if (ill) notes.push(`${ill} of ${plural(all, "endpoint")} out`);
  const observed = upstream.panic ? 0 : upstream.endpoints.filter((one) => serves(one) && one.breaker.state === "open").length;
  if (observed) notes.push(`${observed} of ${plural(all, "endpoint")} used though its breaker is open`);
  if (drained) notes.push(`${drained} of ${plural(all, "endpoint")} drained`);
  if (quiet) notes.push(`${upstream.in_flight} under way, none has ended for ${span(quiet)}`);
  if (errors >= DEGRADED) notes.push(`${ratio(errors)} errors`);
  for (const feed of upstream.registries ?? []) if (feed.stale) notes.push(`${feed.source} is stale`);
  const { pending, pending_used: waiting } = upstream.limits;
  if (waiting && waiting >= pending) notes.push("its queue is full");
  const said = (name, ...more) => ({ name, reason: [...more, ...notes].join(", ") });
  if (upstream.leaving) return said("leaving", "not configured any more");
  if (upstream.routes) return said(notes.length ? "degraded" : "well");
  if (!all) return said("down", "it has no endpoints");
  if (drained === all) return said("down");
  if (!serving) return said("down");
  if (upstream.panic) return said("panic", all - drained === serving ? "too few are well, so that all are used" : "too few are well");
  if (errors >= FAILING && pace(upstream) >= ENOUGH) return said("failing");
  if (notes.length > (drained ? 1 : 0)) return said("degraded");
  if (drained) return said("drained");
  return said("well");
}

/** The page's picture of the sidecar. */
export class Model {
  constructor() {
    this.hello = null;
    this.order = [];
    this.upstreams = new Map(); // name -> view, as in /v1/upstreams
    this.verdicts = new Map();
    this.flows = new Map(); // name -> {ended, since, rate}: requests that have ended, since when as many, and how many a second before
    this.history = { length: 120, points: 0, upstreams: {} };
    this.points = 0; // counts what has been added to it: whoever has drawn as many is up to date
    this.draining = false;
    this.workers = null;
    this.registrations = [];
    this.at = null; // performance.now() of the last word
    this.wall = 0; // the sidecar's clock then, in milliseconds: a reader's may be minutes off
  }

  get control() {
    return this.hello?.control === true;
  }

  takeHello(hello) {
    this.hello = hello;
  }

  takeHistory(history) {
    this.history = history;
    this.points += 1;
  }

  /** Takes a `state` event; `{changed, turned}`: names to draw again, names whose verdict is another. */
  takeState(state, now) {
    this.at = now;
    this.wall = Date.parse(state.at);
    this.draining = state.draining === true;
    this.workers = state.workers ?? null;
    this.registrations = state.registrations ?? [];
    const changed = new Set();
    const turned = [];
    for (const upstream of state.upstreams) {
      this.upstreams.set(upstream.name, upstream);
      changed.add(upstream.name);
    }
    for (const [name, upstream] of this.upstreams) {
      const quiet = this.quiet(upstream, now);
      if (!changed.has(name) && !quiet && !this.flows.get(name).told) continue;
      this.flows.get(name).told = quiet > 0;
      const before = this.verdicts.get(name);
      const after = verdict(upstream, quiet);
      this.verdicts.set(name, after);
      changed.add(name);
      if (before && before.name !== after.name) turned.push(name);
    }
    this.order = state.order.filter((name) => this.upstreams.has(name));
    const configured = new Set(state.order);
    for (const name of this.upstreams.keys()) if (!configured.has(name)) this.forget(name);
    if (this.extend(state.points)) for (const name of this.order) changed.add(name);
    return { changed, turned };
  }

  /** For how many seconds none of its requests has ended where some should have; 0 where all is as usual. */
  quiet(upstream, now) {
    const { name, recent } = upstream;
    const ended = upstream.requests.total;
    const flow = this.flows.get(name);
    if (flow?.ended !== ended) {
      this.flows.set(name, { ended, since: now, rate: flow ? (recent?.requests ?? 0) : 0, told: flow?.told });
      return 0;
    }
    const seconds = (now - flow.since) / 1000;
    const stalled = isHttp(upstream) && upstream.in_flight > 0 && flow.rate * seconds >= EXPECTED;
    return stalled && seconds >= STALLED[0] && seconds <= STALLED[1] ? seconds : 0;
  }

  forget(name) {
    this.upstreams.delete(name);
    this.verdicts.delete(name);
    this.flows.delete(name);
    delete this.history.upstreams[name];
  }

  /** The points of history that the sidecar has ended since, of what is told each second; whether there are any. */
  extend(points) {
    const { history } = this;
    const steps = Math.min(points - history.points, history.length);
    if (!(steps > 0)) return false;
    this.points += 1;
    history.points = points;
    for (const [name, upstream] of this.upstreams) {
      const series = (history.upstreams[name] ??= emptySeries(history.length));
      const recent = upstream.recent;
      const values = recent ? { ...recent, requests: pace(upstream) } : {};
      for (const key of SERIES) {
        for (let step = 1; step <= steps; step += 1) {
          series[key].shift();
          series[key].push(step === steps ? (values[key] ?? null) : null); // what was missed is a gap
        }
      }
    }
    return true;
  }

  /** Names in the order to show them in. */
  sorted(worstFirst, filter) {
    const wanted = filter.trim().toLowerCase();
    const names = this.order.filter((name) => name.toLowerCase().includes(wanted));
    if (worstFirst) {
      const rank = (name) => VERDICTS[this.verdicts.get(name).name].rank;
      names.sort((one, other) => rank(one) - rank(other)); // stable: of those alike the configured order
    }
    return names;
  }

  /** How many upstreams have which verdict, worst first: `[[name, count], ...]`. */
  tally() {
    const counts = new Map(Object.keys(VERDICTS).map((name) => [name, 0]));
    for (const name of this.order) {
      const found = this.verdicts.get(name).name;
      counts.set(found, counts.get(found) + 1);
    }
    return [...counts].filter(([, number]) => number);
  }

  /** What the sidecar's clock shows now, in milliseconds since the epoch. */
  clock() {
    return this.wall + performance.now() - this.at;
  }

  /** What the workers are, in words; empty where there is one process. */
  get workersText() {
    const { workers } = this;
    if (!workers) return "";
    const parts = [`${workers.running} of ${workers.configured} workers`];
    for (const word of ["leaving", "silent"]) if (workers[word]) parts.push(`${workers[word]} ${word}`);
    if (workers.restarts) parts.push(plural(workers.restarts, "restart"));
    return parts.join(", ");
  }
}

function emptySeries(length) {
  return Object.fromEntries(SERIES.map((key) => [key, new Array(length).fill(null)]));
}

/** How long ago a registry was heard of, in words. clock: see Model.clock. */
export function feedText(feed, clock) {
  if (feed.heard_at === null) return "not heard of yet";
  return `heard of ${span((clock - Date.parse(feed.heard_at)) / 1000)} ago`;
}
