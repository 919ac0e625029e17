"""TLS to endpoints as a file configures it: real servers, who is trusted and who is not, and how that is told."""

import re
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from support.certificates import Authority
from support.http import get
from support.ports import free_port
from support.proxy import Sidecar, clean_environment, command
from support.tls_servers import TlsNginx, TlsRedis
from support.waiting import wait_until

SPIFFE = "spiffe://example.org/ns/shop/sa/api"
nginx = pytest.mark.server("nginx")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def configuration(listen: int, port: int, tls: str, *, scheme: str = "https", policy: str = "") -> str:
    """One service, `api`, at 127.0.0.1. Files are named as they are beside the configuration."""
    return f"""services:
  api: {{host: 127.0.0.1, port: {port}, scheme: {scheme}, retries: 0, {policy} tls: {{{tls}}}}}
sidecar:
  {{bind: [127.0.0.1], ports: {{{listen}: api}}, admin: "127.0.0.1:ADMIN", metrics: "127.0.0.1:METRICS", watch: false}}
"""


def told(name: str, path: Path) -> subprocess.CompletedProcess[str]:
    """What a command of the sidecar's says to a configuration."""
    line = command(name, "--config", path)
    return subprocess.run(
        line, env=clean_environment(), capture_output=True, text=True, timeout=30, check=False
    )


def failures(running: Sidecar, reason: str) -> float:
    name = f'sidecar_tls_failures_total{{reason="{reason}",side="endpoint",upstream="api"}}'
    return running.metrics()[name]


@nginx
def test_a_name_of_ones_own(authority: Authority, tmp_path: Path) -> None:
    """`server_name` is asked for and is verified; the endpoint's address is not of the certificate."""
    listen = free_port()
    with TlsNginx(tmp_path / "nginx", "api", pair=authority.issue("web.example")) as server:
        tls = "ca: ca.pem, server_name: web.example"
        with Sidecar(tmp_path, configuration(listen, server.port, tls)) as running:
            assert get(listen, "/name").text == "web.example \n"
            assert get(listen, "/").text == "api\n"
            assert running.upstream("api")["scheme"] == "https"
            shown = get(running.admin, "/v1/config").json["settings"]["services"]["api"]
            assert shown["tls"] == {
                "ca": str(tmp_path / "ca.pem"),
                "server_name": "web.example",
                "verify": True,
                "min_version": "1.2",
            }


@nginx
@pytest.mark.parametrize(
    ("names", "days", "since", "tls", "reason", "said"),
    [
        (("127.0.0.1",), -2.0, -9.0, "ca: ca.pem", "tls_expired", r"its certificate has expired \(.*GMT\)"),
        (
            ("127.0.0.1",),
            9.0,
            2.0,
            "ca: ca.pem",
            "tls_expired",
            r"its certificate is not valid yet \(.*GMT\)",
        ),
        (
            ("other.example",),
            9.0,
            -1.0,
            "ca: ca.pem",
            "tls_wrong_host",
            "its certificate is not of 127.0.0.1; it is of other.example, until .*; set tls.server_name",
        ),
        (
            ("127.0.0.1",),
            9.0,
            -1.0,
            "ca: stranger.pem",
            "tls_unknown_ca",
            "nobody who is trusted has signed its certificate .*; set tls.ca to a file with its authority",
        ),
        (
            ("127.0.0.1",),
            9.0,
            -1.0,
            f"ca: ca.pem, identity: ['{SPIFFE}']",
            "tls_wrong_host",
            "its certificate is none of tls.identity; it is of 127.0.0.1",
        ),
    ],
    ids=["expired", "not-yet", "host", "authority", "identity"],
)
def test_who_is_not_to_be_trusted(
    authority: Authority,
    tmp_path: Path,
    names: tuple[str, ...],
    days: float,
    since: float,
    tls: str,
    reason: str,
    said: str,
) -> None:
    """Each has its own reason: in the answer, the metrics and the log."""
    Authority(tmp_path, "stranger")
    listen = free_port()
    pair = authority.issue(*names, days=days, since=since)
    with (
        TlsNginx(tmp_path / "nginx", "api", pair=pair) as server,
        Sidecar(tmp_path, configuration(listen, server.port, tls)) as running,
    ):
        for _ in range(3):
            answer = get(listen, "/")
            assert (answer.status, answer.error) == (502, reason)
        assert failures(running, reason) == 3
        address = f"127.0.0.1:{server.port}"
        attempts = f'sidecar_attempts_total{{endpoint="{address}",outcome="{reason}",upstream="api"}}'
        assert running.metrics()[attempts] == 3
        log = running.process.stderr
        told = re.findall(f"api: {re.escape(address)}: {reason}: {said}", log)
        assert len(told) == 1, log


@nginx
def test_the_breaker_counts_it(authority: Authority, tmp_path: Path) -> None:
    listen = free_port()
    with TlsNginx(tmp_path / "nginx", "api", pair=authority.issue("other.example")) as server:
        text = configuration(listen, server.port, "ca: ca.pem", policy="circuit_breaker_threshold: 2,")
        with Sidecar(tmp_path, text) as running:
            assert [get(listen, "/").error for _ in range(3)] == [
                "tls_wrong_host",
                "tls_wrong_host",
                "all_open",
            ]
            assert running.breaker("api", f"127.0.0.1:{server.port}") == "open"


