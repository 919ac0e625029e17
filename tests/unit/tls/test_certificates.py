"""The TLS of all upstreams, from one configuration to the next."""

import ssl
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.certificates import Authority, Pair
from support.clock import FakeClock

from sidecar.cluster import Cluster
from sidecar.config.doors import ListenerSettings, ServerTlsSettings
from sidecar.config.load import load_settings
from sidecar.config.resolved import upstream_policy
from sidecar.config.settings import Settings
from sidecar.errors import ConfigurationError, StartError
from sidecar.tls.certificates import Certificates, findings


class Running:
    """Certificates and the clusters that they are given to."""

    def __init__(self) -> None:
        self.noted: list[Any] = []
        self.certificates = Certificates(lambda: 0.0, self.noted.append)
        self.clusters: dict[str, Cluster] = {}

    def go(self, settings: Settings) -> None:
        self.certificates.prepare(settings)
        for one in settings.upstreams:
            if one.name not in self.clusters:
                clock: Any = FakeClock()
                policy = upstream_policy(one, "")
                self.clusters[one.name] = Cluster(one.name, one.scheme, policy, clock)
        self.certificates.follow(self.clusters)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def _settings(
    directory: Path, tls: str = "ca: ca.pem", listener: ServerTlsSettings | None = None
) -> Settings:
    file = directory / "sidecar.yml"
    file.write_text(
        f"services:\n  web: {{scheme: https, host: a.example, port: 443, tls: {{{tls}}}}}\n"
        "  plain: {host: a.example, port: 80}\n"
    )
    settings = load_settings(file, environ={}, container=False)
    if listener is None:
        return settings
    web, plain = settings.upstreams
    return replace(
        settings, upstreams=(web, replace(plain, listener=replace(ListenerSettings(), tls=listener)))
    )


def test_who_has_it_gets_it(authority: Authority, tmp_path: Path) -> None:
    pair = authority.issue("localhost")
    running = Running()
    running.go(_settings(tmp_path, listener=ServerTlsSettings(cert=pair.cert, key=pair.key)))
    web, plain = running.clusters["web"], running.clusters["plain"]
    assert (web.tls is not None, plain.tls) == (True, None)
    assert running.certificates.server_tls("web") is None
    assert running.certificates.server_tls("plain") is not None
    assert running.certificates.server_tls("nobody") is None
    assert len(running.certificates.rotating()) == 2
    assert running.noted == running.certificates.rotating()
    assert (plain.stats.tls_expiry[1] > 0, plain.stats.tls_expiry[0], web.stats.tls_expiry) == (
        True,
        0,
        [0, 0],
    )


def test_what_has_not_changed_stays_the_very_same(authority: Authority, tmp_path: Path) -> None:
    running = Running()
    running.go(_settings(tmp_path))
    before: Any = running.clusters["web"].tls
    context = before.context
    running.go(_settings(tmp_path))
    assert running.clusters["web"].tls is before
    assert before.context is context
    running.go(_settings(tmp_path, "ca: ca.pem, min_version: 1.3"))
    after: Any = running.clusters["web"].tls
    assert after is not before
    assert after.context.minimum_version == ssl.TLSVersion.TLSv1_3


def test_the_systems_authorities_are_loaded_once_for_all(tmp_path: Path) -> None:
    file = tmp_path / "sidecar.yml"
    file.write_text(
        "load_balancers:\n"
        "  a: {scheme: https, hosts: ['a.example:443']}\n"
        "  b: {scheme: https, hosts: ['b.example:444'], tls: {server_name: c.example}}\n"
        "  c: {scheme: https, hosts: ['c.example:445'], tls: {identity: c.example}}\n"
        "  d: {scheme: tls, hosts: ['d.example:446']}\n"
    )
    running = Running()
    running.go(load_settings(file, environ={}, container=False))
    tls: Any = {name: cluster.tls for name, cluster in running.clusters.items()}
    assert tls["a"].context is tls["b"].context
    assert len({id(tls[name].context) for name in "acd"}) == 3
    file.write_text(file.read_text() + "  e: {scheme: https, hosts: ['e.example:447']}\n")
    running.go(load_settings(file, environ={}, container=False))
    later: Any = running.clusters["e"].tls
    assert later.context is tls["a"].context


