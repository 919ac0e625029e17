// Numbers and moments for people. What is not known is an en dash.

export const UNKNOWN = "–";

const SPACE = "\u00a0"; // between number and unit: no line ends there

const known = (value) => value !== null && value !== undefined;

/** Three digits tell what there is to tell at a glance. */
function digits(value) {
  if (value >= 100 || Number.isInteger(value)) return String(Math.round(value));
  return value >= 10 ? String(Math.round(value)) : value.toFixed(1);
}

function scaled(value, units, step) {
  let unit = 0;
  while (value >= step && unit < units.length - 1) {
    value /= step;
    unit += 1;
  }
  return digits(value) + units[unit];
}

export function count(value) {
  if (!known(value)) return UNKNOWN;
  return Number.isInteger(value) && value < 10000 ? String(value) : scaled(value, ["", "k", "M", "G"], 1000);
}

export const rate = (value) => (known(value) ? `${count(value)}/s` : UNKNOWN);

const BINARY = ["B", "KiB", "MiB", "GiB", "TiB"].map((unit) => SPACE + unit);

export const bytes = (value) => (known(value) ? scaled(value, BINARY, 1024) : UNKNOWN);

export function ratio(value) {
  if (!known(value)) return UNKNOWN;
  const percent = value * 100;
  if (percent > 0 && percent < 0.1) return `<${SPACE}0.1${SPACE}%`;
  return `${percent > 0 && percent < 10 ? percent.toFixed(1) : Math.round(percent)}${SPACE}%`;
}

export function seconds(value) {
  if (!known(value)) return UNKNOWN;
  if (value < 0.00995) return `${(value * 1000).toFixed(1)}${SPACE}ms`;
  if (value < 0.9995) return `${Math.round(value * 1000)}${SPACE}ms`;
  return value < 9.95 ? `${value.toFixed(1)}${SPACE}s` : `${Math.round(value)}${SPACE}s`;
}

/** How long ago, or until: whole seconds, so that what counts does not flicker. */
export function span(value) {
  if (!known(value)) return UNKNOWN;
  const whole = Math.max(0, Math.round(value));
  if (whole < 120) return `${whole}${SPACE}s`;
  return whole < 7200 ? `${Math.floor(whole / 60)}${SPACE}min` : `${Math.floor(whole / 3600)}${SPACE}h`;
}

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

/** The time of day of an RFC 3339 moment, where the reader is. */
export const timeOfDay = (moment) => clock.format(new Date(moment));

/** A label of the sidecar as words. */
export const words = (label) => label.replaceAll("_", " ");

export const plural = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;
