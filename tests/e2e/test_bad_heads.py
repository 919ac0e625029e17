"""Bytes that are no request: answered with a status and a reason, closed, and nobody else notices."""

import socket
import ssl
from collections.abc import Iterator

import pytest
from support.endpoints import ScriptedEndpoint, ok, respond
from support.http import HttpClient, Response, get
from support.ports import free_port
from support.proxy import Sidecar, configuration

HEAD_TIMEOUT = 1.0  # seconds, set for these tests
LIMIT = 65536  # bytes of a head, the default


class Proxy:
    """A sidecar with one endpoint, for all tests of this file: that it lives on is part of each."""

    def __init__(self, listen: int, endpoint: ScriptedEndpoint, sidecar: Sidecar) -> None:
        self.listen = listen
        self.endpoint = endpoint
        self.sidecar = sidecar

    def requests(self, code_class: str, reason: str) -> float:
        """How often /metrics says that it answered so, over all methods."""
        labels = f'code_class="{code_class}",', f'reason="{reason}"'
        return sum(
            value
            for name, value in self.sidecar.metrics().items()
            if name.startswith("sidecar_requests_total{") and all(label in name for label in labels)
        )


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    listen, directory = free_port(), tmp_path_factory.mktemp("bad_heads")
    # No connection to it is kept, as the tests look for what is left open.
    with ScriptedEndpoint(respond(ok(extra="Connection: close\r\n"))) as endpoint:
        text = configuration(listen, [endpoint.port], sidecar=f"head_timeout: {HEAD_TIMEOUT:g}")
        with Sidecar(directory, text) as sidecar:
            yield Proxy(listen, endpoint, sidecar)


@pytest.fixture
def proxy(running: Proxy) -> Iterator[Proxy]:
    before = len(running.endpoint.requests)
    yield running
    assert len(running.endpoint.requests) == before, "an endpoint must never see any of it"
    assert get(running.listen).status == 200, "the proxy must go on serving others"
    assert running.sidecar.process.stderr.count("Traceback") == 0


def refusal(client: HttpClient) -> Response:
    """The answer, which must end the connection."""
    answer = client.read_response()
    assert answer.header("Connection") == "close"
    assert client.read_end() == b"", "nothing may follow, and the connection must be closed"
    return answer


def request(*lines: str) -> bytes:
    return "\r\n".join(["GET / HTTP/1.1", "Host: localhost", *lines, "", ""]).encode("latin-1")


def client_hello() -> bytes:
    """What a TLS client says first."""
    outgoing = ssl.MemoryBIO()
    context = ssl.create_default_context()
    tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


BAD = {
    "garbage": (b"\x00\x01\x02 garbage\r\n\r\n", 400),
    "garbage without an end": (b"\xff\xfe\xfd" * 20, 400),
    "TLS": (client_hello(), 400),
    "SOCKS": (b"\x05\x01\x00", 400),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "a Redis command": (b"*1\r\n$4\r\nPING\r\n", 400),
    "no version": (b"GET /\r\n\r\n", 400),
    "a version of the future": (b"GET / HTTP/3.0\r\nHost: x\r\n\r\n", 505),
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two Hosts": (request("Host: other"), 400),
    "a space before the colon": (request("Name : value"), 400),
    "a folded line": (request("Name: value", " folded"), 400),
    "a NUL in a value": (request("Name: a\x00b"), 400),
    "a bare line feed": (b"GET / HTTP/1.1\nHost: x\n\n", 400),
    "two different lengths": (request("Content-Length: 1", "Content-Length: 2"), 400),
    "a length that is no number": (request("Content-Length: +1"), 400),
    "a length and a transfer coding": (request("Content-Length: 1", "Transfer-Encoding: chunked"), 400),
    "an unknown transfer coding": (request("Transfer-Encoding: gzip, chunked"), 501),
}


@pytest.mark.parametrize(("data", "status"), BAD.values(), ids=BAD)
def test_what_is_no_request_is_refused(proxy: Proxy, data: bytes, status: int) -> None:
    counted = proxy.requests(f"{status // 100}xx", "bad_request")
    with HttpClient(proxy.listen) as client:
        client.send(data)
        answer = refusal(client)
    assert (answer.status, answer.error) == (status, "bad_request")
    assert answer.header("Content-Type") == "application/json"
    assert proxy.requests(f"{status // 100}xx", "bad_request") == counted + 1


OVERSIZE = {
    "a long target": (b"GET /" + b"a" * LIMIT + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
    "a target without an end": (b"GET /" + b"a" * 2 * LIMIT, 414),
    "a long header": (request("Name: " + "a" * LIMIT), 431),
    "a header without an end": (b"GET / HTTP/1.1\r\nHost: x\r\nName: " + b"a" * 2 * LIMIT, 431),
    "257 header lines": (request(*(f"Name-{number}: x" for number in range(256))), 431),
}


@pytest.mark.parametrize(("data", "status"), OVERSIZE.values(), ids=OVERSIZE)
def test_what_is_too_large_is_refused(proxy: Proxy, data: bytes, status: int) -> None:
    with HttpClient(proxy.listen) as client:
        client.send(data)
        answer = refusal(client)
    assert (answer.status, answer.error) == (status, "too_large")


NEVER_ENDING = {
    "a byte": b"G",
    "half a line": b"GET / HT",
    "half a head": b"GET / HTTP/1.1\r\nHost: x\r\nName: ",
}


@pytest.mark.parametrize("begun", NEVER_ENDING.values(), ids=NEVER_ENDING)
def test_a_head_that_never_ends_times_out(proxy: Proxy, begun: bytes) -> None:
    with HttpClient(proxy.listen) as client:
        client.send(begun)
        answer = refusal(client)
    assert (answer.status, answer.error) == (408, "request_timeout")


def test_a_head_that_drips_times_out_all_the_same(proxy: Proxy) -> None:
    """More bytes do not buy more time: the answer comes while the client is still sending."""
    with HttpClient(proxy.listen) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n")
        client.socket.settimeout(0.1)
        for _ in range(100):
            client.send(b"Name: value\r\n")
            try:
                answer = client.read_response()
            except TimeoutError:
                continue
            break
        else:
            pytest.fail("no answer within 10 s of dripping")
    assert (answer.status, answer.error) == (408, "request_timeout")


def test_garbage_after_a_good_request_is_refused_on_its_own(proxy: Proxy) -> None:
    with HttpClient(proxy.listen) as client:
        client.send(request() + b"\x00garbage\r\n\r\n")
        assert client.read_response().status == 200
        assert refusal(client).status == 400
    proxy.endpoint.requests.pop()  # the good one, which the endpoint was to see


def test_clients_that_connect_and_say_nothing_or_leave_cost_nothing(proxy: Proxy) -> None:
    for data in (b"", b"GET", b"GET / HTTP/1.1\r\nHost: x\r\n"):
        with socket.create_connection(("127.0.0.1", proxy.listen)) as sock:
            sock.sendall(data)