def test_counts_outlive_settings(authority: Authority, tmp_path: Path) -> None:
    running = Running()
    running.go(_settings(tmp_path))
    running.clusters["web"].tls.failed(  # type: ignore[union-attr]
        next(iter(running.clusters["web"].endpoints.values()), _endpoint()), ConnectionResetError()
    )
    running.go(_settings(tmp_path, "ca: ca.pem, min_version: 1.3"))
    assert running.clusters["web"].stats.tls_failures[0] == [0, 0, 0, 1]


def _endpoint() -> Any:
    from sidecar.model import Endpoint

    return Endpoint("a.example", 443)


def test_a_missing_file_changes_nothing(authority: Authority, tmp_path: Path) -> None:
    running = Running()
    running.go(_settings(tmp_path))
    before = running.clusters["web"].tls
    with pytest.raises(StartError) as caught:
        running.certificates.prepare(_settings(tmp_path, "ca: gone.pem"))
    assert str(caught.value) == (
        f"web: {tmp_path}/gone.pem (tls.ca): no such file or directory; "
        "name a file that is there and readable"
    )
    assert running.clusters["web"].tls is before
    assert running.certificates.rotating() == [before]


def test_an_upstream_without_it_any_more(authority: Authority, tmp_path: Path) -> None:
    pair = authority.issue("localhost")
    running = Running()
    running.go(_settings(tmp_path, listener=ServerTlsSettings(cert=pair.cert, key=pair.key)))
    running.go(_settings(tmp_path))
    assert running.certificates.server_tls("plain") is None
    assert running.clusters["plain"].stats.tls_expiry == [0.0, 0.0]


def test_a_renewed_certificate_is_shown_and_counted(authority: Authority, tmp_path: Path) -> None:
    authority.issue("me.example", days=5)
    running = Running()
    running.go(_settings(tmp_path, "ca: ca.pem, cert: cert.pem, key: cert.key"))
    cluster = running.clusters["web"]
    (renewed,) = running.certificates.rotating()
    first = cluster.stats.tls_expiry[0]
    authority.issue("me.example", days=25)
    renewed.take(renewed.load())
    renewed.loads += 1
    renewed.failures += 2
    assert abs(cluster.stats.tls_expiry[0] - first - 20 * 86400) < 2
    assert cluster.stats.tls_reloads == [[1, 2], [0, 0]]
    assert (renewed.loads, renewed.failures) == (1, 2)


def test_a_leaving_cluster_keeps_its_own(authority: Authority, tmp_path: Path) -> None:
    running = Running()
    running.go(_settings(tmp_path))
    cluster = running.clusters["web"]
    before, cluster.leaving = cluster.tls, True
    running.go(_settings(tmp_path, "verify: false"))
    assert cluster.tls is before


# What `sidecar check` finds


def _found(directory: Path, text: str) -> list[str]:
    file = directory / "sidecar.yml"
    file.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_settings(file, environ={}, container=False, files=findings)
    return [line.removeprefix(f"{file}:") for line in caught.value.findings]


def test_files_are_looked_at_where_that_is_asked_for(authority: Authority, tmp_path: Path) -> None:
    authority.issue("me.example")
    (tmp_path / "other.key").write_bytes(Path(authority.issue("x.example", file="x").key).read_bytes())
    text = (
        "defaults: {tls: {ca: gone.pem}}\n"
        "services:\n"
        "  web: {scheme: https, host: a.example, port: 443}\n"
        "  shop:\n"
        "    scheme: https\n"
        "    host: b.example\n"
        "    port: 444\n"
        "    tls: {ca: ca.pem, cert: cert.pem, key: other.key}\n"
    )
    gone = "no such file or directory; name a file that is there and readable"
    other = f"does not belong to the certificate in {tmp_path}/cert.pem"
    assert _found(tmp_path, text) == [
        f"1: defaults.tls.ca: {tmp_path}/gone.pem: {gone}",
        f"8: services.shop.tls.key: {tmp_path}/other.key: {other}",
    ]


def test_good_files_are_no_findings(authority: Authority, tmp_path: Path) -> None:
    pair: Pair = authority.issue("me.example")
    settings = _settings(tmp_path, f"ca: ca.pem, cert: {pair.cert}, key: {pair.key}")
    assert list(findings(settings.upstreams)) == []


def test_a_listeners_file_is_of_its_port(authority: Authority, tmp_path: Path) -> None:
    settings = _settings(tmp_path, listener=ServerTlsSettings(cert="gone", key="gone"))
    ((upstream, side, key, _),) = findings(settings.upstreams)
    assert (upstream.name, side, key) == ("plain", "listener", "cert")
