"""TLS of a listener as a file configures it: who may come, and what is renewed while they are there."""

import contextlib
import socket
import ssl
import threading
from collections import Counter
from pathlib import Path

import pytest
from support.certificates import Authority, Pair
from support.endpoints import ScriptedEndpoint, ok, respond
from support.http import get
from support.ports import free_port
from support.proxy import Sidecar
from support.waiting import wait_until

SPIFFE = "spiffe://example.org/ns/shop/sa/web"
LATE = 20.0  # seconds: files are looked at every 5
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def configuration(listen: int, port: int, tls: str) -> str:
    """One upstream, `api`; tls: of its listener, empty for none."""
    to = f"{{to: api, tls: {{{tls}}}}}" if tls else "api"
    return f"""load_balancers:
  api: {{hosts: ["127.0.0.1:{port}"]}}
sidecar:
  {{bind: [127.0.0.1], ports: {{{listen}: {to}}}, admin: "127.0.0.1:ADMIN", metrics: "127.0.0.1:METRICS", watch: false}}
"""


def trusting(authority: Authority, own: Pair | None = None) -> ssl.SSLContext:
    """A client's context."""
    context = ssl.create_default_context(cafile=authority.ca)
    if own is not None:
        context.load_cert_chain(own.cert, own.key)
    return context


@contextlib.contextmanager
def connected(listen: int, context: ssl.SSLContext):  # type: ignore[no-untyped-def] # of ssl.SSLSocket
    """A client's connection."""
    with (
        socket.create_connection(("127.0.0.1", listen), 10.0) as sock,
        context.wrap_socket(sock, server_hostname="localhost") as tls,
    ):
        yield tls


def answered(tls: ssl.SSLSocket) -> bytes:
    """The answer to one request."""
    tls.sendall(REQUEST)
    return tls.recv(65536)


def failures(running: Sidecar, reason: str) -> float:
    return running.metrics()[
        f'sidecar_tls_failures_total{{reason="{reason}",side="listener",upstream="api"}}'
    ]


def test_it_speaks_tls_and_nothing_else(authority: Authority, tmp_path: Path) -> None:
    authority.issue("localhost")
    listen = free_port()
    with (
        ScriptedEndpoint(respond(ok(b"fine"))) as endpoint,
        Sidecar(tmp_path, configuration(listen, endpoint.port, "cert: cert.pem, key: cert.key")) as running,
    ):
        context = trusting(authority)
        context.set_alpn_protocols(["h2", "http/1.1"])
        with connected(listen, context) as tls:
            assert (tls.version(), tls.selected_alpn_protocol()) == ("TLSv1.3", "http/1.1")
            assert answered(tls).startswith(b"HTTP/1.1 200 ")
        assert get(listen, "/").status == 400
        wait_until(lambda: failures(running, "tls_failed") == 1, "the plain request")
        assert "api: a client: tls_failed: it speaks no TLS" in running.process.stderr


def test_clients_have_to_be_somebody(authority: Authority, tmp_path: Path) -> None:
    authority.issue("localhost")
    listen = free_port()
    mine, other = authority.issue(SPIFFE, file="mine"), authority.issue("x.example", file="other")
    stranger = Authority(tmp_path, "stranger").issue(SPIFFE, file="stranger-cert")
    tls_keys = f"cert: cert.pem, key: cert.key, client_ca: ca.pem, identity: ['{SPIFFE}']"
    with (
        ScriptedEndpoint(respond(ok(b"fine"))) as endpoint,
        Sidecar(tmp_path, configuration(listen, endpoint.port, tls_keys)) as running,
    ):
        with connected(listen, trusting(authority, mine)) as tls:
            assert answered(tls).startswith(b"HTTP/1.1 200 ")
        for own in (None, other, stranger):
            with contextlib.suppress(OSError), connected(listen, trusting(authority, own)) as tls:
                assert answered(tls) == b""
        reasons = ("tls_failed", "tls_wrong_host", "tls_unknown_ca")
        wait_until(lambda: [failures(running, one) for one in reasons] == [1, 1, 1], "one of each")


def test_it_comes_and_goes_by_reload(authority: Authority, tmp_path: Path) -> None:
    authority.issue("localhost")
    listen = free_port()
    with ScriptedEndpoint(respond(ok(b"fine"))) as endpoint:
        plain = configuration(listen, endpoint.port, "")
        secured = configuration(listen, endpoint.port, "cert: cert.pem, key: cert.key")
        with Sidecar(tmp_path, plain) as running:

            def reload(text: str) -> int:
                text = text.replace("ADMIN", str(running.admin))
                running.path.write_text(text.replace("METRICS", str(running.metrics_port)))
                return running.reload().status

            assert get(listen, "/").status == 200
            assert reload(secured) == 200
            with connected(listen, trusting(authority)) as tls:
                assert answered(tls).startswith(b"HTTP/1.1 200 ")
                assert reload(plain) == 200
                assert answered(tls).startswith(b"HTTP/1.1 200 ")  # who is there stays
            assert get(listen, "/").status == 200
            assert reload(secured.replace("cert.key", "gone.key")) >= 400
            assert get(listen, "/").status == 200


def test_its_certificate_is_renewed_under_load(authority: Authority, tmp_path: Path) -> None:
    """Clients that stay and clients that come anew for each request: none of either fails."""
    authority.issue("localhost", days=5)
    listen = free_port()
    context = trusting(authority)
    seen: Counter[str] = Counter()
    broken: list[BaseException] = []
    ending = threading.Event()

    def staying() -> None:
        try:
            with connected(listen, context) as tls:
                while not ending.is_set():
                    assert answered(tls).startswith(b"HTTP/1.1 200 ")
        except BaseException as error:
            broken.append(error)

    def coming() -> None:
        try:
            while not ending.is_set():
                with connected(listen, context) as tls:
                    certificate = tls.getpeercert()
                    assert certificate is not None
                    seen[str(certificate["serialNumber"])] += 1
                    assert answered(tls).startswith(b"HTTP/1.1 200 ")
        except BaseException as error:
            broken.append(error)

    with (
        ScriptedEndpoint(respond(ok(b"fine"))) as endpoint,
        Sidecar(tmp_path, configuration(listen, endpoint.port, "cert: cert.pem, key: cert.key")) as running,
    ):
        clients = [threading.Thread(target=work) for work in (staying, staying, coming, coming)]
        for client in clients:
            client.start()
        try:
            wait_until(lambda: broken or sum(seen.values()) > 5, "clients of before")
            authority.issue("localhost", days=25)
            wait_until(lambda: broken or len(seen) == 2, "the new certificate", LATE)
        finally:
            ending.set()
            for client in clients:
                client.join(10.0)
        assert not broken
        assert (
            running.metrics()['sidecar_tls_reloads_total{result="success",side="listener",upstream="api"}']
            == 1
        )
        assert failures(running, "tls_failed") == 0
