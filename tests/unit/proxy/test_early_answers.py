"""Final responses that come before the request's body has (behaviour 11, RFC 9112 9.5 and 9.6)."""

from collections.abc import Callable

import pytest
from support.transports import MemoryTransport
from unit.proxy.harness import Proxy, ok, request

MakeProxy = Callable[..., Proxy]

REFUSAL = ok(b"no", status="401 Unauthorized")
CLOSING = REFUSAL.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")


def begun(proxy: Proxy, *fields: str, body: bytes = b"") -> tuple[MemoryTransport, MemoryTransport]:
    """A request whose body has not come whole, at its endpoint."""
    client = proxy.client(request("POST /", *fields, body=body))
    endpoint = proxy.accept()
    endpoint.taken()
    return client, endpoint


# A short rest


@pytest.mark.parametrize("pieces", [[REFUSAL], [REFUSAL[:-1], REFUSAL[-1:]], [REFUSAL[:10], REFUSAL[10:]]])
def test_the_clients_connection_lives_on_when_the_rest_is_short(proxy: Proxy, pieces: list[bytes]) -> None:
    """Clients that send head and body apart are often answered in between."""
    client, endpoint = begun(proxy, "Content-Length: 3")
    endpoint.feed(*pieces)
    assert client.taken() == REFUSAL
    client.feed(b"a", b"=1" + request("GET /next"))
    proxy.accept().feed(ok())
    assert client.taken() == ok()
    assert [count for *_, count in proxy.counted] == [1, 1]


def test_the_endpoint_gets_nothing_of_the_rest(proxy: Proxy) -> None:
    """One that answers without reading on would take it for the next request, and answer that to somebody else."""
    client, endpoint = begun(proxy, f"Content-Length: {len(request('GET /smuggled'))}")
    endpoint.feed(REFUSAL)
    assert endpoint.closing
    client.feed(request("GET /smuggled"))
    assert endpoint.data == b""
    assert proxy.states[0].pool.open == 0
    assert proxy.cluster.stats.in_flight == 0
    assert client.taken() == REFUSAL
    other = proxy.client(request("GET /other"))
    proxy.accept().feed(ok())
    assert other.data == ok()


def test_the_request_is_over_with_its_answer(proxy: Proxy) -> None:
    """Neither its time nor its place at the endpoint lasts until the rest has come."""
    _, endpoint = begun(proxy, "Content-Length: 3")
    endpoint.feed(REFUSAL)
    assert proxy.counted == [("POST", "4xx", "none", 1)]
    assert (proxy.states[0].in_flight, proxy.cluster.limit.used) == (0, 0)


def test_an_endpoint_that_closes_behind_its_answer_costs_the_client_nothing(proxy: Proxy) -> None:
    client, endpoint = begun(proxy, "Content-Length: 3")
    endpoint.feed(REFUSAL)
    endpoint.lose()
    client.feed(b"a=1")
    assert client.taken() == REFUSAL
    assert not client.closing
    assert proxy.states[0].attempts[0] == 1
    client.feed(request("GET /next"))
    proxy.accept().feed(ok())
    assert client.taken() == ok()


def test_a_body_until_close_may_be_the_early_answer(proxy: Proxy) -> None:
    client, endpoint = begun(proxy, "Content-Length: 3")
    endpoint.feed(ok(b"no", length=False))
    endpoint.lose()
    assert client.data.endswith(b"2\r\nno\r\n0\r\n\r\n")
    client.feed(b"a=1")
    assert not client.closing
    assert proxy.counted == [("POST", "2xx", "none", 1)]


def test_what_the_endpoint_says_behind_its_answer_is_for_nobody(proxy: Proxy) -> None:
    client, endpoint = begun(proxy, "Content-Length: 3")
    endpoint.feed(REFUSAL)
    endpoint.feed(ok(b"POISON"))
    assert endpoint.closing
    client.feed(b"a=1" + request("GET /next"))
    proxy.accept().feed(ok())
    assert client.data == REFUSAL + ok()


def test_a_rest_that_does_not_come_ends_the_connection(proxy: Proxy) -> None:
    client, endpoint = begun(proxy, "Content-Length: 3")
    endpoint.feed(REFUSAL)
    proxy.pass_time(1.5)
    assert not client.eof_written
    proxy.pass_time(0.8)
    assert client.eof_written
    assert endpoint.closing, "half a request was sent on it"
    assert client.data == REFUSAL
    assert proxy.counted == [("POST", "4xx", "none", 1)]


