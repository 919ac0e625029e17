"""`health_check` in its forms and layers, and the seed's table of health endpoints."""

from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.config import HealthSettings, JsonField, Settings, load_settings

Check = Callable[[str], HealthSettings]
HEALTHY, OK, READY = ((JsonField("status", (f'"{word}"',)),) for word in ("healthy", "ok", "ready"))


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str], Settings]:
    def load(text: str) -> Settings:
        file = tmp_path / "file.yml"
        file.write_text(text)
        return load_settings(file, environ={}, container=False)

    return load


@pytest.fixture
def check(load: Callable[[str], Settings]) -> Check:
    """The check of the one upstream `web`; the text is what follows its host and port."""

    def check(text: str) -> HealthSettings:
        return load(f"services:\n  web: {{host: web.example, port: 80{text}}}\n").upstream("web").health

    return check


def test_the_seeds_table(load: Callable[[str], Settings]) -> None:
    settings = load("sidecar: {}")
    found = {
        upstream.name: (upstream.health.kind, upstream.health.path, upstream.health.expect_json)
        for upstream in settings.upstreams
    }
    assert found == {
        "redis": ("redis", "/", ()),
        "backend": ("http", "/api/system/health", HEALTHY),
        "frontend": ("http", "/", ()),
        "ai-stack": ("http", "/health", OK),
        "npu-worker": ("http", "/health", READY),
    }
    assert "html" in settings.upstream("frontend").health.expect_body
    assert not any(upstream.health.active for upstream in settings.upstreams)


def test_the_seeds_load_balancer(load: Callable[[str], Settings]) -> None:
    text = "hosts: [a.example:8080], strategy: round_robin, health_check: /health"
    ai, other = load(
        f"load_balancers:\n  ai-stack: {{{text}}}\n  w: {{{text.replace('8080', '81')}}}\n"
    ).upstreams
    assert ai.health == HealthSettings(active=True, expect_json=OK)
    assert other.health == HealthSettings(active=True)
    assert (ai.health_endpoint, other.health_endpoint) == ("/health", "/health")


def test_a_load_balancer_of_a_well_known_name_has_its_path(load: Callable[[str], Settings]) -> None:
    health = (
        load("load_balancers:\n  backend: {hosts: ['a:80'], health_check: true}\n").upstream("backend").health
    )
    assert health == HealthSettings(active=True, path="/api/system/health", expect_json=HEALTHY)


@pytest.mark.parametrize(
    "text",
    [
        "health_endpoint: /up",
        "health_check: /up",
        "health_check: {expect_status: 204}",
        "health_check: {expect_body: fine}",
        "health_check: {type: tcp}",
    ],
)
def test_the_table_is_about_its_own_path_and_leaves_what_is_said_alone(
    load: Callable[[str], Settings], text: str
) -> None:
    health = load(f"services:\n  backend: {{{text}}}\n").upstream("backend").health
    assert health.expect_json == ()


def test_defaults_are_those_of_the_table_of_behaviour() -> None:
    plain = HealthSettings()
    assert (plain.interval, plain.timeout, plain.rise, plain.fall) == (5.0, 2.0, 2, 3)
    assert plain.expect_status == ((200, 299),)


def test_no_health_check_is_none(check: Check) -> None:
    assert check("") == HealthSettings()
    assert check(", health_endpoint: /up") == HealthSettings(path="/up")
    assert check(", health_check: false") == check(", health_check: off") == HealthSettings()


def test_short_forms(check: Check) -> None:
    assert check(", health_check: /up") == HealthSettings(active=True, path="/up")
    assert check(", health_check: true") == check(", health_check: {}") == HealthSettings(active=True)


def test_a_health_endpoint_is_the_path_of_a_check_without_one(check: Check) -> None:
    assert check(", health_endpoint: /up, health_check: {rise: 3}").path == "/up"
    assert check(", health_endpoint: /up, health_check: /up").path == "/up"


def test_every_key(check: Check) -> None:
    text = (
        ", health_check: {type: http, path: /up, interval: 30s, timeout: 500ms, rise: 1, fall: 5, "
        "expect_status: [2xx, 301-303, 418], expect_body: /fi+ne/, "
        "expect_json: {status: [ok, degraded], db.up: true, n: 7, x: 1.50}}"
    )
    assert check(text) == HealthSettings(
        kind="http",
        path="/up",
        active=True,
        interval=30.0,
        timeout=0.5,
        rise=1,
        fall=5,
        expect_status=((200, 299), (301, 303), (418, 418)),
        expect_body="/fi+ne/",
        expect_json=(
            JsonField("status", ('"ok"', '"degraded"')),
            JsonField("db.up", ("true",)),
            JsonField("n", ("7",)),
            JsonField("x", ("1.50",)),
        ),
    )


