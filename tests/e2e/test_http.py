"""HTTP/1.1 through the proxy on real sockets: what passes, what is taken out, and what it answers itself."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.endpoints import Conversation, Script, ScriptedEndpoint, hang, ok, respond
from support.http import HttpClient, get
from support.ports import free_port
from support.proxy import Sidecar, configuration
from support.waiting import wait_until


class Proxied:
    """An endpoint, a sidecar before it, and a client on a connection that is kept alive."""

    def __init__(self, endpoint: ScriptedEndpoint, sidecar: Sidecar, client: HttpClient, listen: int) -> None:
        self.endpoint = endpoint
        self.sidecar = sidecar
        self.client = client
        self.listen = listen


Through = Callable[..., Proxied]


@pytest.fixture
def through(tmp_path: Path) -> Iterator[Through]:
    """A function: scripts of the endpoint's connections in, everything running out."""
    with ExitStack() as stack:

        def make(*scripts: Script, policy: str = "", sidecar: str = "drain_timeout: 1s") -> Proxied:
            listen = free_port()
            endpoint = stack.enter_context(ScriptedEndpoint(*scripts))
            text = configuration(listen, [endpoint.port], policy=policy, sidecar=sidecar)
            running = stack.enter_context(Sidecar(tmp_path, text))
            return Proxied(endpoint, running, stack.enter_context(HttpClient(listen)), listen)

        yield make


def echo_target(conversation: Conversation) -> None:
    """Answer every request with its target."""
    while received := conversation.read_request():
        conversation.send(ok(received.line.split(" ")[1].encode()))


# What passes


def test_both_sides_are_kept_alive(through: Through) -> None:
    proxied = through(echo_target)
    for number in range(20):
        assert proxied.client.request(target=f"/{number}").text == f"/{number}"
    assert proxied.endpoint.connections == 1


def test_pipelined_requests_are_answered_in_order(through: Through) -> None:
    proxied = through(echo_target)
    proxied.client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number for number in range(50)))
    assert [proxied.client.read_response().text for _ in range(50)] == [f"/{number}" for number in range(50)]


def test_a_request_passes_byte_for_byte_but_for_its_hops(through: Through) -> None:
    proxied = through()
    proxied.client.send(
        b"GET /a%2Fb/../c//d?q=%20;&&=\xc3\xa9 HTTP/1.1\r\n"
        b"hOsT: application.example\r\n"
        b"X-oDD-Case:   two spaces before\r\n"
        b"Cookie: one=1\r\n"
        b"cookie: two=2\r\n"
        b"Connection: keep-alive, X-Private\r\n"
        b"X-Private: for the proxy alone\r\n"
        b"Keep-Alive: timeout=5\r\n"
        b"Proxy-Connection: keep-alive\r\n"
        b"Empty:\r\n"
        b"\r\n"
    )
    assert proxied.client.read_response().status == 200
    received = proxied.endpoint.requests[0]
    assert received.line.encode("latin-1") == b"GET /a%2Fb/../c//d?q=%20;&&=\xc3\xa9 HTTP/1.1"
    host, *rest = received.headers
    assert host.lower() == f"host: {proxied.endpoint.address}"  # the endpoint's own, by default
    assert rest == ["X-oDD-Case:   two spaces before", "Cookie: one=1", "cookie: two=2", "Empty:"]


def test_a_response_passes_byte_for_byte_but_for_its_hops(through: Through) -> None:
    answer = (
        b"HTTP/1.1 299 Strangely Fine\r\nset-cookie: a=1\r\nSet-Cookie: b=2\r\nX-oDD:  y\r\n"
        b"Keep-Alive: timeout=5\r\nContent-Length: 2\r\n\r\nhi"
    )
    client = through(respond(answer)).client
    response = client.request()
    assert (response.status, response.reason, response.text) == (299, "Strangely Fine", "hi")
    assert response.headers == (
        ("set-cookie", "a=1"),
        ("Set-Cookie", "b=2"),
        ("X-oDD", "y"),
        ("Content-Length", "2"),
    )


