"""`min_body_rate`: a request body that only drips is given up; one whose endpoint is slow is not."""

from collections.abc import Callable

import pytest
from support.transports import MemoryTransport
from unit.proxy.harness import Proxy, error_of, ok, request

from sidecar.proxy.exchange import BODY_GRACE

MakeProxy = Callable[..., Proxy]


def begun(
    proxy: Proxy, *pieces: bytes, fields: str = "Content-Length: 100000"
) -> tuple[MemoryTransport, MemoryTransport]:
    """An upload that has reached its endpoint."""
    client = proxy.client(request("PUT /", fields), *pieces)
    return client, proxy.accept()


def test_a_body_below_the_rate_is_408(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(timeout=60.0, context={"min_body_rate": 100})
    client, endpoint = begun(proxy)
    for _ in range(20):
        proxy.pass_time(1.0)
        if client.data:
            break
        client.feed(b"x" * 50)
    assert error_of(client.data) == (408, "request_timeout")
    assert b"too slowly" in client.data
    assert endpoint.aborted
    assert proxy.clock.monotonic() > 2 * BODY_GRACE - 0.5, "half the rate lasts for twice the grace"


@pytest.mark.parametrize("fields", ["Content-Length: 3000", "Transfer-Encoding: chunked"])
def test_a_body_at_the_rate_passes(make_proxy: MakeProxy, fields: str) -> None:
    proxy = make_proxy(timeout=60.0, context={"min_body_rate": 100})
    client, endpoint = begun(proxy, fields=fields)
    for _ in range(30):
        proxy.pass_time(1.0)
        client.feed(b"x" * 100 if "Length" in fields else b"60\r\n" + b"x" * 96 + b"\r\n")
    if "chunked" in fields:
        client.feed(b"0\r\n\r\n")
    endpoint.feed(ok())
    assert client.data == ok()


def test_what_goes_past_the_process_is_at_the_rate_too(make_proxy: MakeProxy) -> None:
    """The reactor's transports tell how much went from socket to socket, and nothing of it is written here."""
    proxy = make_proxy(timeout=60.0, context={"min_body_rate": 100})
    client, endpoint = begun(proxy, fields="Content-Length: 3000")
    sent = endpoint.data
    for _ in range(30):
        proxy.pass_time(1.0)
        client.protocol.spliced(100)
    assert endpoint.data == sent
    endpoint.feed(ok())
    assert client.data == ok()
    client.feed(request("GET /"))
    assert endpoint.data.startswith(sent + b"GET /")


def test_a_burst_is_credit_for_a_pause(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(timeout=60.0, context={"min_body_rate": 100})
    client, _ = begun(proxy, b"x" * 3000)
    proxy.pass_time(30.0)
    assert client.data == b""
    proxy.pass_time(BODY_GRACE + 0.3)
    assert error_of(client.data) == (408, "request_timeout")


def test_without_a_rate_only_the_time_out_counts(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(timeout=60.0)
    client, _ = begun(proxy)
    for _ in range(10):
        proxy.pass_time(50.0)
        client.feed(b"x")
    assert client.data == b""


def test_the_time_out_counts_beside_a_rate(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(timeout=2.0, context={"min_body_rate": 100})
    client, _ = begun(proxy, b"x" * 90000)
    proxy.pass_time(2.2)
    assert error_of(client.data) == (408, "request_timeout")
    assert b"did not arrive in time" in client.data


def test_an_endpoint_that_reads_slowly_is_no_fault_of_the_client(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(timeout=60.0, context={"min_body_rate": 100})
    client, endpoint = begun(proxy)
    proxy.pass_time(4.0)
    endpoint.fill()
    proxy.pass_time(20.0)
    assert client.data == b""
    endpoint.drain()
    proxy.pass_time(4.0)
    assert client.data == b"", "the grace begins anew"
    proxy.pass_time(1.5)
    assert error_of(client.data) == (408, "request_timeout")


def test_waiting_for_a_connection_is_no_fault_of_the_client(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(timeout=60.0, connect_timeout=30.0, context={"min_body_rate": 100})
    client = proxy.client(request("PUT /", "Content-Length: 100000"))
    proxy.pass_time(20.0)
    proxy.accept()
    proxy.pass_time(4.0)
    assert client.data == b"", "its time begins now"
    proxy.pass_time(1.5)
    assert error_of(client.data) == (408, "request_timeout")


def test_the_pace_is_asked_for_beside_an_early_answer_too(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(timeout=60.0, context={"min_body_rate": 100})
    client, endpoint = begun(proxy)
    endpoint.feed(ok(b"0123456789")[:-5])
    for _ in range(10):
        proxy.pass_time(1.0)
        if client.closing:
            break
        client.feed(b"x")
    assert client.aborted
    assert endpoint.aborted
