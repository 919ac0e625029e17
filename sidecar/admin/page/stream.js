// What the sidecar tells, as it happens: server-sent events (HTML standard, section 9.2) over fetch().
//
// EventSource would be shorter, but it can send no Authorization, and says nothing of a 401.

// Milliseconds. The sidecar sends a state each second, and a comment after five in which it could not: without a byte
// for seven the connection is as good as gone.
const SILENCE = 7000;
// Between attempts, by chance up to: doubling, so that many pages do not come back at once after a restart.
const FIRST_WAIT = 500;
const LONGEST_WAIT = 10000;

const TOKEN = "sidecar-token"; // its key in sessionStorage: gone with the tab

/** The header fields that a request to the sidecar has to carry. */
export function credentials() {
  const token = sessionStorage.getItem(TOKEN);
  return token === null ? {} : { Authorization: `Bearer ${token}` };
}

export function keepToken(token) {
  sessionStorage.setItem(TOKEN, token);
}

export function hasToken() {
  return sessionStorage.getItem(TOKEN) !== null;
}

/** Splits text that comes in pieces into events: `{type, data}`. */
export class EventParser {
  constructor(emit) {
    this.emit = emit;
    this.rest = "";
    this.type = "";
    this.data = [];
  }

  feed(piece) {
    const text = this.rest + piece;
    // A CR at the very end may be half of a CRLF.
    const end = text.endsWith("\r") ? text.length - 1 : text.length;
    const lines = text.slice(0, end).split(/\r\n|\n|\r/);
    this.rest = lines.pop() + text.slice(end);
    for (const line of lines) this.line(line);
  }

  line(line) {
    if (line === "") {
      if (this.data.length) this.emit({ type: this.type || "message", data: this.data.join("\n") });
      this.type = "";
      this.data = [];
      return;
    }
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon); // a comment's is empty
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "event") this.type = value;
    else if (field === "data") this.data.push(value);
  }
}

/**
 * Keeps a connection to `url` for as long as the page lives.
 *
 * on.event({type, data}) for each event; on.open() when the sidecar answers; on.lost(why) whenever it does not, or
 * no more; on.unauthorized() after a 401, and then nothing until restart().
 */
export class Stream {
  constructor(url, on) {
    this.url = url;
    this.on = on;
    this.wait = FIRST_WAIT;
    this.attempt = null; // the AbortController of the one under way
    this.timer = 0; // until the next attempt
    // Whoever looks at the page again is not to wait for the rest of a back-off.
    const hurry = () => {
      if (this.timer && document.visibilityState === "visible") this.restart();
    };
    document.addEventListener("visibilitychange", hurry);
    addEventListener("online", hurry);
  }

  restart() {
    clearTimeout(this.timer);
    this.timer = 0;
    this.attempt?.abort();
    this.attempt = new AbortController();
    this.run(this.attempt);
  }

  async run(attempt) {
    let why;
    try {
      why = await this.follow(attempt);
    } catch (error) {
      why = attempt.why ?? (error instanceof TypeError ? "the sidecar does not answer" : String(error.message ?? error));
    }
    if (attempt !== this.attempt) return; // another one has taken its place
    if (why === null) {
      this.on.unauthorized();
      return;
    }
    this.on.lost(why);
    this.timer = setTimeout(() => this.restart(), this.wait * (0.5 + Math.random() / 2));
    this.wait = Math.min(this.wait * 2, LONGEST_WAIT);
  }

  /** Reads one connection to its end; why it ended, null for a 401. */
  async follow(attempt) {
    let watchdog = 0;
    const alive = () => {
      clearTimeout(watchdog);
      watchdog = setTimeout(() => {
        attempt.why = "the sidecar says nothing any more";
        attempt.abort();
      }, SILENCE);
    };
    try {
      alive();
      const response = await fetch(this.url, {
        headers: { Accept: "text/event-stream", ...credentials() },
        cache: "no-store",
        signal: attempt.signal,
      });
      if (response.status === 401) return null;
      if (!response.ok) return await refusal(response);
      this.on.open();
      const parser = new EventParser((event) => {
        this.wait = FIRST_WAIT; // it works: only an answer without events would be asked for ever faster
        this.on.event(event);
      });
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return "the sidecar has ended the connection";
        if (attempt !== this.attempt) return "";
        alive();
        parser.feed(value);
      }
    } finally {
      clearTimeout(watchdog);
    }
  }
}

/** What an answer that is an error says: the sidecar's are `{error, status}`. */
export async function refusal(response) {
  try {
    const { error } = await response.json();
    if (typeof error === "string") return error;
  } catch {
    // not from the sidecar, or cut off: the status is what is known
  }
  return `the sidecar answers ${response.status}`;
}