@pytest.mark.parametrize(
    ("written", "ranges"),
    [("204", ((204, 204),)), ("2xx", ((200, 299),)), ("200-399", ((200, 399),)), ("[301]", ((301, 301),))],
)
def test_statuses(check: Check, written: str, ranges: tuple[tuple[int, int], ...]) -> None:
    assert check(f", health_check: {{expect_status: {written}}}").expect_status == ranges


@pytest.mark.parametrize(("scheme", "kind"), [("http", "http"), ("redis", "redis"), ("tcp", "tcp")])
def test_the_scheme_says_what_kind(check: Check, scheme: str, kind: str) -> None:
    assert check(f", scheme: {scheme}, health_check: true").kind == kind


@pytest.mark.parametrize(
    ("scheme", "kind"), [("tcp", "http"), ("tcp", "redis"), ("redis", "tcp"), ("http", "tcp")]
)
def test_other_kinds_that_fit(check: Check, scheme: str, kind: str) -> None:
    assert check(f", scheme: {scheme}, health_check: {{type: {kind}}}").kind == kind


def test_redis_keys(check: Check) -> None:
    text = ", scheme: redis, health_check: {username: sidecar, password_env: REDIS_PASSWORD, role: replica}"
    assert check(text) == HealthSettings(
        kind="redis", path="/", active=True, username="sidecar", password_env="REDIS_PASSWORD", role="replica"
    )


LAYERS = """\
defaults:
  health_check: {path: /up, interval: 10, rise: 4, expect_json: {status: fine}, password_env: ONE}
services:
  plain: {host: a.example, port: 80}
  own: {host: a.example, port: 81, health_endpoint: /own, health_check: {interval: 1, expect_json: {a: b}}}
  path: {host: a.example, port: 82, health_endpoint: /own}
  quiet: {host: a.example, port: 83, health_check: false}
  db: {host: a.example, port: 84, scheme: redis, health_check: {password_file: /f}}
  cache: {host: a.example, port: 85, scheme: redis}
  backend: {host: a.example, port: 86}
"""


def test_layers_are_merged_key_by_key(load: Callable[[str], Settings]) -> None:
    found = {upstream.name: upstream.health for upstream in load(LAYERS).upstreams}
    fine = (JsonField("status", ('"fine"',)),)
    plain = HealthSettings(active=True, path="/up", interval=10.0, rise=4, expect_json=fine)
    assert found["plain"] == found["backend"] == plain, "a file's defaults are nearer than what is built in"
    assert (found["own"].path, found["own"].interval, found["own"].rise) == ("/own", 1.0, 4)
    assert found["own"].expect_json == (JsonField("a", ('"b"',)),)
    assert (found["path"].path, found["path"].active) == ("/own", True)
    assert not found["quiet"].active
    assert (found["db"].password_env, found["db"].password_file) == ("", "/f")
    assert (found["cache"].kind, found["cache"].password_env, found["cache"].rise) == ("redis", "ONE", 4)
    assert (found["cache"].expect_json, found["cache"].path) == ((), "/")


def test_what_is_left_of_another_kind_means_nothing(load: Callable[[str], Settings]) -> None:
    text = (
        "defaults: {health_check: {expect_body: fine, expect_json: {status: ok}}}\n"
        "services: {a: {host: h, port: 1, health_check: {type: tcp}}}\n"
    )
    assert load(text).upstream("a").health == HealthSettings(kind="tcp", active=True)


def test_a_default_type_is_for_whom_it_fits(load: Callable[[str], Settings]) -> None:
    text = (
        "defaults: {health_check: {type: http, path: /up}}\nservices:\n"
        "  a: {host: h, port: 1, scheme: redis}\n  b: {host: h, port: 2, scheme: tcp}\n  c: {host: h, port: 3}\n"
    )
    assert [upstream.health.kind for upstream in load(text).upstreams] == ["redis", "http", "http"]


def test_defaults_may_be_off_and_one_on(load: Callable[[str], Settings]) -> None:
    text = (
        "defaults: {health_check: false}\n"
        "services:\n  a: {host: h, port: 1, health_check: /x}\n  b: {host: h, port: 2}\n"
    )
    assert [upstream.health.active for upstream in load(text).upstreams] == [True, False]
