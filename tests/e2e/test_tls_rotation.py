"""Certificates and keys that are renewed under load: no request fails, and no connection is dropped."""

import ssl
from pathlib import Path

import pytest
from support.certificates import Authority, Pair
from support.http import get
from support.load import Load
from support.ports import free_port
from support.proxy import Sidecar
from support.tls_servers import TlsNginx
from support.waiting import wait_until

nginx = pytest.mark.server("nginx")
LATE = 20.0  # seconds: files are looked at every 5


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def reloads(running: Sidecar, side: str, result: str = "success") -> float:
    return running.metrics()[f'sidecar_tls_reloads_total{{result="{result}",side="{side}",upstream="api"}}']


def expires(running: Sidecar, side: str) -> float:
    return running.metrics()[
        f'sidecar_tls_certificate_expiry_timestamp_seconds{{side="{side}",upstream="api"}}'
    ]


def established(running: Sidecar) -> float:
    return running.metrics()['sidecar_connections_opened_total{result="established",upstream="api"}']


def serial(file: str) -> str:
    """The serial number of a certificate, as nginx tells it."""
    decoded: str = ssl._ssl._test_decode_cert(file)["serialNumber"]  # type: ignore[attr-defined]
    return decoded


def half_written(running: Sidecar, pair: Pair, load: Load) -> None:
    """A key that cannot be read is not used, and told; when it is whole it is."""
    key = Path(pair.key).read_bytes()
    Path(pair.key).write_bytes(key[:40])
    wait_until(lambda: reloads(running, "endpoint", "failure") >= 1, "a half-written key", LATE)
    assert "api: tls to its endpoints is not renewed, what was before stays: " in running.process.stderr
    load.wait_for_more(200)
    Path(pair.key).write_bytes(key)
    wait_until(lambda: reloads(running, "endpoint") == 2, "the whole key", LATE)
    load.wait_for_more(200)


@nginx
@pytest.mark.parametrize("workers", [1, 2])
def test_the_client_certificate_under_load(authority: Authority, tmp_path: Path, workers: int) -> None:
    """Renewed, then half renewed, then mended; the endpoint tells whom it has spoken to."""
    listen = free_port()
    me = authority.issue("me.example", file="me", days=5)
    pair = authority.issue("127.0.0.1")
    text = f"""services:
  api: {{host: 127.0.0.1, port: PORT, scheme: https, retries: 0, idle_timeout: 60,
    tls: {{ca: ca.pem, cert: me.pem, key: me.key}}}}
sidecar:
  {{bind: [127.0.0.1], ports: {{{listen}: api}}, admin: "127.0.0.1:ADMIN", metrics: "127.0.0.1:METRICS", watch: false,
   workers: {workers}}}
"""
    with (
        TlsNginx(tmp_path / "nginx", "api", pair=pair, client_ca=authority.ca) as server,
        Sidecar(tmp_path, text.replace("PORT", str(server.port))) as running,
    ):
        assert get(listen, "/name").text.split()[-1] == serial(me.cert)
        first = expires(running, "endpoint")
        with Load(listen, 8) as load:
            load.wait_for_more(200)
            before = established(running)
            authority.issue("me.example", file="me", days=25)
            wait_until(lambda: reloads(running, "endpoint") == workers, "renewed everywhere", LATE)
            load.wait_for_more(200)
            assert established(running) == before  # open connections go on
            new_serial = serial(me.cert)
            if workers == 1:
                half_written(running, me, load)
        assert not load.errors
        assert set(load.statuses) == {200}
        assert abs(expires(running, "endpoint") - first - 20 * 86400) < 5

        def shown() -> bool:
            return get(listen, "/name").text.split()[-1] == new_serial

        running.reload()  # nothing has changed
        # Whoever opens another connection shows the new one.
        with Load(listen, 40) as more:
            more.wait_for_more(400)
            wait_until(shown, "the new certificate at a new connection")
        assert not more.errors


@nginx
def test_the_authority_of_endpoints_is_renewed_with_them(authority: Authority, tmp_path: Path) -> None:
    """Both authorities first, then the endpoint's certificate: the order in which it is done."""
    listen = free_port()
    (tmp_path / "next").mkdir()
    successor = Authority(tmp_path / "next", "next")
    text = f"""services:
  api: {{host: 127.0.0.1, port: PORT, scheme: https, retries: 0, tls: {{ca: ca.pem}}}}
sidecar:
  {{bind: [127.0.0.1], ports: {{{listen}: api}}, admin: "127.0.0.1:ADMIN", metrics: "127.0.0.1:METRICS", watch: false}}
"""
    pair = successor.issue("127.0.0.1")
    with (
        TlsNginx(tmp_path / "nginx", "api", pair=pair) as server,
        Sidecar(tmp_path, text.replace("PORT", str(server.port))) as running,
    ):
        assert get(listen, "/").error == "tls_unknown_ca"
        with Path(authority.ca).open("a") as stream:
            stream.write(Path(successor.ca).read_text())
        wait_until(lambda: reloads(running, "endpoint") == 1, "both authorities", LATE)
        assert get(listen, "/").status == 200