def test_responses_without_a_body_leave_the_connection_usable(through: Through) -> None:
    answers = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",  # to HEAD
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\nETag: x\r\n\r\n",
        ok(b"and on"),
    ]
    proxied = through(respond(*answers))
    client = proxied.client
    assert client.request("HEAD").header("Content-Length") == "1000"
    assert client.request().status == 204
    assert client.request().header("ETag") == "x"
    assert client.request().text == "and on"
    assert proxied.endpoint.connections == 1


def test_an_http_1_0_client_gets_what_it_understands(through: Through) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    proxied = through(respond(ok(), chunked))
    proxied.client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    first = proxied.client.read_response()
    assert (first.status, first.header("Connection")) == (200, "keep-alive")
    proxied.client.send(b"GET / HTTP/1.0\r\n\r\n")
    status, _, _, headers = proxied.client.read_head()
    assert status == 200
    assert not [name for name, _ in headers if name.lower() == "transfer-encoding"]
    assert proxied.client.read_end() == b"hello"
    assert [request.line for request in proxied.endpoint.requests] == ["GET / HTTP/1.1"] * 2


def test_a_body_that_ends_with_its_connection_is_chunked_on(through: Through) -> None:
    def until_close(conversation: Conversation) -> None:
        conversation.read_request()
        conversation.send(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")

    proxied = through(until_close)
    for _ in range(2):  # on one connection of the client's
        response = proxied.client.request()
        assert (response.text, response.header("Transfer-Encoding")) == ("until the end", "chunked")
    assert proxied.endpoint.connections == 2


def test_expect_continue_is_the_endpoints_to_answer(through: Through) -> None:
    def continues(conversation: Conversation) -> None:
        received = conversation.read_head()
        assert received is not None
        assert received.header("Expect") == "100-continue"
        conversation.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        conversation.send(ok(conversation.read_body(received)))

    client = through(continues).client
    client.send_head("POST", "/", [("Expect", "100-continue"), ("Content-Length", "5")])
    assert client.read_head()[0] == 100  # before a byte of the body was sent
    client.send(b"hello")
    assert client.read_response("POST").text == "hello"


def test_an_early_answer_stops_the_upload(through: Through) -> None:
    def refuses(conversation: Conversation) -> None:
        conversation.read_head()
        conversation.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nno\n")

    client = through(refuses).client
    client.send_head("POST", "/", [("Content-Length", str(1 << 30))])
    client.send(b"x" * 100_000)
    response = client.read_response("POST")
    assert (response.status, response.text) == (413, "no\n")
    assert client.read_end() == b""


# When the endpoint fails


def answers_once(conversation: Conversation) -> None:
    """A server whose keep-alive ends just as the second request comes."""
    conversation.read_request()
    conversation.send(ok())
    conversation.read_head()


def test_the_idle_race_is_nobodys_business(through: Through) -> None:
    proxied = through(
        answers_once, echo_target, policy="retries: 0"
    )  # it is not a retry that `retries` counts
    assert proxied.client.request().status == 200
    assert proxied.client.request(target="/again").text == "/again"
    assert proxied.endpoint.connections == 2
    assert proxied.sidecar.metrics()['sidecar_connection_reuse_failures_total{upstream="api"}'] == 1


def test_a_post_that_may_have_been_done_is_not_done_twice(through: Through) -> None:
    proxied = through(answers_once, echo_target)
    assert proxied.client.request().status == 200
    response = proxied.client.request("POST", body=b"once")
    assert (response.status, response.error) == (502, "reset_before_headers")
    assert proxied.endpoint.connections == 1


def test_an_endpoint_that_does_not_answer_times_out(through: Through) -> None:
    response = through(hang, policy="timeout: 300ms, retries: 0").client.request()
    assert (response.status, response.error) == (504, "request_timeout")
    assert response.header("Content-Type") == "application/json"


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nName: " + b"a" * 70_000 + b"\r\n\r\n",
    ],
    ids=["another protocol", "two lengths", "oversize"],
)
def test_an_answer_that_is_no_http_is_not_passed_on(through: Through, answer: bytes) -> None:
    response = through(respond(answer)).client.request()
    assert (response.status, response.error) == (502, "bad_response")


