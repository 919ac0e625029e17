// Node's http module as a client: `node node_client.js PORT`. A talk is POSTed to it as JSON, and what came of
// it is the answer (see clients.py): starting Node anew for each would take much longer than the talks.
"use strict";

const http = require("http");

// One request. session: {agent, sockets}, the connections that the talk has opened.
function ask(session, port, { method, target, headers, body, chunked, follow }) {
  const here = `http://127.0.0.1:${port}${target}`;
  return new Promise((resolve, reject) => {
    const named = {};
    for (const [name, value] of headers) named[name] = [...(named[name] || []), value];
    const options = {
      host: "127.0.0.1",
      port,
      agent: session.agent,
      method,
      path: target,
      headers: named,
      maxHeaderSize: 65536,
      timeout: 20000,
    };
    const request = http.request(options, (response) => {
      const pieces = [];
      response.on("data", (piece) => pieces.push(piece));
      response.on("error", reject);
      response.on("end", () => {
        const raw = response.rawHeaders;
        const pairs = [];
        for (let at = 0; at < raw.length; at += 2) pairs.push(raw.slice(at, at + 2));
        // The module follows no redirects; its users do it like this.
        if (follow && response.statusCode === 302) {
          const url = new URL(response.headers.location, here);
          const next = { method, target: url.pathname, headers, body: null, follow };
          resolve(ask(session, Number(url.port), next));
        } else {
          const whole = Buffer.concat(pieces).toString("base64");
          resolve({ status: response.statusCode, headers: pairs, body: whole, url: here });
        }
      });
    });
    request.on("socket", (socket) => session.sockets.add(socket));
    request.on("timeout", () => request.destroy(new Error(`${method} ${target}: no progress for 20 s`)));
    request.on("error", reject);
    const bytes = body === null ? Buffer.alloc(0) : Buffer.from(body, "base64");
    if (chunked) {
      for (let at = 0; at < bytes.length; at += 50021) request.write(bytes.subarray(at, at + 50021));
      request.end();
    } else if (body === null) {
      request.end();
    } else {
      request.end(bytes); // with a Content-Length, as it is all there is
    }
  });
}

async function talk({ port, requests }) {
  const session = { agent: new http.Agent({ keepAlive: true, maxSockets: 1 }), sockets: new Set() };
  try {
    const answers = [];
    for (const request of requests) answers.push(await ask(session, port, request));
    return { answers, connections: session.sockets.size };
  } catch (error) {
    return { error: String(error.stack) };
  } finally {
    session.agent.destroy();
  }
}

http
  .createServer((request, response) => {
    const pieces = [];
    request.on("data", (piece) => pieces.push(piece));
    request.on("end", async () => {
      const told = await talk(JSON.parse(Buffer.concat(pieces)));
      response.end(JSON.stringify(told));
    });
  })
  .listen(Number(process.argv[2]), "127.0.0.1");
