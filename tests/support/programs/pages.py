"""What the three Python origins share: the pages of the directory `SITE`, and the record of what was asked.

`pages.json` there maps a target to {status, headers, body, gzip, chunked}: `body` and `gzip` name files, the
second one is for who accepts it; `chunked` sends without a length. A request that brings a body is answered 201
with that body's digest. Each request becomes one line of `seen.jsonl` before it is answered.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Answer", "Site"]


@dataclass(frozen=True)
class Answer:
    """status: code. headers: complete but for the framing of a chunked body."""

    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    chunked: bool = False

    def pieces(self) -> Iterator[bytes]:
        """The body in pieces that grow, from one byte to more than a socket's buffer takes."""
        at, size = 0, 1
        while at < len(self.body):
            yield self.body[at : at + size]
            at, size = at + size, size * 3


class Site:
    """The pages and the record."""

    def __init__(self) -> None:
        self.directory = Path(os.environ["SITE"])
        self.pages = json.loads((self.directory / "pages.json").read_text())

    def answer(self, method: str, target: str, fields: Mapping[str, str], digest: str) -> Answer:
        """What to say. fields: request headers, names in lower case; digest: of the body that came."""
        if method not in ("GET", "HEAD"):
            return sized(201, [("Content-Type", "text/plain")], f"{digest}\n".encode())
        page = self.pages.get(target)
        if page is None:
            return sized(404, [("Content-Type", "text/plain")], b"no such page\n")
        headers = [(name, value) for name, value in page["headers"]]
        etag = next((value for name, value in headers if name == "ETag"), None)
        if etag is not None and fields.get("if-none-match") == etag:
            return Answer(304, [("ETag", etag)])
        if page["status"] == 204:
            return Answer(204, headers)
        name = page["body"]
        if page["gzip"] and "gzip" in fields.get("accept-encoding", ""):
            name = page["gzip"]
            headers.append(("Content-Encoding", "gzip"))
        body = (self.directory / name).read_bytes()
        if page["chunked"]:
            return Answer(page["status"], headers, body, chunked=True)
        return sized(page["status"], headers, body)

    def record(
        self, method: str, target: str, headers: list[tuple[str, str]], digest: str, peer: int
    ) -> None:
        """Write down one request. peer: the port it came from."""
        line = {"method": method, "target": target, "headers": headers, "digest": digest, "peer": peer}
        with (self.directory / "seen.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")


def sized(status: int, headers: list[tuple[str, str]], body: bytes) -> Answer:
    """An answer with a Content-Length."""
    return Answer(status, [*headers, ("Content-Length", str(len(body)))], body)
