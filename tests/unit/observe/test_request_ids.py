"""`x-request-id`: kept where it is usable, else made."""

import random
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from unit.proxy.harness import Proxy, ok, request

from sidecar.observe.identifiers import new_request_id, new_span_id, new_trace_id
from sidecar.observe.recorder import ExchangeRecorder
from sidecar.observe.request_ids import RequestIds

MakeProxy = Callable[..., Proxy]


@pytest.fixture
def make_proxy() -> Iterator[MakeProxy]:
    """Makes proxies, which must end with nothing open."""
    made: list[Proxy] = []

    def make(**options: Any) -> Proxy:
        made.append(Proxy(**options))
        return made[-1]

    yield make
    for proxy in made:
        proxy.finish()


@pytest.mark.parametrize("value", ["a", "x" * 128, "!~\"'", "a-b_c/d"])
def test_a_request_keeps_its_id(make_proxy: MakeProxy, value: str) -> None:
    proxy, ids = _named(make_proxy)
    asked = request("GET /", f"X-Request-ID:  {value} ")
    proxy.client(asked)
    endpoint = proxy.accept()
    endpoint.feed(ok())
    assert endpoint.data == asked.replace(b"localhost:8080", b"10.0.0.1:80")
    assert ids == [value.encode()]


@pytest.mark.parametrize(
    "fields",
    [
        (),
        ("x-request-id:",),
        ("x-request-id: a b",),
        ("x-request-id: \xe9",),
        ("x-request-id: " + "x" * 129,),
    ],
)
def test_a_request_gets_an_id(make_proxy: MakeProxy, fields: tuple[str, ...]) -> None:
    proxy, ids = _named(make_proxy)
    for _ in range(2):
        proxy.exchange(request("GET /", *fields, "z: 1"), ok())
    first, second = ids
    assert first != second
    for made, data in zip(ids, proxy.upstreams[0].data.split(b"\r\n\r\n"), strict=False):
        assert data.count(b"x-request-id") == 1
        assert b"x-request-id: " + made in data
        assert b"z: 1" in data
        _is_uuid4(made)


def test_of_two_ids_a_new_one_is_made(make_proxy: MakeProxy) -> None:
    proxy, ids = _named(make_proxy)
    proxy.client(request("GET /", "X-Request-Id: a", "z: 1", "x-request-id: b"))
    endpoint = proxy.accept()
    endpoint.feed(ok())
    assert (
        endpoint.data == b"GET / HTTP/1.1\r\nHost: 10.0.0.1:80\r\nX-Request-Id: %b\r\nz: 1\r\n\r\n" % ids[0]
    )


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0 - 2.0**-53])
def test_every_chance_makes_an_id(chance: float) -> None:
    """An id of zeros would be none (W3C Trace Context)."""
    trace, parent = new_trace_id(lambda: chance), new_span_id(lambda: chance)
    assert (len(trace), len(parent)) == (32, 16)
    assert 0 < int(trace, 16) < 2**128
    assert 0 < int(parent, 16) < 2**64
    _is_uuid4(new_request_id(lambda: chance))


def _named(make_proxy: MakeProxy) -> tuple[Proxy, list[bytes]]:
    """A proxy that names requests, and the names."""
    chance = random.Random(7)
    proxy = make_proxy(chances=tuple(chance.random() for _ in range(100)))
    clock: Any = proxy.clock
    ids: list[bytes] = []

    class Noting(RequestIds):
        def identify(self, exchange: Any, head: Any) -> Any:
            head = super().identify(exchange, head)
            ids.append(exchange.request_id)
            return head

    proxy.context.recorder = ExchangeRecorder(None, None, Noting(clock))
    return proxy, ids


def _is_uuid4(text: bytes) -> None:
    found = uuid.UUID(text.decode())
    assert (found.version, str(found)) == (4, text.decode())