def test_a_response_that_breaks_off_breaks_off_for_the_client(through: Through) -> None:
    """A client must never take half a body for a whole one."""

    def breaks(conversation: Conversation) -> None:
        conversation.read_request()
        conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")

    client = through(breaks).client
    with pytest.raises(ConnectionError):
        client.request()


def test_bytes_after_a_response_answer_nobody(through: Through) -> None:
    """Response splitting: what an endpoint says unasked must not become the next request's answer."""
    proxied = through(respond(ok(b"mine") + ok(b"injected")), echo_target)
    assert proxied.client.request().text == "mine"
    assert proxied.client.request(target="/next").text == "/next"


def test_all_breakers_open_is_told_at_once_and_one_probe_closes_them(through: Through) -> None:
    proxied = through(
        echo_target, policy="retries: 0, circuit_breaker: {consecutive_failures: 3, open_for: 300ms}"
    )
    endpoint, sidecar, client = proxied.endpoint, proxied.sidecar, proxied.client
    endpoint.refuse()
    assert [client.request().error for _ in range(3)] == ["connect_refused"] * 3
    refused = client.request()
    assert (refused.status, refused.error) == (503, "all_open")
    assert sidecar.breaker("api", endpoint.address) == "open"
    endpoint.listen()
    wait_until(lambda: client.request(target="/healed").text == "/healed", "a probe to succeed")
    assert sidecar.breaker("api", endpoint.address) == "closed"


# When the client fails, or there are too many


def test_a_client_that_leaves_is_not_the_endpoints_fault(through: Through) -> None:
    proxied = through(hang, policy="circuit_breaker: {consecutive_failures: 1}")
    counted = 'sidecar_requests_total{code_class="4xx",method="GET",reason="client_gone",upstream="api"}'
    with HttpClient(proxied.listen) as client:
        client.send_head("GET", "/")
        proxied.endpoint.wait_for(lambda seen: seen.received, "the request")
    wait_until(lambda: proxied.sidecar.metrics().get(counted) == 1, "the loss to be noticed")
    assert proxied.sidecar.breaker("api", proxied.endpoint.address) == "closed"
    assert proxied.sidecar.metrics()['sidecar_requests_in_flight{upstream="api"}'] == 0


def test_an_idle_client_is_let_go(through: Through) -> None:
    proxied = through(sidecar="idle_timeout: 300ms")
    assert proxied.client.request().status == 200
    assert proxied.client.socket.recv(1) == b""  # an orderly end, not a reset


def test_more_than_the_limits_wait_or_are_turned_away(through: Through) -> None:
    def waits(conversation: Conversation) -> None:
        while conversation.read_request():
            conversation.endpoint.released.wait(10.0)
            conversation.send(ok())

    proxied = through(waits, policy="limits: {connections: 1, pending: 1}")
    with HttpClient(proxied.listen) as first, HttpClient(proxied.listen) as second:
        first.send_head("GET", "/")
        proxied.endpoint.wait_for(lambda seen: seen.requests, "the first request")
        second.send_head("GET", "/")
        queue = 'sidecar_queue_length{upstream="api"}'
        wait_until(lambda: proxied.sidecar.metrics()[queue] == 1, "the second to wait")
        third = get(proxied.listen)
        assert (third.status, third.error) == (503, "overflow")
        assert proxied.sidecar.metrics()['sidecar_overflows_total{limit="pending",upstream="api"}'] == 1
        proxied.endpoint.released.set()
        assert first.read_response().status == second.read_response().status == 200
    assert proxied.endpoint.connections == 1
