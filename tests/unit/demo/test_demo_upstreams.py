"""The demo's services, byte by byte."""

import asyncio

import pytest
from support.transports import MemoryTransport

from sidecar.demo.script import ALWAYS_WELL, Script
from sidecar.demo.upstreams import MAX_HEAD, MAX_LINE, ApiEndpoint, Connection, EchoConnection, Service

ALWAYS_ILL = Script(period=1.0, ill_from=0.0, well_from=1.0)
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
WELL = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n\r\napi-1\n"


def _connect(endpoint: ApiEndpoint | None = None) -> MemoryTransport:
    endpoint = endpoint or ApiEndpoint("api-1", ALWAYS_WELL, lambda: 0.0)
    return MemoryTransport(endpoint.accept(set()))


def test_an_endpoint_names_itself_over_and_over() -> None:
    transport = _connect()
    for _ in range(3):
        transport.feed(GET)
        assert transport.taken() == WELL
    assert not transport.closing


def test_any_split_gives_the_same_answers() -> None:
    stream = GET + b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n\r\n\r\n\r\n\r\nx" + GET
    for size in range(1, len(stream)):
        transport = _connect()
        transport.feed(*(stream[at : at + size] for at in range(0, len(stream), size)))
        assert transport.data == WELL * 3


def test_head_has_no_body() -> None:
    transport = _connect()
    transport.feed(b"HEAD / HTTP/1.1\r\n\r\n")
    assert transport.data == WELL.removesuffix(b"api-1\n")


@pytest.mark.parametrize("field", [b"Connection: close", b"Transfer-Encoding: chunked"])
def test_it_closes_when_asked_or_when_it_does_not_know_where_the_body_ends(field: bytes) -> None:
    transport = _connect()
    transport.feed(b"POST / HTTP/1.1\r\n" + field + b"\r\n\r\n" + GET)
    assert transport.data == WELL.replace(b"6\r\n\r\n", b"6\r\nConnection: close\r\n\r\n")
    assert transport.closing
    assert not transport.aborted


def test_a_length_that_is_no_number_is_none() -> None:
    transport = _connect()
    transport.feed(b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n" + GET)
    assert transport.data == WELL * 2


def test_an_endless_head_is_hung_up_on() -> None:
    transport = _connect()
    transport.feed(b"x" * MAX_HEAD)
    assert not transport.closing
    transport.feed(b"x")
    assert transport.aborted


def test_an_ill_endpoint_drops_two_and_refuses_the_third() -> None:
    endpoint = ApiEndpoint("api-2", ALWAYS_ILL, lambda: 0.5)
    for _ in range(2):
        transport = _connect(endpoint)
        transport.feed(GET + GET)
        assert transport.aborted
        assert transport.data == b""
    transport = _connect(endpoint)
    transport.feed(GET)
    assert transport.data.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert transport.data.endswith(b"\r\n\r\napi-2 is unwell\n")
    assert not transport.closing


def test_every_illness_begins_with_its_first_symptom() -> None:
    now = [0.5]
    endpoint = ApiEndpoint("api-2", Script(period=2.0, ill_from=0.0, well_from=1.0), lambda: now[0])
    first = _connect(endpoint)
    first.feed(GET)
    assert first.aborted
    now[0] = 1.5
    _connect(endpoint).feed(GET)
    now[0] = 2.5
    for _ in range(2):
        again = _connect(endpoint)
        again.feed(GET)
        assert again.aborted


def test_what_comes_after_the_end_is_ignored() -> None:
    transport = _connect()
    protocol = transport.protocol
    transport.lose()
    protocol.data_received(GET)
    protocol.abort()
    assert transport.data == b""


def test_echo_gives_whole_lines_back() -> None:
    transport = MemoryTransport(EchoConnection(set()))
    transport.feed(b"one\ntw", b"o\nthr", b"ee\n")
    assert transport.writes == [b"echo: one\n", b"echo: two\n", b"echo: three\n"]


def test_an_endless_line_ends_the_session() -> None:
    transport = MemoryTransport(EchoConnection(set()))
    transport.feed(b"x" * MAX_LINE)
    assert not transport.closing
    transport.feed(b"x")
    assert transport.aborted


def test_connections_are_known_while_they_are_open() -> None:
    peers: set[Connection] = set()
    transport = MemoryTransport(EchoConnection(peers))
    assert peers == {transport.protocol}
    transport.lose()
    assert peers == set()


async def test_a_service_listens_and_hangs_up_when_it_closes() -> None:
    service = Service(EchoConnection)
    await service.close()
    await service.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(b"hello\n")
    assert await reader.readline() == b"echo: hello\n"
    await service.close()
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", service.port)
