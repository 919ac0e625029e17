"""Routing: however the bytes come, the same upstreams get the same requests, and shares are those of the weights."""

from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from support.clock import FakeClock
from unit.proxy.harness import ok
from unit.proxy.routed import Routed

from sidecar.cluster import Cluster
from sidecar.http1.scan import scan_request
from sidecar.model import UpstreamPolicy
from sidecar.proxy.router import Route, authority_host

NAMES = ("a", "b", "c")
ROUTES = (
    {"targets": [("a", 1)], "host": b"*.one.example", "path": b"/v1"},
    {"targets": [("b", 1)], "host": b"two.example"},
    {"targets": [("c", 1)], "path": b"/c/d", "methods": [0, 2]},
    {"targets": [("a", 1)], "fields": [(b"x-to", b"a")]},
)
SEGMENTS = st.sampled_from(["", "v1", "v10", "c", "d", "..", "%2e", "%76%31"])
HOSTS = st.sampled_from(
    ["x.one.example", "one.example:80", "TWO.example", "two.example.:8", "[::1]:7", "other"]
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    method = draw(st.sampled_from(["GET", "POST", "PUT", "OPTIONS"]))
    path = "/" + "/".join(draw(st.lists(SEGMENTS, max_size=3))) + draw(st.sampled_from(["", "?", "?/v1"]))
    lines = [f"{method} {path} HTTP/1.1", f"Host: {draw(HOSTS)}"]
    lines += draw(st.lists(st.sampled_from(["X-To: a", "x-to:  b", "X-Other: a"]), max_size=2))
    body = draw(st.sampled_from([b"", b"abc"])) if method in ("POST", "PUT") else b""
    lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def expected(raw: bytes) -> str:
    """Which upstream, said the long way; empty for none."""
    head = scan_request(raw, 0, 65536)
    assert head is not None
    line, *fields = raw.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    method, target, _ = line.split(" ")
    segments = target.partition("?")[0].rstrip("/").split("/")
    named = [field.partition(":")[::2] for field in fields]
    host = next(value.strip().lower() for name, value in named if name == "Host")
    host = host if host.startswith("[") else host.partition(":")[0].rstrip(".")
    if host.endswith(".one.example") and segments[:2] == ["", "v1"]:
        return "a"
    if host == "two.example":
        return "b"
    if method in ("GET", "POST") and segments[:3] == ["", "c", "d"]:
        return "c"
    first = next((value.strip() for name, value in named if name.lower() == "x-to"), "")
    return "a" if first == "a" else ""


def split(data: bytes, at: list[int]) -> list[bytes]:
    cuts = sorted({0, len(data), *(place % (len(data) + 1) for place in at)})
    return [data[start:end] for start, end in pairwise(cuts)]


@given(st.lists(requests(), min_size=1, max_size=5), st.lists(st.integers(0, 10_000), max_size=8))
def test_any_split_of_the_bytes_is_routed_alike(raw: list[bytes], at: list[int]) -> None:
    proxy = Routed(" ".join(NAMES), *ROUTES)
    client: Any = proxy.client()
    asked: list[str] = []
    for piece in split(b"".join(raw), at):
        client.protocol.data_received(piece)
        answer(proxy, asked)
    wanted = [expected(one) for one in raw]
    # A request that is refused before its body has come closes the connection, which loses those behind it.
    got = [name for name in wanted if name][: len(asked)]
    assert asked == got
    if not client.closing and not client.eof_written:
        assert len(asked) == sum(bool(name) for name in wanted)
    counted = proxy.cluster.stats.routed
    assert sum(counted.values()) == len(asked)
    assert len(client.protocol._routed) <= len(NAMES)
    client.closing = True
    proxy.finish()


def answer(proxy: Routed, asked: list[str]) -> None:
    """Each request that an endpoint has whole is answered, in turn."""
    while proxy.connecting or any(transport.protocol.exchange.client.is_asked() for transport in proxy.busy):
        endpoint = proxy.accept() if proxy.connecting else proxy.busy[-1]
        exchange = endpoint.protocol.exchange
        if not exchange.client.is_asked():
            return
        asked.append(exchange.cluster.name)
        endpoint.feed(ok())


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=6).filter(any))
def test_shares_are_those_of_the_weights(weights: list[int]) -> None:
    """Over chances that are spread evenly each upstream gets its weight, exactly."""
    clock: Any = FakeClock()
    clusters = [Cluster(str(number), "http", UpstreamPolicy(), clock) for number in range(len(weights))]
    route = Route(0, list(zip(clusters, weights, strict=True)))
    total = sum(weights)
    chosen = [route.choose(lambda number=number: (number + 0.5) / total) for number in range(total)]  # type: ignore[misc]
    assert [chosen.count(cluster) for cluster in clusters] == weights


@given(HOSTS)
def test_a_host_is_read_as_the_long_way_reads_it(said: str) -> None:
    host = authority_host(said.encode())
    assert host == host.lower()
    assert b":" not in host or host.startswith(b"[")
