"""Five HTTP clients that people use, behind one function each: requests in turn on one session, answers out.

`running_clients` gives those that this machine has. Each says what came over the wire: bodies as they were
compressed, header lines with their case, order and duplicates, so that two answers can be compared byte by byte.
All can do all that a `Request` asks for, but for Node's http, which follows no redirects and keeps no cookies:
node_client.js follows in the way its users do, and sends no cookies back (`WITHOUT_COOKIES`).
"""

import asyncio
import base64
import json
import subprocess
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.http import HttpClient
from support.ports import free_port
from support.processes import find_program
from support.servers import Server

__all__ = ["WITHOUT_COOKIES", "Answer", "Client", "Request", "Talk", "running_clients"]

SECONDS = 20.0  # for one request
TALK_SECONDS = 50.0  # for all of a talk
LINE = 65536  # bytes of a header line that a client is told to accept, where it has a limit below the proxy's
PIECE = 50021  # of a chunked upload; prime, so that pieces never end where blocks do
WITHOUT_COOKIES = ("node",)
CURL_OPTIONS = ("-sS", "--noproxy", "*", "--globoff", "--path-as-is", "--cookie", "")  # "": keep cookies
NODE_CLIENT = Path(__file__).parent / "programs" / "node_client.js"


@dataclass(frozen=True, slots=True)
class Request:
    """chunked: send the body in chunks, without a length. follow: go where a 302 says."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    chunked: bool = False
    follow: bool = False

    def pieces(self) -> Iterator[bytes]:
        """The body in pieces."""
        for at in range(0, len(self.body or b""), PIECE):
            yield (self.body or b"")[at : at + PIECE]


@dataclass(frozen=True, slots=True)
class Answer:
    """The last response to a request. headers: as on the wire; body: not decompressed; url: of that response."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    url: str

    def all(self, name: str) -> list[str]:
        """The values of every header of that name, any case."""
        return [value for key, value in self.headers if key.lower() == name.lower()]


@dataclass(frozen=True, slots=True)
class Talk:
    """What came of some requests. connections: how many the client says it opened."""

    answers: list[Answer]
    connections: int


Client = Callable[[int, Sequence[Request], Path], Talk]  # port, requests, a directory of its own


def with_curl(port: int, requests: Sequence[Request], directory: Path) -> Talk:
    """All transfers in one curl, which keeps its connection from one to the next."""
    program = find_program("curl")
    assert program
    command = [program, "-q"]
    for number, request in enumerate(requests):
        place = directory / f"curl-{number}"
        command += ["--next"] * bool(number)
        command += [*CURL_OPTIONS, "--max-time", str(SECONDS)]
        command += ["-D", f"{place}.head", "-o", f"{place}.body", "-w", "%{json}\\n"]
        command += [part for name, value in request.headers for part in ("-H", f"{name}: {value}")]
        command += ["--location"] * request.follow
        if request.body is not None:
            place.write_bytes(request.body)
            upload = ["-T", str(place)] if request.method == "PUT" else ["--data-binary", f"@{place}"]
            command += [*upload, *(["-H", "Transfer-Encoding: chunked"] * request.chunked)]
        command += {"HEAD": ["--head"], "GET": []}.get(request.method, ["-X", request.method])
        command.append(f"http://127.0.0.1:{port}{request.target}")
    done = subprocess.run(command, capture_output=True, text=True, timeout=TALK_SECONDS, check=False)
    assert done.returncode == 0, f"curl ended with {done.returncode}: {done.stderr}"
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    answers = []
    for number, (request, report) in enumerate(zip(requests, reports, strict=True)):
        place = directory / f"curl-{number}"
        # Of several heads (interim ones, redirects) the last one is the answer's.
        head = place.with_suffix(".head").read_bytes()
        _, *lines = head.split(b"\r\n\r\n")[-2].split(b"\r\n")
        file = place.with_suffix(".body")  # not written when nothing came
        body = file.read_bytes() if file.exists() else b""
        file.unlink(missing_ok=True)
        if request.method == "HEAD":  # for which curl writes the head where the body goes, too
            body = body.removeprefix(head)
        headers = _pairs(line.split(b":", 1) for line in lines)
        answers.append(Answer(report["response_code"], headers, body, report["url_effective"]))
    return Talk(answers, sum(report["num_connects"] for report in reports))


def with_aiohttp(port: int, requests: Sequence[Request], directory: Path) -> Talk:
    """One ClientSession."""
    return asyncio.run(_with_aiohttp(port, requests))


