// What is known of the sidecar, and what follows from it. No DOM here.

import { plural, ratio, span } from "./format.js";

// From one request in twenty on an upstream is called failing: more than the odd 5xx that a service has of its own.
const FAILING = 0.05;

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
export function inRotation(upstream) {
  const out = upstream.endpoints.filter((endpoint) => !serves(endpoint)).length;
  return total(upstream) - out;
}

export const serves = (endpoint) => endpoint.in_rotation && !endpoint.drained;

/** How an endpoint is: `{shape, tone, text}`. */
export function endpointState(endpoint) {
  const { state, held } = endpoint.breaker;
  if (endpoint.drained) return { shape: "drained", tone: "warn", text: "drained" };
  if (held === "hand") return { shape: "down", tone: "bad", text: "tripped by hand" };
  if (held === "checks") return { shape: "down", tone: "bad", text: "out: checks fail" };
  if (state === "open") return { shape: "down", tone: "bad", text: "out: breaker open" };
  if (state === "half_open") return { shape: "probing", tone: "warn", text: "half open" };
  if (!endpoint.in_rotation) return { shape: "degraded", tone: "warn", text: "out of rotation" };
  return { shape: "well", tone: "good", text: "in rotation" };
}

/** How an upstream is: `{name, reason}`; a name of VERDICTS, and why in words. */
export function verdict(upstream) {
  const all = total(upstream);
  const serving = inRotation(upstream);
  const drained = upstream.endpoints.filter((endpoint) => endpoint.drained).length;
  const ill = all - serving - drained;
  const errors = upstream.recent?.errors ?? 0;
  const notes = [];
  if (ill) notes.push(`${ill} of ${plural(all, "endpoint")} out`);
  if (drained) notes.push(`${drained} of ${plural(all, "endpoint")} drained`);
  if (errors >= FAILING) notes.push(`${ratio(errors)} errors`);
  for (const feed of upstream.registries ?? []) if (feed.stale) notes.push(`${feed.source} is stale`);
  const { pending, pending_used: waiting } = upstream.limits;
  if (waiting && waiting >= pending) notes.push("its queue is full");
  const said = (name, ...more) => ({ name, reason: [...more, ...notes].join(", ") });
  if (upstream.leaving) return said("leaving", "not configured any more");
  if (!all) return said("down", "it has no endpoints");
  if (drained === all) return said("down");
  if (upstream.panic) return said("panic", "too few are well, so that all are used");
  if (!serving) return said("down");
  if (errors >= FAILING) return said("failing");
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
    this.history = { interval: 5, length: 120, at: 0, upstreams: {} };
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
    this.history = { ...history, at: Date.parse(history.at) };
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
      const before = this.verdicts.get(upstream.name);
      const after = verdict(upstream);
      this.verdicts.set(upstream.name, after);
      if (before && before.name !== after.name) turned.push(upstream.name);
    }
    this.order = state.order.filter((name) => this.upstreams.has(name));
    const configured = new Set(state.order);
    for (const name of this.upstreams.keys()) if (!configured.has(name)) this.forget(name);
    if (this.extend(this.wall)) for (const name of this.order) changed.add(name);
    return { changed, turned };
  }

  forget(name) {
    this.upstreams.delete(name);
    this.verdicts.delete(name);
    delete this.history.upstreams[name];
  }

  /** One more point of history when it is time, of what is told each second; whether there is one. */
  extend(at) {
    const { history } = this;
    const steps = Math.min(Math.floor((at - history.at) / (history.interval * 1000)), history.length);
    if (!(steps > 0)) return false;
    this.points += 1;
    history.at += steps * history.interval * 1000;
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
