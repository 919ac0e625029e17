"""`tls` of upstreams in its layers, and that of listeners."""

from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.config import Settings, load_settings
from sidecar.config.doors import ClientTlsSettings, ServerTlsSettings
from sidecar.config.findings import Findings
from sidecar.config.marks import Document
from sidecar.config.schema_tls import ServerTls, server_tls
from sidecar.config.tls import tls_place
from sidecar.config.unset import UNSET

Load = Callable[..., Settings]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(text: str, environ: dict[str, str] | None = None) -> Settings:
        file = tmp_path / "file.yml"
        file.write_text(text)
        return load_settings(file, environ=environ or {}, container=False)

    return load


def test_every_scheme_is_what_it_is_with_tls_taken_off(load: Load) -> None:
    settings = load(
        "services:\n"
        "  web: {host: web.example, port: 443, scheme: https}\n"
        "  cache: {host: cache.example, port: 6380, scheme: rediss}\n"
        "  raw: {host: raw.example, port: 7000, scheme: tls}\n"
    )
    found = [(one.protocol, one.secure, one.per_request, one.health.kind) for one in settings.upstreams]
    assert found == [
        ("http", True, True, "http"),
        ("redis", True, False, "redis"),
        ("tcp", True, False, "tcp"),
    ]
    web, cache = settings.upstream("web"), settings.upstream("cache")
    assert (web.policy.idle_timeout, cache.policy.idle_timeout) == (3.0, 0.0)
    assert (web.health_endpoint, cache.health_endpoint) == ("/health", "/")


def test_layers_go_key_by_key_and_files_begin_at_the_folder(load: Load, tmp_path: Path) -> None:
    settings = load(
        "defaults: {tls: {ca: certs/ca.pem, min_version: 1.3, cert: a.pem, key: a.key}}\n"
        "services:\n"
        "  web: {host: web.example, port: 443, scheme: https, tls: {cert: /b.pem, key: /b.key}}\n"
        "  plain: {host: web.example, port: 80}\n"
    )
    assert settings.upstream("web").policy.tls == ClientTlsSettings(
        ca=str(tmp_path / "certs/ca.pem"),
        cert="/b.pem",
        key="/b.key",
        server_name="web.example",
        min_version="1.3",
    )
    assert settings.upstream("plain").policy.tls == ClientTlsSettings()


@pytest.mark.parametrize(
    ("section", "name"),
    [
        ("services: {web: {host: web.example, port: 443, scheme: https}}", "web.example"),
        ("services: {web: {host: 10.0.0.1, port: 443, scheme: https}}", ""),
        (
            "services: {web: {host: 10.0.0.1, port: 443, scheme: https, tls: {server_name: a.example}}}",
            "a.example",
        ),
        ("load_balancers: {web: {hosts: ['web.example:443'], scheme: https}}", ""),
    ],
)
def test_the_name_is_the_one_that_is_written(load: Load, section: str, name: str) -> None:
    assert load(section).upstream("web").policy.tls.server_name == name


def test_the_environments_host_is_the_name(load: Load) -> None:
    settings = load(
        "services: {web: {host: web.example, port: 443, scheme: https}}", {"WEB_HOST": "other.example"}
    )
    assert settings.upstream("web").policy.tls.server_name == "other.example"


def test_identities_are_kept_once_and_names_in_small_letters(load: Load) -> None:
    settings = load(
        "services: {web: {host: a, port: 443, scheme: https, "
        "tls: {identity: [API.example., 'spiffe://example.org/ns/a/sa/b', api.example]}}}"
    )
    assert settings.upstream("web").policy.tls.identity == ("api.example", "spiffe://example.org/ns/a/sa/b")


def test_who_is_not_verified_is_said(load: Load) -> None:
    settings = load("services: {web: {host: a, port: 443, scheme: https, tls: {verify: false}}}")
    assert settings.notes == (
        "web: certificates are not verified (tls.verify: false), so that anybody may pose as its endpoints",
    )


def test_a_service_that_is_not_verified_among_those_that_are(load: Load) -> None:
    settings = load(
        "defaults: {tls: {ca: ca.pem, identity: a.example, min_version: 1.3}}\n"
        "services:\n"
        "  web: {host: a, port: 443, scheme: https}\n"
        "  old: {host: b, port: 444, scheme: https, tls: {verify: false}}"
    )
    assert settings.upstream("web").policy.tls.identity == ("a.example",)
    old = settings.upstream("old").policy.tls
    assert (old.verify, old.ca, old.identity, old.min_version) == (False, "", (), "1.3")


def test_hashing_by_path_is_possible_over_tls(load: Load) -> None:
    settings = load(
        "load_balancers: {web: {hosts: ['a:443'], scheme: https, strategy: ring_hash, hash_on: path}}"
    )
    assert settings.upstream("web").hash_on == "path"


def _server(given: ServerTls) -> tuple[ServerTlsSettings, list[str]]:
    findings = Findings()
    path = ("sidecar", "ports", "8443", "tls")
    found = server_tls(given, path, Document("/etc/sidecar/file.yml", {}, {}), findings)
    return found, findings.lines()


def test_a_listener() -> None:
    given = ServerTls(cert="a.pem", key="a.key", client_ca="ca.pem", identity=("a.example",))
    assert _server(given) == (
        ServerTlsSettings(
            cert="/etc/sidecar/a.pem",
            key="/etc/sidecar/a.key",
            client_ca="/etc/sidecar/ca.pem",
            identity=("a.example",),
        ),
        [],
    )


def test_a_listener_in_the_clear() -> None:
    findings = Findings()
    assert server_tls(UNSET, (), Document("", {}, {}), findings) == ServerTlsSettings()
    assert not findings


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (ServerTls(), "sidecar.ports.8443.tls: has no certificate to show to clients; add cert and key"),
        (ServerTls(cert="a"), "sidecar.ports.8443.tls.cert: needs its private key; "),
        (
            ServerTls(key="a"),
            "sidecar.ports.8443.tls.key: needs the certificate that it belongs to; add cert",
        ),
        (
            ServerTls(cert="a", key="a", identity=("a",)),
            "sidecar.ports.8443.tls.identity: is of certificates that clients are not asked for; add client_ca",
        ),
    ],
)
def test_what_a_listener_lacks(given: ServerTls, problem: str) -> None:
    (line,) = _server(given)[1]
    assert line.removeprefix("/etc/sidecar/file.yml: ").startswith(problem)


def test_where_a_file_is_named(load: Load) -> None:
    upstream = load("services: {web: {host: a, port: 443, scheme: https}}").upstream("web")
    own = ("services", "web", "tls", "ca")
    assert tls_place(Document("", {}, {own: None}), upstream, "endpoint", "ca") == own  # type: ignore[dict-item]
    assert tls_place(Document("", {}, {}), upstream, "endpoint", "ca") == ("defaults", "tls", "ca")
    assert tls_place(Document("", {}, {}), upstream, "listener", "cert") == (
        "sidecar",
        "ports",
        "443",
        "tls",
        "cert",
    )
