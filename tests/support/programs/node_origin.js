// The site on Node's http module: `node node_origin.js PORT`. pages.py tells what the files of SITE mean.
"use strict";

const crypto = require("crypto");
const fs = require("fs");
const http = require("http");
const path = require("path");

const site = (name) => path.join(process.env.SITE, name);
const pages = JSON.parse(fs.readFileSync(site("pages.json"), "utf8"));

function answer(request, response, digest) {
  const sized = (status, headers, body) => {
    response.statusCode = status;
    for (const [name, value] of headers) response.appendHeader(name, value);
    if (body === null) return response.end();
    response.setHeader("Content-Length", body.length);
    return response.end(body); // which leaves the body out for HEAD
  };
  const plain = [["Content-Type", "text/plain"]];
  if (!["GET", "HEAD"].includes(request.method)) return sized(201, plain, Buffer.from(digest + "\n"));
  const page = pages[request.url];
  if (page === undefined) return sized(404, plain, Buffer.from("no such page\n"));
  const etag = page.headers.find(([name]) => name === "ETag");
  if (etag && request.headers["if-none-match"] === etag[1]) return sized(304, [etag], null);
  if (page.status === 204) return sized(204, page.headers, null);
  const zip = page.gzip && (request.headers["accept-encoding"] || "").includes("gzip");
  const headers = zip ? [...page.headers, ["Content-Encoding", "gzip"]] : page.headers;
  const body = fs.readFileSync(site(zip ? page.gzip : page.body));
  if (!page.chunked) return sized(page.status, headers, body);
  response.statusCode = page.status;
  for (const [name, value] of headers) response.appendHeader(name, value);
  for (let at = 0, size = 1; at < body.length; at += size, size *= 3) {
    response.write(body.subarray(at, at + size));
  }
  return response.end();
}

const server = http.createServer({ maxHeaderSize: 65536 }, (request, response) => {
  const digest = crypto.createHash("sha256");
  request.on("data", (piece) => digest.update(piece));
  request.on("end", () => {
    const raw = request.rawHeaders;
    const headers = [];
    for (let at = 0; at < raw.length; at += 2) headers.push(raw.slice(at, at + 2));
    const hex = digest.digest("hex");
    const seen = {
      method: request.method,
      target: request.url,
      headers,
      digest: hex,
      peer: request.socket.remotePort,
    };
    fs.appendFileSync(site("seen.jsonl"), JSON.stringify(seen) + "\n");
    answer(request, response, hex);
  });
});
server.keepAliveTimeout = 60000; // a connection of a test is never closed by the origin's clock
server.listen(Number(process.argv[2]), "127.0.0.1");
