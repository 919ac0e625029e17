"""From one configuration to another: what comes, goes and changes, and what cannot."""

from dataclasses import replace
from typing import Any

import pytest

from sidecar.config.difference import Difference, as_far_as_possible, difference
from sidecar.config.doors import ListenerSettings
from sidecar.config.settings import (
    Address,
    BreakerSettings,
    DeploymentMode,
    EndpointSettings,
    HealthSettings,
    PolicySettings,
    RegistrySettings,
    Settings,
    SidecarSettings,
    SourceSettings,
    UpstreamKind,
    UpstreamSettings,
)

API = UpstreamSettings(
    "api",
    UpstreamKind.SERVICE,
    "http",
    (EndpointSettings("127.0.0.1", 1),),
    "round_robin",
    "/",
    8080,
    None,
    PolicySettings(),
)
WEB = replace(API, name="web", listen_port=8081)


def settings(*upstreams: UpstreamSettings, **fields: Any) -> Settings:
    base = Settings(
        mode=DeploymentMode.LOCAL,
        domain="",
        origin="test",
        upstreams=upstreams,
        sidecar=SidecarSettings(),
        log_level="INFO",
        registry_debug=False,
        notes=(),
    )
    return replace(base, **fields)


def of_api(**fields: Any) -> Difference:
    return difference(settings(API, WEB), settings(replace(API, **fields), WEB))


def test_the_same_is_no_difference() -> None:
    found = difference(settings(API, WEB), settings(API, WEB))
    assert not found
    assert found == Difference()
    assert found.lines == []
    assert not found.listeners


def test_neither_order_nor_where_it_comes_from_is_one() -> None:
    other = settings(WEB, API, origin="elsewhere", notes=("a note",), mode_reason="why", overrides=("X",))
    assert not difference(settings(API, WEB), other)


def test_upstreams_come_and_go() -> None:
    found = difference(settings(API), settings(WEB))
    assert (found.added, found.removed, found.changed) == ((WEB,), (API,), ())
    assert found.lines == ["api: removed", "web: added"]
    assert found.listeners


@pytest.mark.parametrize(
    ("fields", "parts", "what"),
    [
        ({"scheme": "tcp"}, ("scheme",), {"scheme", "listeners"}),
        ({"listen_port": 1}, ("listen_port",), {"listener", "listeners"}),
        ({"skipped": "it would proxy to itself"}, ("skipped",), {"listener", "listeners"}),
        (
            {"listener": ListenerSettings(socket="/run/a.sock", accept_proxy=True)},
            ("listener.accept_proxy", "listener.socket"),
            {"listener", "listeners"},
        ),
        ({"policy": PolicySettings(proxy_protocol=2)}, ("policy.proxy_protocol",), set()),
        ({"endpoints": ()}, ("endpoints",), {"endpoints"}),
        ({"strategy": "random"}, ("strategy",), set()),
        ({"policy": PolicySettings(timeout=1.0)}, ("policy.timeout",), set()),
        (
            {"policy": PolicySettings(retries=7, breaker=BreakerSettings(open_for=2.0))},
            ("policy.breaker.open_for", "policy.retries"),
            set(),
        ),
        ({"health": HealthSettings(active=True)}, ("health.active",), set()),
        ({"source": SourceSettings(("consul",))}, ("source.use",), {"source"}),
    ],
)
def test_what_follows_from_what_has_changed(
    fields: dict[str, Any], parts: tuple[str, ...], what: set[str]
) -> None:
    found = of_api(**fields)
    (change,) = found.changed
    assert (change.before, change.after.name, change.parts) == (API, "api", parts)
    assert (found.added, found.removed, found.process) == ((), (), ())
    told = {name for name in ("scheme", "listener", "endpoints", "source") if getattr(change, name)}
    told |= {"listeners"} if found.listeners else set()
    assert told == what


def test_a_change_is_told_in_one_line() -> None:
    found = of_api(strategy="random", policy=PolicySettings(timeout=1.0))
    assert found.lines == ["api: timeout, strategy"]
    assert of_api(strategy="random", scheme="tcp").lines == ["api: scheme"]


def test_the_process() -> None:
    found = difference(
        settings(API, sidecar=SidecarSettings(idle_timeout=1.0)),
        settings(API, sidecar=SidecarSettings(bind=("::1",)), log_level="DEBUG"),
    )
    assert found.process == ("sidecar.bind", "sidecar.idle_timeout", "log_level")
    assert found.lines == list(found.process)
    assert found.listeners


def test_registries() -> None:
    found = difference(settings(API), settings(API, registries=(RegistrySettings("consul", "consul"),)))
    assert found.process == ("registries",)
    assert not found.listeners


def test_what_cannot_change_stays_and_is_told_of() -> None:
    old = settings(API, sidecar=SidecarSettings(workers=2))
    wanted = SidecarSettings(
        admin=Address("127.0.0.1", 1), metrics=Address("::1", 2), workers=3, idle_timeout=9.0
    )
    new, warnings = as_far_as_possible(old, settings(WEB, sidecar=wanted))
    assert new == settings(WEB, sidecar=replace(old.sidecar, idle_timeout=9.0))
    assert warnings == [
        "sidecar.admin stays 127.0.0.1:9901; 127.0.0.1:1 needs a restart",
        "sidecar.metrics stays 127.0.0.1:9902; [::1]:2 needs a restart",
        "sidecar.workers stays 2; 3 needs a restart",
    ]


def test_nothing_is_told_of_what_stays_anyway() -> None:
    assert as_far_as_possible(settings(API), settings(WEB)) == (settings(WEB), [])
