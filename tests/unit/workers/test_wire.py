"""Settings and moves as JSON values: what comes out is what went in."""

import json
import typing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sidecar.config import load_settings
from sidecar.config.settings import Settings
from sidecar.model import Endpoint, Snapshot
from sidecar.resilience import BreakerState
from sidecar.workers.wire import (
    Move,
    Order,
    from_plain,
    order_of,
    plain_order,
    plain_snapshot,
    reload_message,
    reloaded_settings,
    snapshot_of,
    to_plain,
)

CONFIG = Path(__file__).parents[3] / "config"
FILES = sorted(
    file
    for folder in ("deployment", "registries")
    for file in (CONFIG / folder).glob("*.yml")
    if file.name != "endpoints.yml"
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_settings_come_through(path: Path) -> None:
    settings = load_settings(path, environ={}, container=False)
    assert from_plain(Settings, json.loads(json.dumps(to_plain(settings)))) == settings


def test_a_reload_tells_of_the_upstreams_that_differ_alone() -> None:
    before = load_settings(FILES[0], environ={}, container=False)
    first, *others = before.upstreams
    after = replace(
        before, upstreams=(*others, replace(first, strategy="random")), log_level="ERROR", notes=("a note",)
    )
    message = json.loads(json.dumps(reload_message(after, {first.name})))
    assert [upstream["name"] for upstream in message["settings"]["upstreams"]] == [first.name]
    assert reloaded_settings(message, before) == after
    assert reloaded_settings(message, after) == after, "whoever has been started with it meanwhile"
    with pytest.raises(KeyError):
        reloaded_settings(message, replace(before, upstreams=()))


def test_moves_come_through() -> None:
    move = Move("api", "::1", 80, BreakerState.HALF_OPEN, 1.25, 7.0, 3, True)
    assert from_plain(Move, json.loads(json.dumps(to_plain(move)))) == move


def test_orders_come_through() -> None:
    order = Order("drain", 1.25, "api", (("::1", 80), ("10.0.0.1", 81)))
    assert order_of(json.loads(json.dumps(plain_order(order)))) == order


def test_annotations_are_read_once_for_all_upstreams(monkeypatch: pytest.MonkeyPatch) -> None:
    """To read them takes 20 us a class: with those of each upstream a worker served nobody for a tenth of a second."""
    asked: list[type] = []
    real = typing.get_type_hints

    def get_type_hints(kind: type) -> dict[str, Any]:
        asked.append(kind)
        return real(kind)

    monkeypatch.setattr(typing, "get_type_hints", get_type_hints)
    settings = load_settings(environ={}, container=False)
    many = replace(settings, upstreams=settings.upstreams * 20)
    assert from_plain(Settings, json.loads(json.dumps(to_plain(many)))) == many
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize(
    "broken",
    [{"port": "80"}, {"to": 7}, {"at": None}, {"at": "soon"}, {"host": 1}],
)
def test_what_does_not_fit_is_an_error(broken: dict[str, Any]) -> None:
    plain = to_plain(Move("api", "a", 80, BreakerState.OPEN, 1.0, 2.0, 1, False))
    with pytest.raises((TypeError, ValueError)):
        from_plain(Move, {**plain, **broken})
    with pytest.raises(KeyError):
        from_plain(Move, {})


@pytest.mark.parametrize("endpoints", [(), (Endpoint("::1", 80), Endpoint("a", 81, 7, "eu-1a"))])
def test_snapshots_come_through(endpoints: tuple[Endpoint, ...]) -> None:
    snapshot = Snapshot("api", endpoints, "etcd+static")
    assert snapshot_of(json.loads(json.dumps(plain_snapshot(snapshot)))) == snapshot
    with pytest.raises((TypeError, ValueError)):
        snapshot_of(["api", "etcd", [[]]])
