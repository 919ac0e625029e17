"""Header rules, tokens and limits of settings: what is kept at a reload, what ends it, and files that change."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from support.clock import FakeClock

from sidecar.cluster import Cluster
from sidecar.config import Settings, load_settings
from sidecar.doors import Doors
from sidecar.errors import StartError
from sidecar.fronts import BearerToken, Fronts
from sidecar.http1.message import RequestHead
from sidecar.model import UpstreamPolicy
from sidecar.proxy.front import Front
from sidecar.rotation import Rotation

Load = Callable[..., Settings]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Settings of the upstream `web` with these keys."""

    def load(keys: str, sidecar: str = "") -> Settings:
        file = tmp_path / "file.yml"
        file.write_text(
            f"services: {{web: {{host: 127.0.0.1, port: 80, {keys}}}, other: {{host: 127.0.0.1, port: 81}}}}\n"
            f"sidecar: {{ports: {{8000: web}}, {sidecar}}}\n"
        )
        return load_settings(file, environ={}, container=False)

    return load


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def fronts(clock: FakeClock) -> Fronts:
    return Fronts(clock, lambda token: None)  # type: ignore[arg-type] # a double


def go_by(fronts: Fronts, settings: Settings) -> Settings:
    fronts.prepare(settings)
    fronts.follow(settings)
    return settings


def sent(fronts: Fronts, settings: Settings) -> list[bytes]:
    """The lines of a request as its rules have it."""
    rules = fronts.rules(settings.upstream("web"))
    assert rules is not None
    head = RequestHead([b"GET / HTTP/1.1", b"Host: a"], 0, b"/", 1, 1)
    head._host = 1
    return rules.edit_request(head)._lines[2:]


def admitted(fronts: Fronts, settings: Settings, now: float) -> int:
    bucket = fronts.rate(settings.upstream("web"))
    assert bucket is not None
    return sum(bucket.admit(now) for _ in range(100))


def test_who_says_nothing_has_nothing(fronts: Fronts, load: Load) -> None:
    settings = go_by(fronts, load(""))
    web = settings.upstream("web")
    assert (fronts.rules(web), fronts.rate(web), fronts.token(web), fronts.tokens()) == (None, None, None, [])


def test_what_is_the_same_stays_the_same_object(fronts: Fronts, load: Load, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one\n")
    settings = go_by(fronts, load("bearer_token_file: a, rate_limit: {requests: 5}"))
    web = settings.upstream("web")
    before = fronts.rules(web), fronts.rate(web), fronts.token(web)
    go_by(fronts, load("bearer_token_file: a, rate_limit: {requests: 5}, timeout: 3"))
    assert (fronts.rules(web), fronts.rate(web), fronts.token(web)) == before
    go_by(fronts, load("bearer_token_file: a, rate_limit: {requests: 6}, headers: {request: {set: {A: b}}}"))
    assert fronts.rules(web) is not before[0]
    assert fronts.rate(web) is before[1]
    go_by(fronts, load(""))
    assert (fronts.rules(web), fronts.rate(web)) == (None, None)


def test_a_limit_that_changes_keeps_its_level(fronts: Fronts, load: Load, clock: FakeClock) -> None:
    settings = go_by(fronts, load("rate_limit: {requests: 1, per: 60, burst: 10}"))
    assert admitted(fronts, settings, clock.now) == 10
    go_by(fronts, load("rate_limit: {requests: 1, per: 1, burst: 50}"))
    assert admitted(fronts, settings, clock.now) == 0
    assert admitted(fronts, settings, clock.advance(3.0)) == 3


@pytest.mark.parametrize(("workers", "at_once", "later"), [(1, 8, 4), (2, 4, 2), (64, 1, 1)])
def test_each_worker_has_its_share(
    fronts: Fronts, load: Load, clock: FakeClock, workers: int, at_once: int, later: int
) -> None:
    settings = go_by(fronts, load("rate_limit: {requests: 4, per: 1, burst: 8}", f"workers: {workers}"))
    assert admitted(fronts, settings, clock.now) == at_once
    assert admitted(fronts, settings, clock.advance(1.0 if workers < 64 else 16.0)) == later


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "web.token (bearer_token_file): no such file or directory"),
        ("", "web.token (bearer_token_file) is empty or longer than 4096 bytes"),
        ("do not tell", "web.token holds a space or a control character, which is no part of a token"),
    ],
)
def test_without_its_token_nothing_begins_or_changes(
    fronts: Fronts, load: Load, tmp_path: Path, content: str | None, why: str
) -> None:
    settings = go_by(fronts, load("headers: {request: {set: {A: b}}}"))
    if content is not None:
        (tmp_path / "web.token").write_text(content)
    with pytest.raises(StartError) as raised:
        fronts.prepare(load("bearer_token_file: web.token"))
    assert str(raised.value).startswith("web: ")
    assert str(raised.value).endswith(why)
    assert "do not tell" not in str(raised.value)
    assert sent(fronts, settings) == [b"A: b"]


