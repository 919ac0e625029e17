// The few things that are done to the page. Text goes in as text only: names come from configuration and registries.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

/** A new element: `make("li", {class: "x"}, "text", child, ...)`. */
export function make(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

export function makeSvg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** A copy of a <template>, and its parts by the name in `data-part`. */
export function copy(id) {
  const content = byId(id).content.cloneNode(true);
  const parts = {};
  for (const node of content.querySelectorAll("[data-part]")) parts[node.dataset.part] = node;
  return { content, parts };
}

/** Each of these touches the document only where it differs: what stays keeps focus, selection and layout. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function setAttribute(node, name, value) {
  if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

export function setHidden(node, hidden) {
  if (node.hidden !== hidden) node.hidden = hidden;
}

export const setShape = (use, name) => setAttribute(use, "href", `#shape-${name}`);

export function shape(name) {
  return makeSvg("svg", { class: "shape", "aria-hidden": "true" }, makeSvg("use", { href: `#shape-${name}` }));
}

/**
 * Makes `wanted` the children of `parent`, in that order.
 *
 * A node that is moved loses the focus that is in it, so that the one with the focus stays, and others move around it.
 */
export function arrange(parent, wanted) {
  const kept = new Set(wanted);
  for (const node of [...parent.children]) if (!kept.has(node)) node.remove();
  const focused = wanted.findIndex((node) => node.parentNode === parent && node.contains(document.activeElement));
  const before = focused < 0 ? [] : wanted.slice(0, focused);
  let next = place(parent, before, parent.firstElementChild);
  if (focused >= 0) next = wanted[focused].nextElementSibling;
  place(parent, wanted.slice(focused + 1), next);
}

function place(parent, nodes, next) {
  for (const node of nodes) {
    if (node === next) next = next.nextElementSibling;
    else parent.insertBefore(node, next);
  }
  return next;
}
