"""The kinds of work that the proxies are compared on."""

from dataclasses import dataclass
from typing import Literal

from origins import BULK, LARGE, SMALL

__all__ = ["SCENARIOS", "Scenario", "chosen"]

KIB = 1024
MIB = 1024 * KIB
IDLE_CONNECTIONS = 2000  # enough that a proxy's fixed costs vanish in the share of each


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of work.

    name: as `--scenario` takes it; title: in the picture; text: in the table.
    load: http (wrk), redis (redis-benchmark) or idle (connections that do nothing after one request).
    front: what the proxy stands before, a name of `origins.Origins.front`.
    path, body: of HTTP requests, which are POST when body is not 0 bytes; closing: each on its own connection.
    answer: bytes of an answer so large that a turn has few: they are counted by what came of them.
    command, pipeline: of redis-benchmark. longest: seconds of a turn at most; 0 sets no bound.
    usual: part of a run that names no scenarios.
    """

    name: str
    title: str
    text: str
    connections: int
    load: Literal["http", "redis", "idle"] = "http"
    front: Literal["balanced", "closing", "door", "endpoints", "redis", "secure", "upstreams"] = "balanced"
    path: str = "/"
    body: int = 0
    answer: int = 0
    closing: bool = False
    command: str = "get"
    pipeline: int = 1
    longest: float = 0.0
    usual: bool = True

    @property
    def unit(self) -> str:
        """Of the figure that is compared."""
        return "KiB/connection" if self.load == "idle" else "CPU µs/request"


SCENARIOS = (
    Scenario("single", "small answers, 1 connection", f"{SMALL}-byte answers, one connection kept alive", 1),
    Scenario(
        "small", "small answers, 32 connections", f"{SMALL}-byte answers, 32 connections kept alive", 32
    ),
    Scenario(
        "many", "small answers, 512 connections", f"{SMALL}-byte answers, 512 connections kept alive", 512
    ),
    Scenario(
        "connect",
        "a connection for each request",
        f"{SMALL}-byte answers, 32 clients with a connection for each request",
        32,
        closing=True,
        longest=2.0,  # local ports that were just used cannot all be used again at once
    ),
    Scenario(
        "download",
        "1 MiB answers",
        f"{LARGE // KIB} KiB answers, 8 connections kept alive",
        8,
        path="/large",
    ),
    Scenario(
        "upload",
        "64 KiB uploads",
        "POST of 64 KiB, 8 connections kept alive",
        8,
        path="/upload",
        body=64 * KIB,
    ),
    Scenario(
        "redis",
        "Redis GET",
        "Redis GET through TCP, 32 connections, no pipelining",
        32,
        load="redis",
        front="redis",
    ),
    Scenario(
        "idle",
        "memory of an idle connection",
        f"{IDLE_CONNECTIONS} connections kept alive after one request each",
        IDLE_CONNECTIONS,
        load="idle",
    ),
    Scenario(
        "endpoints",
        "100 endpoints",
        f"{SMALL}-byte answers of 100 endpoints, 32 connections kept alive",
        32,
        front="endpoints",
    ),
    Scenario(
        "upstreams",
        "50 upstreams",
        f"{SMALL}-byte answers of 50 upstreams, each on its own port, one connection kept alive to each",
        50,
        front="upstreams",
    ),
    Scenario(
        "tls",
        "TLS to the endpoints",
        f"{SMALL}-byte answers of endpoints over TLS, 32 connections kept alive",
        32,
        front="secure",
        usual=False,
    ),
    Scenario(
        "tls-connect",
        "TLS, a connection to the endpoint for each request",
        f"{SMALL}-byte answers of endpoints over TLS that close each connection, 32 clients kept alive",
        32,
        front="closing",
        longest=2.0,  # as connect
        usual=False,
    ),
    Scenario(
        "tls-listener",
        "TLS to the clients",
        f"{SMALL}-byte answers to clients over TLS, 32 connections kept alive",
        32,
        front="door",
        usual=False,
    ),
    Scenario(
        "download-large",
        "100 MiB answers",
        f"{BULK // MIB} MiB answers, one connection kept alive",
        1,
        path="/bulk",
        answer=BULK,
        usual=False,
    ),
    Scenario(
        "upload-large",
        "10 MiB uploads",
        "POST of 10 MiB, 4 connections kept alive",
        4,
        path="/upload",
        body=10 * MIB,
        usual=False,
    ),
    Scenario(
        "redis-set",
        "Redis SET",
        "Redis SET through TCP, 32 connections, no pipelining",
        32,
        load="redis",
        front="redis",
        command="set",
        usual=False,
    ),
    Scenario(
        "redis-pipelined",
        "Redis GET, pipelined",
        "Redis GET through TCP, 32 connections, 16 commands at a time",
        32,
        load="redis",
        front="redis",
        pipeline=16,
        usual=False,
    ),
)


def chosen(names: list[str] | None, *, every: bool) -> list[Scenario]:
    """Those of these names, else every one, else the usual ones; in their own order."""
    return [
        scenario for scenario in SCENARIOS if (scenario.name in names if names else every or scenario.usual)
    ]
