"""What external_registry, source and register come to; what they may not be is in the corpus."""

from pathlib import Path
from typing import Any

import pytest

from sidecar.config import load_settings
from sidecar.config.settings import (
    Address,
    EndpointSettings,
    LastGoodSettings,
    RegistrySettings,
    Settings,
    SourceSettings,
    TlsSettings,
)
from sidecar.errors import ConfigurationError
from sidecar.workers.wire import from_plain, to_plain


def loaded(tmp_path: Path, text: str, environ: dict[str, str] | None = None, **given: Any) -> Settings:
    file = tmp_path / "sidecar.yml"
    file.write_text(text)
    return load_settings(file, environ=environ or {}, container=False, **given)


def test_every_key_of_a_registry(tmp_path: Path) -> None:
    settings = loaded(
        tmp_path,
        """
external_registry:
  - {type: consul, host: [c-1.example, 'c-2.example:8501', '[::1]:8500', '::1'], datacenter: dc2, token_file: t,
     tls: {ca: ca.pem, cert: /etc/c.pem, key: c.key, server_name: consul.example}, on_empty: keep, stale_after: 2m}
  - {type: etcd, name: second, host: e.example, prefix: /apps/, username: me, password_env: ETCD_PASSWORD, tls: true}
  - {type: kubernetes, namespace: shop, kubeconfig: kube.yml, context: dev}
  - {type: dns, host: '10.0.0.2'}
  - {type: file, path: endpoints.yml}
""",
    )
    near = str(tmp_path)
    consul, etcd, kubernetes, dns, file = settings.registries
    assert consul == RegistrySettings(
        name="consul",
        kind="consul",
        hosts=(
            Address("c-1.example", 0),
            Address("c-2.example", 8501),
            Address("::1", 8500),
            Address("::1", 0),
        ),
        keep_empty=True,
        stale_after=120.0,
        tls=TlsSettings(True, f"{near}/ca.pem", "/etc/c.pem", f"{near}/c.key", "consul.example"),
        token_file=f"{near}/t",
        datacenter="dc2",
    )
    assert (etcd.name, etcd.prefix, etcd.username, etcd.password_env) == (
        "second",
        "/apps",
        "me",
        "ETCD_PASSWORD",
    )
    assert etcd.tls == TlsSettings(enabled=True)
    assert (kubernetes.namespace, kubernetes.kubeconfig, kubernetes.context) == (
        "shop",
        f"{near}/kube.yml",
        "dev",
    )
    assert [one.keep_empty for one in (etcd, kubernetes, dns, file)] == [False, False, True, False]
    assert file.path == f"{near}/endpoints.yml"
    assert from_plain(Settings, to_plain(settings)) == settings


def test_without_a_word_every_registry_is_asked_and_the_file_comes_last(tmp_path: Path) -> None:
    settings = loaded(
        tmp_path,
        """
external_registry: [{type: consul, host: c.example}, {type: dns}]
services:
  both: {host: b.example, port: 80}
  theirs: {port: 81}
load_balancers:
  many: {hosts: ['m.example:82']}
  none: {}
sidecar: {ports: {80: both, 81: theirs, 82: many, 83: none}}
""",
    )
    use = {one.name: one.source.use for one in settings.upstreams}
    assert use == {
        "both": ("consul", "dns", "static"),
        "theirs": ("consul", "dns"),
        "many": ("consul", "dns", "static"),
        "none": ("consul", "dns"),
    }
    assert settings.upstream("theirs").endpoints == ()
    assert settings.upstream("theirs").listen_port == 81


def test_without_registries_all_is_static(tmp_path: Path) -> None:
    (upstream,) = loaded(tmp_path, "services: {api: {host: a.example, port: 80}}").upstreams
    assert upstream.source == SourceSettings()
    assert upstream.source.is_static


def test_an_upstream_chooses_and_defaults_do_for_the_others(tmp_path: Path) -> None:
    settings = loaded(
        tmp_path,
        """
external_registry: [{type: consul, host: c.example}, {type: kubernetes}]
defaults: {source: kubernetes}
services:
  usual: {port: 80}
  own: {port: 81, source: {use: [consul, kubernetes], merge: true, service: other, port: 8080, tags: [a, b],
        datacenter: dc2, namespace: ml}}
""",
    )
    assert settings.upstream("usual").source == SourceSettings(("kubernetes",))
    assert settings.upstream("own").source == SourceSettings(
        ("consul", "kubernetes"), True, "other", "8080", ("a", "b"), "dc2", "ml"
    )