@nginx
def test_a_client_certificate_is_shown(authority: Authority, tmp_path: Path) -> None:
    authority.issue("me.example", file="me")
    listen = free_port()
    pair = authority.issue("127.0.0.1")
    with TlsNginx(tmp_path / "nginx", "api", pair=pair, client_ca=authority.ca) as server:
        with Sidecar(tmp_path, configuration(listen, server.port, "ca: ca.pem, cert: me.pem, key: me.key")):
            answer = get(listen, "/name")
        assert answer.status == 200
        assert len(answer.text.split()[-1]) > 8  # the serial number of a certificate
        with Sidecar(tmp_path, configuration(listen, server.port, "ca: ca.pem")):
            refused = get(listen, "/")  # nginx finishes the handshake and says so in HTTP
        assert (refused.status, refused.error) == (400, None)


@nginx
def test_an_identity_stands_for_the_name(authority: Authority, tmp_path: Path) -> None:
    listen = free_port()
    with (
        TlsNginx(tmp_path / "nginx", "api", pair=authority.issue(SPIFFE)) as server,
        Sidecar(tmp_path, configuration(listen, server.port, f"ca: ca.pem, identity: ['{SPIFFE}']")),
    ):
        assert get(listen, "/").status == 200


@nginx
def test_the_least_version(authority: Authority, tmp_path: Path) -> None:
    listen = free_port()
    pair = authority.issue("127.0.0.1")
    with TlsNginx(tmp_path / "nginx", "api", pair=pair, versions="TLSv1.2") as server:
        with Sidecar(tmp_path, configuration(listen, server.port, "ca: ca.pem")):
            assert get(listen, "/").status == 200
        with Sidecar(tmp_path, configuration(listen, server.port, "ca: ca.pem, min_version: 1.3")) as running:
            assert get(listen, "/").error == "tls_failed"
            assert "it speaks no version of TLS that is allowed" in running.process.stderr


@nginx
def test_health_checks_ask_over_tls(authority: Authority, tmp_path: Path) -> None:
    listen = free_port()
    health = "health_check: {path: /, interval: 0.2},"
    with TlsNginx(tmp_path / "nginx", "api", pair=authority.issue("127.0.0.1")) as server:
        with Sidecar(tmp_path, configuration(listen, server.port, "ca: ca.pem", policy=health)) as running:
            good = 'sidecar_health_checks_total{result="success",upstream="api"}'
            wait_until(lambda: running.metrics()[good] >= 2, "good checks")
        asked = told("health", running.path)
        assert asked.returncode == 0, asked.stdout + asked.stderr
        text = configuration(listen, server.port, "ca: ca.pem, server_name: a.example", policy=health)
        with Sidecar(tmp_path, text) as running:
            checked = wait_until(lambda: running.upstream("api")["endpoints"][0]["check"], "a check")
            assert checked["ok"] is False
            assert checked["error"].startswith("tls_wrong_host: its certificate is not of a.example")


@pytest.mark.server("redis-server")
def test_redis_over_tls(authority: Authority, tmp_path: Path) -> None:
    listen = free_port()
    health = "health_check: {interval: 0.2},"
    with TlsRedis(tmp_path / "redis", authority.issue("127.0.0.1"), authority.ca) as server:
        text = configuration(listen, server.port, "ca: ca.pem", scheme="rediss", policy=health)
        with Sidecar(tmp_path, text) as running:
            with socket.create_connection(("127.0.0.1", listen), 10.0) as client:
                client.sendall(b"PING\r\n")
                assert client.recv(100) == b"+PONG\r\n"
            good = 'sidecar_health_checks_total{result="success",upstream="api"}'
            wait_until(lambda: running.metrics()[good] >= 1, "a good check")
            ended = 'sidecar_tcp_sessions_total{close_reason="client_closed",upstream="api"}'
            wait_until(lambda: running.metrics()[ended] == 1, "the end of the session")
        text = configuration(listen, server.port, "ca: ca.pem, server_name: a.example", scheme="rediss")
        with Sidecar(tmp_path, text) as running:
            with suppress(ConnectionError), socket.create_connection(("127.0.0.1", listen), 10.0) as client:
                client.sendall(b"PING\r\n")
                assert client.recv(100) == b""
            assert failures(running, "tls_wrong_host") == 1


# What is said before it runs


def test_a_file_that_is_not_there_is_found_by_check_and_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "sidecar.yml"
    path.write_text(
        "services:\n  api:\n    scheme: https\n    host: a.example\n    port: 443\n    tls: {ca: gone.pem}\n"
    )
    checked = told("check", path)
    what = "no such file or directory; name a file that is there and readable"
    assert checked.returncode == 1
    assert checked.stdout.splitlines() == [
        f"{path}:6: services.api.tls.ca: {tmp_path}/gone.pem: {what}",
        "1 finding",
    ]
    started = told("run", path)
    assert started.returncode != 0
    assert started.stderr.splitlines()[-1] == f"sidecar: api: {tmp_path}/gone.pem (tls.ca): {what}"
    assert "Traceback" not in started.stderr


@nginx
def test_a_reload_that_names_a_missing_file_changes_nothing(authority: Authority, tmp_path: Path) -> None:
    listen = free_port()
    with (
        TlsNginx(tmp_path / "nginx", "api", pair=authority.issue("127.0.0.1")) as server,
        Sidecar(tmp_path, configuration(listen, server.port, "ca: ca.pem")) as running,
    ):
        good = running.path.read_text()
        running.path.write_text(good.replace("ca.pem", "gone.pem"))
        refused = running.reload()
        assert refused.status >= 400
        assert "gone.pem (tls.ca): no such file or directory" in refused.text
        assert get(listen, "/").status == 200
        running.path.write_text(good.replace("{ca: ca.pem}", "{ca: ca.pem, server_name: a.example}"))
        assert running.reload().status == 200
        # Not by the connection of before, which was idle then.
        assert get(listen, "/").error == "tls_wrong_host"
