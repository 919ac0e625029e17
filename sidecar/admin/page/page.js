// The page put together: what the stream tells goes into the model, what has changed there is drawn.

import { TokenPrompt } from "./actions.js";
import { announce } from "./announce.js";
import { arrange, byId, make, setAttribute, setHidden, setShape, setText, shape } from "./dom.js";
import { plural, span, timeOfDay, words } from "./format.js";
import { Model, VERDICTS } from "./model.js";
import { Stream } from "./stream.js";
import { UpstreamRow } from "./upstream.js";

// As many of those that are not well open by themselves: in an outage of hundreds the list stays a list.
const OPENED = 5;
const TICK = 500; // milliseconds between looks at what counts by itself: a second is never skipped
const OLD = 3000; // milliseconds without a state, which comes each second, after which nothing is called live

const model = new Model();
const rows = new Map();
const dirty = new Set(); // names to draw again
let scheduled = false;
let lost = null; // why there is no connection; null while there is one

const tokenPrompt = new TokenPrompt({
  entered: () => stream.restart(),
  left: () => showConnection("refused", "A token is needed"),
});
const stream = new Stream("v1/events", {
  open() {
    if (lost !== null && model.at !== null) announce("Connected again");
    lost = null;
    setHidden(byId("token-again"), true);
  },
  event({ type, data }) {
    const value = JSON.parse(data);
    if (type === "hello") {
      model.takeHello(value);
      for (const name of model.order) dirty.add(name); // what may be done may have changed
    } else if (type === "history") {
      model.takeHistory(value);
      for (const name of model.order) dirty.add(name);
    } else if (type === "state") {
      const { changed, turned } = model.takeState(value, performance.now());
      for (const name of changed) dirty.add(name);
      for (const name of turned) {
        const { name: word, reason } = model.verdicts.get(name) ?? { name: "gone", reason: "" };
        announce(`${name} is ${word}${reason ? `, ${reason}` : ""}`);
      }
      drawTitle(); // not with the rest: no frame is drawn for a tab in the background, where only this is seen
    }
    schedule();
  },
  lost(why) {
    if (lost === null) announce(model.at === null ? `No connection: ${why}` : `Connection lost, ${age()}`);
    lost = why;
    tick();
  },
  unauthorized() {
    lost = "a token is needed";
    setHidden(byId("token-again"), false);
    tokenPrompt.ask();
    tick();
  },
});

const age = () => `data from ${span((performance.now() - model.at) / 1000)} ago`;

function schedule() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    draw();
  });
}

function draw() {
  const names = model.sorted(byId("worst-first").getAttribute("aria-pressed") === "true", byId("filter").value);
  for (const name of rows.keys()) if (!model.upstreams.has(name)) rows.delete(name);
  for (const name of model.order) {
    if (!rows.has(name)) {
      rows.set(name, new UpstreamRow(name, tokenPrompt));
      dirty.add(name);
    }
    if (dirty.has(name)) rows.get(name).update(model.upstreams.get(name), model);
  }
  dirty.clear();
  arrange(
    byId("upstreams"),
    names.map((name) => rows.get(name).node),
  );
  const unwell = names.filter((name) => !["well", "leaving"].includes(model.verdicts.get(name).name));
  const opened = new Set(unwell.slice(0, OPENED));
  for (const name of names) rows.get(name).suggest(opened.has(name));
  drawAround(names);
  tick();
}

/** All but the list: what the sidecar is, how many are how, what it announces. */
function drawAround(names) {
  const { hello } = model;
  if (hello) {
    const build = hello.compiled ? "compiled" : "pure Python";
    const about = [`${hello.version}, ${build}`, `mode ${words(hello.mode)}`, model.workersText];
    if (!hello.control) about.push("read only");
    setText(byId("about"), about.filter(Boolean).join(" · "));
  }
  drawSummary(model.tally());
  setHidden(byId("draining"), !model.draining);
  setHidden(byId("empty"), names.length > 0 || model.at === null);
  setText(byId("empty"), model.order.length ? "No upstream has such a name." : "No upstream is configured.");
  drawRegistrations();
}

function drawTitle() {
  const unwell = model.tally().filter(([name]) => VERDICTS[name].rank < VERDICTS.leaving.rank);
  const number = unwell.reduce((sum, [, some]) => sum + some, 0);
  const title = number ? `${number} unwell · sidecar` : "sidecar";
  if (document.title !== title) document.title = title;
}

function drawSummary(tally) {
  const list = byId("summary");
  const key = JSON.stringify(tally);
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  list.replaceChildren(
    ...tally.map(([name, number]) =>
      make("li", { "data-tone": VERDICTS[name].tone }, shape(VERDICTS[name].shape), ` ${number} ${name}`),
    ),
  );
}

function drawRegistrations() {
  const { registrations } = model;
  setHidden(byId("registrations"), !registrations.length);
  const lines = registrations.map((one) => {
    const state = `${words(one.state)} since ${timeOfDay(one.since)}`;
    const where = one.address ? ` at ${one.address}` : "";
    return [one, `${one.name}${where} in ${one.registry}: ${state}${one.error ? `, ${one.error}` : ""}`];
  });
  const list = byId("registrations-list");
  const key = JSON.stringify(lines.map(([, text]) => text));
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  const looks = { announced: ["well", "good"], unwell: ["degraded", "warn"], failing: ["failing", "bad"] };
  list.replaceChildren(
    ...lines.map(([one, text]) => {
      const [form, tone] = looks[one.state] ?? ["leaving", "calm"];
      return make("li", { "data-tone": tone }, shape(form), ` ${text}`);
    }),
  );
}

/** Countdowns and ages, and how old all of it is. */
function tick() {
  const clock = model.clock();
  for (const row of rows.values()) row.tick(clock);
  document.body.classList.toggle("stale", lost !== null && model.at !== null);
  if (lost !== null) {
    showConnection("lost", model.at === null ? `No connection: ${lost}` : `Connection lost, ${age()}`);
    setAttribute(byId("connection"), "title", lost);
  } else if (model.at !== null) {
    if (performance.now() - model.at > OLD) showConnection("connecting", `Waiting, ${age()}`);
    else showConnection("live", "Live");
    byId("connection").removeAttribute("title");
  }
}

function showConnection(state, text) {
  setAttribute(byId("connection"), "data-state", state);
  setShape(byId("connection").querySelector("use"), { live: "well", connecting: "unknown" }[state] ?? "degraded");
  setText(byId("connection-text"), text);
}

byId("filter").addEventListener("input", schedule);
byId("token-again").addEventListener("click", () => tokenPrompt.ask());
byId("worst-first").addEventListener("click", ({ currentTarget }) => {
  currentTarget.setAttribute("aria-pressed", String(currentTarget.getAttribute("aria-pressed") !== "true"));
  schedule();
});
setInterval(tick, TICK);
stream.restart();