@pytest.mark.parametrize("how", ["eof", "reset"])
def test_a_client_that_leaves_instead_had_its_answer(proxy: Proxy, how: str) -> None:
    client, endpoint = begun(proxy, "Content-Length: 3")
    endpoint.feed(REFUSAL)
    if how == "eof":
        client.feed_eof()
    else:
        client.lose(ConnectionResetError())
    assert endpoint.closing
    assert proxy.counted == [("POST", "4xx", "none", 1)]
    assert proxy.states[0].attempts[0] == 1


def test_a_client_behind_back_pressure_is_read_from_again(proxy: Proxy) -> None:
    client, endpoint = begun(proxy, "Content-Length: 6", body=b"ab")
    endpoint.fill()
    assert not client.reading
    endpoint.feed(REFUSAL)
    client.feed(b"cdef")
    assert client.data == REFUSAL
    assert not client.eof_written


def test_a_draining_process_closes_behind_the_rest(proxy: Proxy) -> None:
    client, endpoint = begun(proxy, "Content-Length: 3")
    proxy.context.draining = True
    endpoint.feed(REFUSAL)
    assert client.data == CLOSING
    assert client.eof_written


# A long one


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        (["Content-Length: 65541"], b"some"),
        (["Transfer-Encoding: chunked"], b"1\r\na\r\n"),
        (["Content-Length: 3", "Connection: close"], b"a"),
        (["Content-Length: 3", "Expect: 100-continue"], b""),
    ],
)
@pytest.mark.parametrize("pieces", [[REFUSAL], [REFUSAL[:-1], REFUSAL[-1:]]])
def test_otherwise_the_client_is_told_that_the_connection_ends(
    proxy: Proxy, fields: list[str], body: bytes, pieces: list[bytes]
) -> None:
    client, endpoint = begun(proxy, *fields, body=body)
    endpoint.feed(*pieces)

    assert client.data == CLOSING
    assert endpoint.closing, "half a request was sent on it"
    assert client.eof_written
    assert not client.closing, "closing now could destroy the answer on its way (RFC 9112 9.6)"
    client.feed(b"x" * 996)
    assert endpoint.data == b""
    assert proxy.counted == [("POST", "4xx", "none", 1)]
    assert proxy.states[0].attempts[0] == 1


def test_a_success_may_stream_beside_a_long_body(proxy: Proxy) -> None:
    """An echo service answers while it is asked. That the connection ends was said when nobody could know better."""
    client, endpoint = begun(proxy, "Transfer-Encoding: chunked", body=b"1\r\na\r\n")
    answer = ok(b"1\r\nA\r\n", "Transfer-Encoding: chunked", length=False)
    endpoint.feed(answer)
    assert client.taken() == answer.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
    client.feed(b"1\r\nb\r\n0\r\n\r\n")
    endpoint.feed(b"1\r\nB\r\n0\r\n\r\n")
    assert client.taken() == b"1\r\nB\r\n0\r\n\r\n"
    assert client.closing, "as was announced"
    assert proxy.states[0].pool.idle == [endpoint.protocol]


def test_a_success_that_ends_before_a_long_body_ends_the_connection(proxy: Proxy) -> None:
    client, endpoint = begun(proxy, "Transfer-Encoding: chunked", body=b"1\r\na\r\n")
    endpoint.feed(ok(b"ABCD")[:-2], b"CD")
    assert client.data == ok(b"ABCD").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    assert client.eof_written
    assert endpoint.closing


@pytest.mark.parametrize("pieces", [1, 2])
def test_an_end_that_is_told_while_the_request_is_stuck_is_told_to_the_client(
    proxy: Proxy, pieces: int
) -> None:
    """An endpoint that answers, closes its side and reads no more must not make a complete answer look broken."""
    client, endpoint = begun(proxy, "Content-Length: 1000000", body=b"some")
    endpoint.fill()
    answer = ok(b"sorry", status="413 Content Too Large", length=False)
    endpoint.feed(*([answer] if pieces == 1 else [answer[:-2], answer[-2:]]))
    endpoint.feed_eof()
    assert client.data.endswith(b"0\r\n\r\n")
    assert endpoint.aborted
    assert client.eof_written


def test_the_proxys_own_early_answer_ends_the_connection(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(endpoints=0)
    client = proxy.client(request("POST /", "Content-Length: 3"))
    assert client.data.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nConnection: close\r\n" in client.data
    assert client.eof_written