async def _with_aiohttp(port: int, requests: Sequence[Request]) -> Talk:
    import aiohttp

    opened = 0

    async def count(*_: object) -> None:
        nonlocal opened
        opened += 1

    async def stream(request: Request) -> AsyncIterator[bytes]:
        for piece in request.pieces():
            yield piece

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_end.append(count)
    answers = []
    async with aiohttp.ClientSession(
        auto_decompress=False,
        cookie_jar=aiohttp.CookieJar(unsafe=True),  # from IP addresses, too, as the others do
        max_field_size=LINE,
        timeout=aiohttp.ClientTimeout(total=SECONDS),
        trace_configs=[trace],
    ) as session:
        for request in requests:
            async with session.request(
                request.method,
                f"http://127.0.0.1:{port}{request.target}",
                headers=request.headers,
                data=stream(request) if request.chunked else request.body,
                allow_redirects=request.follow,
            ) as response:
                body = await response.read()
                answers.append(Answer(response.status, _pairs(response.raw_headers), body, str(response.url)))
    return Talk(answers, opened)


def with_requests(port: int, requests: Sequence[Request], directory: Path) -> Talk:
    """One Session of requests, which is urllib3 underneath."""
    from requests import Session
    from urllib3 import HTTPConnectionPool
    from urllib3.connection import HTTPConnection

    opened = 0

    class Connection(HTTPConnection):
        def connect(
            self,
        ) -> None:  # urllib3 itself does not count when it opens one object's connection again
            nonlocal opened
            opened += 1
            super().connect()

    class Pool(HTTPConnectionPool):
        ConnectionCls = Connection

    answers = []
    with Session() as session:
        session.trust_env = False  # no proxy of this machine's
        session.get_adapter("http://").poolmanager.pool_classes_by_scheme = {"http": Pool}
        for request in requests:
            with session.request(
                request.method,
                f"http://127.0.0.1:{port}{request.target}",
                headers=dict(request.headers),
                data=request.pieces() if request.chunked else request.body,
                allow_redirects=request.follow,
                timeout=SECONDS,
                stream=True,
            ) as response:
                body = response.raw.read(decode_content=False)
                headers = tuple(response.raw.headers.items())
                answers.append(Answer(response.status_code, headers, body, response.url))
    return Talk(answers, opened)


def with_httpx(port: int, requests: Sequence[Request], directory: Path) -> Talk:
    """One httpx.Client."""
    import httpx

    opened = 0

    def count(event: str, _: object) -> None:
        nonlocal opened
        opened += event == "connection.connect_tcp.complete"

    answers = []
    with httpx.Client(trust_env=False, verify=False, timeout=SECONDS) as client:
        for request in requests:
            with client.stream(
                request.method,
                f"http://127.0.0.1:{port}{request.target}",
                headers=request.headers,
                content=request.pieces() if request.chunked else request.body,
                follow_redirects=request.follow,
                extensions={"trace": count},
            ) as response:
                body = b"".join(response.iter_raw())
                headers = _pairs(response.headers.raw)
                answers.append(Answer(response.status_code, headers, body, str(response.url)))
    return Talk(answers, opened)


class NodeClient(Server):
    """Node's http module, in one process for all talks."""

    program = "node"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, [free_port()])

    def command(self) -> list[str | Path]:
        program = find_program("node")
        assert program
        return [program, NODE_CLIENT, str(self.ports[0])]

    def talk(self, port: int, requests: Sequence[Request], directory: Path) -> Talk:
        """One http.Agent."""
        asked = [
            {
                "method": request.method,
                "target": request.target,
                "headers": request.headers,
                "body": None if request.body is None else base64.b64encode(request.body).decode(),
                "chunked": request.chunked,
                "follow": request.follow,
            }
            for request in requests
        ]
        with HttpClient(self.ports[0], timeout=TALK_SECONDS) as control:
            body = json.dumps({"port": port, "requests": asked}).encode()
            told = control.request("POST", body=body).json
        assert "error" not in told, told["error"]
        answers = [
            Answer(
                one["status"],
                tuple((name, value) for name, value in one["headers"]),
                base64.b64decode(one["body"]),
                one["url"],
            )
            for one in told["answers"]
        ]
        return Talk(answers, told["connections"])


@contextmanager
def running_clients(directory: Path) -> Iterator[dict[str, Client]]:
    """The clients by name. directory: for the output of what runs all the time."""
    clients: dict[str, Client] = {"aiohttp": with_aiohttp, "requests": with_requests, "httpx": with_httpx}
    with ExitStack() as stack:
        if find_program("curl"):
            clients["curl"] = with_curl
        if find_program("node"):
            clients["node"] = stack.enter_context(NodeClient(directory)).talk
        yield clients


def _pairs(lines: Iterable[Sequence[bytes]]) -> tuple[tuple[str, str], ...]:
    return tuple((name.decode("latin-1"), value.decode("latin-1").strip()) for name, value in lines)