def test_a_token_of_a_variable(fronts: Fronts, load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StartError, match=r"web: the variable WEB_TOKEN \(bearer_token_env\) is not set"):
        fronts.prepare(load("bearer_token_env: WEB_TOKEN"))
    monkeypatch.setenv("WEB_TOKEN", "secret")
    settings = go_by(fronts, load("bearer_token_env: WEB_TOKEN"))
    assert sent(fronts, settings) == [b"Authorization: Bearer secret"]
    assert [token.files for token in fronts.tokens()] == [()], "nobody looks for another one"


async def test_a_file_that_changes_is_read_again(
    load: Load, tmp_path: Path, clock: FakeClock, fronts: Fronts, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "web.token"
    file.write_text("first")
    settings = go_by(fronts, load("bearer_token_file: web.token"))
    cluster = Cluster("web", "http", UpstreamPolicy(), clock)  # type: ignore[arg-type] # a double
    (token,) = fronts.tokens()
    token.count_in(cluster.stats)
    token.count_in(cluster.stats)
    assert cluster.stats.secret_loads == [0, 1]
    rotation = Rotation()
    rotation.follow(fronts.tokens())

    file.write_text("second")
    with caplog.at_level(logging.INFO, "sidecar"):
        await rotation.look()
        assert sent(fronts, settings) == [b"Authorization: Bearer second"]
        file.write_text("")
        await rotation.look()
    assert sent(fronts, settings) == [b"Authorization: Bearer second"], "the last good one"
    assert cluster.stats.secret_loads == [1, 2]
    assert (token.failures, token.loads) == (1, 2)
    told = [record.message for record in caplog.records]
    assert told[0] == "web: the bearer token is renewed"
    assert told[1].startswith("web: the bearer token is not renewed, what was before stays: ")
    assert not any("second" in line for line in told)
    rotation.close()


async def test_a_file_that_changes_while_it_is_read_at_first_is_read_again(
    load: Load, tmp_path: Path, clock: FakeClock
) -> None:
    file = tmp_path / "web.token"
    file.write_text("first")
    rotation = Rotation()
    fronts = Fronts(clock, rotation.note)  # type: ignore[arg-type] # a double
    settings = load("bearer_token_file: web.token")
    fronts.prepare(settings)
    file.write_text("second")
    fronts.follow(settings)
    rotation.follow(fronts.tokens())
    await rotation.look()
    assert sent(fronts, settings) == [b"Authorization: Bearer second"]
    rotation.close()


def test_another_file_counts_on(fronts: Fronts, load: Load, tmp_path: Path, clock: FakeClock) -> None:
    cluster = Cluster("web", "http", UpstreamPolicy(), clock)  # type: ignore[arg-type] # a double
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
        go_by(fronts, load(f"bearer_token_file: {name}"))
        (token,) = fronts.tokens()
        assert isinstance(token, BearerToken)
        token.count_in(cluster.stats)
    assert cluster.stats.secret_loads == [0, 2]


async def test_clusters_are_given_theirs(load: Load, tmp_path: Path, clock: FakeClock) -> None:
    (tmp_path / "web.token").write_text("secret")
    settings = load("bearer_token_file: web.token")
    doors = Doors(None, clock)  # type: ignore[arg-type] # what is tested needs no context
    clusters = {
        name: Cluster(name, "http", UpstreamPolicy(), clock)  # type: ignore[arg-type] # a double
        for name in ("web", "other")
    }
    doors.prepare(settings)
    doors.follow(settings, clusters)
    assert isinstance(clusters["web"].front, Front)
    assert clusters["other"].front is None
    assert clusters["web"].stats.secret_loads == [0, 1]
    settings = load("")
    doors.prepare(settings)
    doors.follow(settings, clusters)
    assert clusters["web"].front is None
    doors.close()
