"""Five HTTP servers that people use, all serving the same pages, each writing down what it was asked.

`ORIGINS` has them by name. The pages (`PAGES`) are files of a directory, so that the same bytes come from all.
What an origin saw of a request is in its record, not in an answer: so answers can be compared byte by byte, and
every request of a test is compared, not only those to some echo.
"""

import gzip
import json
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from support.ports import free_port
from support.processes import find_program
from support.proxy import clean_environment
from support.servers import Nginx, Server
from support.waiting import wait_until

__all__ = ["ETAG", "LARGE", "LONG_VALUE", "ORIGINS", "SMALL", "TEXT", "Origin", "Seen", "plain"]

PROGRAMS = Path(__file__).parent / "programs"

SMALL = b"a small page\n"
# Differs from block to block, so that a lost, doubled or swapped block shows.
LARGE = b"".join(b"%08d" % number + bytes(range(248)) for number in range(3 * 1024 * 1024 // 256))
TEXT = b"".join(b"line %d of a text that gzip makes much smaller\n" % number for number in range(5000))
LONG_VALUE = "0123456789abcdef" * 768  # 12 KiB
# nginx makes its entity tags of a file's time and size in hexadecimal; the others are told to say the same.
MODIFIED = 1_700_000_000
ETAG = f'"{MODIFIED:x}-{len(SMALL):x}"'

_PLAIN = ("Content-Type", "text/plain")


def _page(
    body: str | None, *headers: tuple[str, str], status: int = 200, packed: str = "", chunked: bool = False
) -> dict[str, Any]:
    return {"status": status, "headers": headers, "body": body, "gzip": packed, "chunked": chunked}


PAGES = {
    "/small": _page("small", _PLAIN, ("ETag", ETAG)),
    "/large": _page("large", _PLAIN),
    "/stream": _page("large", _PLAIN, chunked=True),
    "/text": _page("text", _PLAIN, ("Vary", "Accept-Encoding"), packed="text.gz"),
    "/redirect": _page("small", ("Location", "/small"), status=302),
    "/empty": _page(None, status=204),
    "/cookies": _page(
        "small",
        _PLAIN,
        ("Set-Cookie", "one=1; Expires=Wed, 09 Jun 2100 10:18:14 GMT; Path=/"),
        ("Set-Cookie", "two=2; Path=/"),
    ),
    "/long-header": _page("small", _PLAIN, ("X-Long", LONG_VALUE)),
    "/broken": _page("small", _PLAIN, status=500),
}


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as an origin saw it. digest: of the body, SHA-256; None when the origin cannot tell.

    headers: all of them, in order, as far as the origin tells (gunicorn: by their WSGI names; nginx: a list).
    peer: the port that the request came from.
    """

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    digest: str | None
    peer: int

    def header(self, name: str) -> str | None:
        """The first header of that name, in any origin's spelling."""
        return next((value for key, value in self.headers if plain(key) == plain(name)), None)


def plain(name: str) -> str:
    """A header's name in one spelling, whatever an origin's is."""
    return name.lower().replace("_", "-").removeprefix("http-")


class Origin(Server):
    """One of the servers below."""

    def __init__(self, directory: Path, ports: Iterable[int] = ()) -> None:
        super().__init__(directory, list(ports) or [free_port()])
        # Where the programs find the pages, and each other.
        self.environ = clean_environment(SITE=str(directory), PYTHONPATH=str(PROGRAMS))
        _write_pages(directory)

    @property
    def port(self) -> int:
        """Its port."""
        return self.ports[0]

    def start(self) -> None:
        self.forget()
        super().start()

    def forget(self) -> None:
        """Begin the record again."""
        (self.directory / "seen.jsonl").write_bytes(b"")

    def seen(self, count: int) -> list[Seen]:
        """The record, once it has `count` requests: nginx writes after it has answered."""
        record = self.directory / "seen.jsonl"
        wait_until(lambda: record.read_bytes().count(b"\n") >= count, f"{count} requests in {record}")
        lines = [json.loads(line) for line in record.read_text().splitlines()]
        return [Seen(**{**line, "headers": tuple((n, v) for n, v in line["headers"])}) for line in lines]


class Uvicorn(Origin):
    """asgi_origin.py in uvicorn, with h11."""

    program = "uvicorn"

    def command(self) -> list[str | Path]:
        options = ["--port", str(self.port), "--http", "h11", "--loop", "asyncio", "--lifespan", "off"]
        # More than 16 KiB of head only when told so; nor is a connection of a test closed by the clock.
        options += ["--h11-max-incomplete-event-size", "65536", "--timeout-keep-alive", "60"]
        return [sys.executable, "-m", "uvicorn", *options, "asgi_origin:application"]


class Gunicorn(Origin):
    """wsgi_origin.py in gunicorn, with threads, as its plain workers keep no connection alive."""

    program = "gunicorn"

    def command(self) -> list[str | Path]:
        options = ["--bind", f"127.0.0.1:{self.port}", "--worker-class", "gthread", "--threads", "4"]
        options += ["--keep-alive", "60", "--graceful-timeout", "1", "--limit-request-field_size", "16384"]
        options += ["--no-control-socket"]
        return [sys.executable, "-m", "gunicorn", *options, "wsgi_origin:application"]


class Aiohttp(Origin):
    """aiohttp_origin.py."""

    program = "aiohttp"

    def command(self) -> list[str | Path]:
        return [sys.executable, PROGRAMS / "aiohttp_origin.py", str(self.port)]


class Node(Origin):
    """node_origin.js."""

    program = "node"

    def command(self) -> list[str | Path]:
        found = find_program("node")
        assert found
        return [found, PROGRAMS / "node_origin.js", str(self.port)]


class NginxOrigin(Nginx, Origin):
    """The same pages by nginx's own means: files, `return`, gzip as it sends, PUT of its WebDAV module.

    Its record has those headers that are listed here, as it has no variable for all of them, and the digest of
    what PUT has stored. It sends a plain file in chunks only when something may change it on its way: /stream
    lets server-side includes look for themselves, who find nothing.
    """

    HEADERS = (
        "Host",
        "User-Agent",
        "Accept",
        "Accept-Encoding",
        "Content-Length",
        "Content-Type",
        "Cookie",
        "Expect",
        "If-None-Match",
        "Transfer-Encoding",
        "Via",
        "X-Forwarded-For",
        "X-Long",
    )

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, "nginx")
        os.utime(directory / "small", (MODIFIED, MODIFIED))

    def forget(self) -> None:
        super().forget()
        for stored in (self.directory / "uploads").glob("*"):
            stored.unlink()

    def seen(self, count: int) -> list[Seen]:
        return [self._with_digest(one) for one in super().seen(count)]

    def _with_digest(self, seen: Seen) -> Seen:
        if seen.method != "PUT":
            return seen
        stored = self.uploaded(seen.target.rpartition("/")[2]).read_bytes()
        return replace(seen, digest=sha256(stored).hexdigest())

    def block(self, name: str, port: int) -> str:
        headers = ",".join(
            f'["{header}","$http_{header.lower().replace("-", "_")}"]' for header in self.HEADERS
        )
        # One word of its configuration ends at 4 KiB.
        long_value = "$part" * (len(LONG_VALUE) // 1024)
        cookies = "".join(
            f'add_header Set-Cookie "{value}"; '
            for header, value in PAGES["/cookies"]["headers"]
            if header == "Set-Cookie"
        )
        small = SMALL.decode().replace("\n", "\\n")
        files = f"{self.directory}/"
        return f"""
  log_format seen escape=json
    '{{"method":"$request_method","target":"$request_uri","headers":[{headers}],"digest":null,"peer":$remote_port}}';
  server {{
    listen 127.0.0.1:{port};
    access_log {files}seen.jsonl seen;
    large_client_header_buffers 4 32k;
    absolute_redirect off;
    client_max_body_size 0;
    location / {{ return 404 "no such page\\n"; }}
    location = /small {{ alias {files}small; }}
    location = /large {{ alias {files}large; }}
    location = /stream {{ ssi on; ssi_types *; alias {files}large; }}
    location = /text {{ gzip on; gzip_types *; gzip_vary on; alias {files}text; }}
    location = /redirect {{ return 302 /small; }}
    location = /empty {{ return 204; }}
    location = /cookies {{ {cookies} return 200 "{small}"; }}
    location = /long-header {{
      set $part {LONG_VALUE[:1024]};
      add_header X-Long {long_value};
      return 200 "{small}";
    }}
    location = /broken {{ return 500 "{small}"; }}
    location = /form {{ return 201 "thank you\\n"; }}
    location /upload/ {{ alias {files}uploads/; dav_methods PUT; }}
  }}"""


ORIGINS: dict[str, type[Origin]] = {
    "nginx": NginxOrigin,
    "uvicorn": Uvicorn,
    "aiohttp": Aiohttp,
    "gunicorn": Gunicorn,
    "node": Node,
}


def _write_pages(directory: Path) -> None:
    for name, body in {"small": SMALL, "large": LARGE, "text": TEXT}.items():
        (directory / name).write_bytes(body)
    (directory / "text.gz").write_bytes(gzip.compress(TEXT, mtime=0))
    (directory / "pages.json").write_text(json.dumps(PAGES))