@pytest.mark.parametrize(
    ("environ", "source", "endpoints"),
    [
        ({}, SourceSettings(("consul", "static")), [EndpointSettings("a.example", 80)]),
        ({"API_HOST": "x.example"}, SourceSettings(), [EndpointSettings("x.example", 80)]),
        ({"API_HOST": "x.example", "API_PORT": "9"}, SourceSettings(), [EndpointSettings("x.example", 9)]),
        (
            {"API_PORT": "9"},
            SourceSettings(("consul", "static"), override_port=9),
            [EndpointSettings("a.example", 9)],
        ),
    ],
)
def test_the_environment_overrides_any_source(
    tmp_path: Path, environ: dict[str, str], source: SourceSettings, endpoints: list[EndpointSettings]
) -> None:
    text = "external_registry: {type: consul, host: c}\nservices: {api: {host: a.example, port: 80}}"
    (upstream,) = loaded(tmp_path, text, environ).upstreams
    assert upstream.source == source
    assert list(upstream.endpoints) == endpoints
    assert upstream.listen_port == 80


def test_hosts_of_the_environment_override_any_source_too(tmp_path: Path) -> None:
    text = (
        "external_registry: {type: consul, host: c}\nload_balancers: {api: {}}\nsidecar: {ports: {80: api}}"
    )
    (upstream,) = loaded(tmp_path, text, {"API_HOSTS": "x:1,y:2"}).upstreams
    assert upstream.source.is_static
    assert [str(one) for one in upstream.endpoints] == ["x:1", "y:2"]


def test_a_program_names_registries_in_place_of_the_file(tmp_path: Path) -> None:
    text = "external_registry: {type: etcd, host: e}\nservices: {api: {host: a.example, port: 80}}"
    settings = loaded(tmp_path, text, external_registry={"type": "consul", "host": "consul.example:8500"})
    assert [one.kind for one in settings.registries] == ["consul"]
    assert settings.upstream("api").source.use == ("consul", "static")
    several = loaded(tmp_path, text, external_registry=[{"type": "dns"}, {"type": "file", "path": "e.yml"}])
    assert [one.path for one in several.registries] == ["", "e.yml"]
    with pytest.raises(ConfigurationError) as caught:
        loaded(tmp_path, text, external_registry={"type": "zookeeper", "token": "secret"})
    assert caught.value.findings == [
        (
            "ServiceRegistry: external_registry.type: `zookeeper` is not known; "
            "use one of: consul etcd kubernetes dns file"
        ),
        (
            "ServiceRegistry: external_registry.token: does not belong into a file; "
            "write token_env: NAME of a variable, or token_file: PATH"
        ),
    ]


def test_registrations(tmp_path: Path) -> None:
    settings = loaded(
        tmp_path,
        """
external_registry: {type: consul, host: c.example}
sidecar: {zone: a}
register:
  - {name: backend, port: 8001}
  - {name: orders, port: 9000, health_check: /healthz, host: o.example, id: o-1, weight: 3, zone: b, tags: [x], ttl: 30,
     check_host: 10.0.0.1}
  - {name: cache, port: 6379, health_check: {type: redis, interval: 1}}
""",
        register=[("flagged", 7000)],
    )
    backend, orders, cache, flagged = settings.registrations
    assert (backend.registry, backend.host, backend.identity, backend.zone, backend.ttl) == (
        "consul",
        "",
        "",
        "a",
        15.0,
    )
    assert (backend.check.kind, backend.check_host) == ("tcp", "127.0.0.1")
    assert (orders.check.kind, orders.check.path, orders.check_host) == ("http", "/healthz", "10.0.0.1")
    assert (orders.host, orders.identity, orders.weight, orders.zone, orders.tags, orders.ttl) == (
        "o.example",
        "o-1",
        3,
        "b",
        ("x",),
        30.0,
    )
    assert (cache.check.kind, cache.check.interval) == ("redis", 1.0)
    assert (flagged.name, flagged.port, flagged.registry) == ("flagged", 7000, "consul")


@pytest.mark.parametrize(
    ("text", "environ", "kept"),
    [
        ("{}", {}, LastGoodSettings()),
        ("{last_good: kept.json}", {}, LastGoodSettings("NEAR/kept.json")),
        ("{last_good: {file: /var/k.json, max_age: 1h}}", {}, LastGoodSettings("/var/k.json", 3600.0)),
        ("{}", {"STATE_DIRECTORY": "/var/lib/one:/two"}, LastGoodSettings("/var/lib/one/last-good.json")),
        ("{last_good: kept.json}", {"STATE_DIRECTORY": "/var/lib/one"}, LastGoodSettings("NEAR/kept.json")),
    ],
)
def test_where_the_last_good_snapshots_are_kept(
    tmp_path: Path, text: str, environ: dict[str, str], kept: LastGoodSettings
) -> None:
    settings = loaded(tmp_path, f"services: {{api: {{host: a, port: 80}}}}\nsidecar: {text}", environ)
    found = settings.sidecar.last_good
    assert found == LastGoodSettings(kept.file.replace("NEAR", str(tmp_path)), kept.max_age)


def test_waiting_and_watching(tmp_path: Path) -> None:
    plain = loaded(tmp_path, "services: {api: {host: a, port: 80}}").sidecar
    assert (plain.registry_wait, plain.watch) == (5.0, True)
    told = loaded(
        tmp_path, "services: {api: {host: a, port: 80}}\nsidecar: {registry_wait: 0, watch: false}"
    ).sidecar
    assert (told.registry_wait, told.watch) == (0.0, False)
