"""The PROXY protocol with real programs on both sides: nginx and HAProxy, versions 1 and 2."""

import socket
from pathlib import Path

import pytest
from support.endpoints import Conversation, ScriptedEndpoint
from support.http import HttpClient
from support.ports import free_port
from support.proxied import Haproxy, Told
from support.proxy import Sidecar, configuration
from support.waiting import wait_until

VERSIONS = pytest.mark.parametrize("version", ["v1", "v2"])


def counted(sidecar: Sidecar, result: str) -> float:
    return sidecar.metrics().get(f'sidecar_proxy_headers_total{{result="{result}",upstream="api"}}', 0)


def proxied(listen: int, endpoint: int, *, scheme: str = "http", policy: str = "", more: str = "") -> str:
    """As `configuration`, with a port that asks for headers."""
    text = configuration(listen, [endpoint], scheme=scheme, policy=policy, sidecar=more)
    return text.replace(f"{listen}: api", f"{listen}: {{to: api, accept_proxy: true}}")


@VERSIONS
@pytest.mark.server("nginx")
def test_nginx_hears_of_each_client(tmp_path: Path, version: str) -> None:
    """And no connection to it is shared, be it that its client's next request comes at once."""
    listen = free_port()
    policy = f"proxy_protocol: {version}, health_check: {{path: /, interval: 0.2}}"
    with Told(tmp_path / "nginx", "a") as nginx:
        text = configuration(listen, [nginx.port], policy=policy)
        with Sidecar(tmp_path, text) as sidecar:
            connections = []
            for _ in range(2):
                with HttpClient(listen) as client:
                    name, port = client.socket.getsockname()
                    for _ in range(2):
                        *told, connection = client.request().text.split()
                        assert told == [name, str(port), str(listen)]
                        connections.append(connection)
            assert len(set(connections)) == 4
            wait_until(
                lambda: sidecar.metrics().get('sidecar_health_checks_total{result="success",upstream="api"}'),
                "a check, which begins with a header too",
            )
            assert sidecar.upstream("api")["endpoints"][0]["breaker"]["state"] == "closed"


@VERSIONS
@pytest.mark.server("nginx", "haproxy")
def test_haproxy_tells_and_nginx_hears(tmp_path: Path, version: str) -> None:
    """The client's own address, and the port that it connected to, through two proxies."""
    listen = free_port()
    with Told(tmp_path / "nginx", "a") as nginx:
        text = proxied(listen, nginx.port, policy=f"proxy_protocol: {version}")
        words = "send-proxy" if version == "v1" else "send-proxy-v2"
        with (
            Sidecar(tmp_path, text) as sidecar,
            Haproxy(tmp_path / "haproxy", f"127.0.0.1:{listen}", mode="http", server=words) as haproxy,
            HttpClient(haproxy.port) as client,
        ):
            name, port = client.socket.getsockname()
            assert client.request().text.split()[:3] == [name, str(port), str(haproxy.port)]
            assert counted(sidecar, "accepted") == 1


@VERSIONS
@pytest.mark.server("haproxy")
def test_haproxy_takes_what_a_session_begins_with(tmp_path: Path, version: str) -> None:
    """HAProxy in between passes the client on, and says who it is as it was told."""
    listen = free_port()
    heard: list[bytes] = []

    def echo(conversation: Conversation) -> None:
        heard.append(conversation.read_line())
        conversation.send(conversation.read_to_end())

    with (
        ScriptedEndpoint(echo) as endpoint,
        Haproxy(
            tmp_path / "haproxy",
            f"127.0.0.1:{endpoint.port}",
            mode="tcp",
            bind="accept-proxy",
            server="send-proxy",
        ) as haproxy,
        Sidecar(
            tmp_path,
            configuration(listen, [haproxy.port], scheme="tcp", policy=f"proxy_protocol: {version}"),
        ),
        socket.create_connection(("127.0.0.1", listen), 10.0) as client,
    ):
        client.sendall(b"all of it")
        client.shutdown(socket.SHUT_WR)
        name, port = client.getsockname()
        with client.makefile("rb") as answer:
            assert answer.read() == b"all of it"
        assert heard == [f"PROXY TCP4 {name} 127.0.0.1 {port} {listen}".encode()]


def test_what_brings_no_header_is_closed_and_counted(tmp_path: Path) -> None:
    listen = free_port()
    line = b"PROXY TCP4 192.0.2.7 192.0.2.1 5 80\r\n"
    request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"

    def said(*pieces: bytes, wait: bool = False) -> bytes:
        with socket.create_connection(("127.0.0.1", listen), 10.0) as client:
            for piece in pieces:
                client.sendall(piece)
            if not wait:
                return client.recv(65536)
            try:
                return client.recv(65536)
            except ConnectionResetError:
                return b""

    with ScriptedEndpoint() as endpoint:
        text = proxied(listen, endpoint.port, more="head_timeout: 0.5")
        with Sidecar(tmp_path, text) as sidecar:
            assert said(line + request).startswith(b"HTTP/1.1 200 ")
            assert said(*(bytes([byte]) for byte in line + request)).startswith(b"HTTP/1.1 200 ")
            assert said(request, wait=True) == b""
            assert said(line[:9], wait=True) == b"", "it takes too long"
            with socket.create_connection(("127.0.0.1", listen), 10.0):
                pass
            wait_until(lambda: counted(sidecar, "closed"), "who left without a word")
            assert [counted(sidecar, result) for result in ("accepted", "invalid", "timeout")] == [2, 1, 1]
            assert len(endpoint.requests) == 2
            wait_until(lambda: sidecar.metrics()["sidecar_clients"] == 0, "all have gone")
