"""What follows from what sources say, and from what they do not: with scripted sources, and no time that passes."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable

import pytest
from support.clock import FakeClock
from support.sources import ScriptedSource, endpoints, registry, upstream

from sidecar.config.settings import RegistrySettings, UpstreamSettings
from sidecar.errors import SourceError
from sidecar.model import Snapshot
from sidecar.registry.last_good import Kept, Saved
from sidecar.registry.sources.source import Surroundings
from sidecar.registry.supervisor import LEAST_BACKOFF, LONGEST_BACKOFF, STEADY, SourceSupervisor

CHANGED, UNCHANGED, EMPTY, ERROR = range(4)


async def _nowhere(host: str, port: int) -> list[object]:
    raise AssertionError("nobody is to be looked up")


class Following:
    """A supervisor over scripted sources. applied: in turn. waits: how long it waited before opening streams again."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.sources: dict[str, ScriptedSource] = {}
        self.applied: list[Snapshot] = []
        self.waits: list[float] = []
        self.saved: list[Kept] = []
        self.each = False
        self.wait = 5.0
        self.before: Kept = {}
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()
        self.supervisor: SourceSupervisor | None = None

    def _make(self, settings: RegistrySettings, surroundings: Surroundings) -> ScriptedSource:
        source = self.sources[settings.name] = ScriptedSource(settings, surroundings, each=self.each)
        return source

    async def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        await self.may_go_on.wait()
        self.clock.advance(seconds)
        await asyncio.sleep(0)

    async def _save(self, kept: Kept) -> None:
        self.saved.append(kept)

    async def start(
        self, upstreams: list[UpstreamSettings], registries: list[RegistrySettings]
    ) -> SourceSupervisor:
        supervisor = self.supervisor = SourceSupervisor(
            upstreams,
            registries,
            Surroundings(self.clock, {}, _nowhere),
            self.applied.append,
            wait=self.wait,
            saved=self.before,
            save=self._save,
            make=self._make,
            sleep=self._sleep,
        )
        supervisor.begin()
        supervisor.start()
        await turns()
        return supervisor

    @property
    def last(self) -> list[str]:
        return [endpoint.address for endpoint in self.applied[-1].endpoints]

    def counts(self, name: str) -> list[int]:
        assert self.supervisor is not None
        return next(one.updates for one in self.supervisor.sources() if one.name == name)

    def is_stale(self, name: str) -> bool:
        assert self.supervisor is not None
        return next(one.stale for one in self.supervisor.sources() if one.name == name)


async def turns(count: int = 8) -> None:
    """Some turns of the loop, in which everything that can happen without time passing has happened."""
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.fixture
async def following(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Following]:
    monkeypatch.setattr("sidecar.registry.supervisor.COALESCE", 0.0)
    found = Following()
    yield found
    if found.supervisor is not None:
        await found.supervisor.close()
    assert all(source.open == 0 for source in found.sources.values())


async def test_a_snapshot_is_applied_once(following: Following) -> None:
    await following.start([upstream("api", "consul")], [registry("consul")])
    source = following.sources["consul"]
    source.say("api", "a:1", "b:1")
    source.say("api", "a:1", "b:1")
    source.live("api")
    await turns()

    assert following.applied == [Snapshot("api", endpoints("a:1", "b:1"), "consul")]
    assert following.counts("consul") == [1, 2, 0, 0]


async def test_only_upstreams_that_use_a_registry_are_asked_for(following: Following) -> None:
    ones = [upstream("api", "consul"), upstream("web", static=["w:1"]), upstream("db", "etcd")]
    await following.start(ones, [registry("consul"), registry("etcd", "etcd"), registry("unused")])

    assert [[one.upstream for one in group] for group in following.sources["consul"].opened] == [["api"]]
    assert [[one.upstream for one in group] for group in following.sources["etcd"].opened] == [["db"]]
    assert following.sources["unused"].opened == []
    assert following.applied == []


async def test_errors_change_nothing_and_are_told_once(
    following: Following, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sidecar.registry")
    supervisor = await following.start([upstream("api", "consul")], [registry("consul")])
    source = following.sources["consul"]
    source.say("api", "a:1")
    await turns()
    assert not following.is_stale("consul")
    for error in (SourceError("status 500"), SourceError("status 500"), OSError("gone"), TimeoutError()):
        source.fail("api", error)
        await turns()

    assert [one.endpoints for one in following.applied] == [endpoints("a:1")]
    assert following.counts("consul") == [1, 0, 0, 4]
    assert following.is_stale("consul")
    (feed,) = supervisor.feeds("api")
    assert (feed.endpoints, feed.stale, feed.error) == (1, True, "no answer in time")
    told = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert told == [
        "consul (api): status 500",
        "consul (api): OSError: gone",
        "consul (api): no answer in time",
    ]
    source.live("api")
    await turns()
    assert not following.is_stale("consul")
    assert "consul (api) is back" in caplog.messages


async def test_a_stream_that_fails_is_opened_again_after_growing_waits(following: Following) -> None:
    following.clock = FakeClock(chances=(0.999999,))
    await following.start([upstream("api", "consul")], [registry("consul")])
    source = following.sources["consul"]
    for _ in range(9):
        source.fail("api", OSError("refused"))
        await turns()

    assert following.waits[:4] == pytest.approx([0.5, 1.0, 2.0, 4.0], rel=1e-3)
    assert max(following.waits) == pytest.approx(LONGEST_BACKOFF, rel=1e-3)
    assert len(source.opened) == 10
    following.clock.advance(STEADY)
    source.fail("api", OSError("refused"))
    await turns()
    assert following.waits[-1] == pytest.approx(0.5, rel=1e-3)


async def test_chance_never_makes_it_hammer(following: Following) -> None:
    following.clock = FakeClock(chances=(0.0,))
    await following.start([upstream("api", "consul")], [registry("consul")])
    following.sources["consul"].fail("api", OSError("refused"))
    await turns()
    assert following.waits == [LEAST_BACKOFF]


async def test_a_stream_that_ends_is_a_failure(following: Following) -> None:
    supervisor = await following.start([upstream("api", "consul")], [registry("consul")])
    following.sources["consul"].end("api")
    await turns()
    assert following.counts("consul")[ERROR] == 1
    assert supervisor.feeds("api")[0].error == "it has ended what it had to say"


async def test_a_stream_that_says_nothing_is_opened_again(
    following: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.registry.supervisor.PATIENCE", 0.0)
    await following.start([upstream("api", "consul")], [registry("consul", stale_after=0.01)])
    source = following.sources["consul"]
    source.changed.clear()
    async with asyncio.timeout(5):
        while len(source.opened) < 2:
            await source.changed.wait()
            source.changed.clear()
    assert following.counts("consul")[ERROR] >= 1


@pytest.mark.parametrize(("keep", "left"), [(True, ["a:1"]), (False, [])])
async def test_an_explicit_empty_answer(
    following: Following, keep: bool, left: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    supervisor = await following.start([upstream("api", "consul")], [registry("consul", keep_empty=keep)])
    source = following.sources["consul"]
    source.say("api", "a:1")
    await turns()
    source.say("api")
    await turns()

    assert following.last == left
    assert following.counts("consul") == [1, 0, 1, 0]
    assert supervisor.feeds("api")[0].endpoints == len(left)
    assert ("on_empty: keep" in caplog.text) is keep


async def test_the_first_word_may_be_that_there_is_nobody(following: Following) -> None:
    supervisor = await following.start([upstream("api", "dns")], [registry("dns", "dns", keep_empty=True)])
    assert not supervisor.settled
    following.sources["dns"].say("api")
    await turns()
    assert following.applied == [Snapshot("api", (), "dns")]
    assert supervisor.settled


async def test_fall_backs_serve_while_those_before_have_nobody(following: Following) -> None:
    ones = [upstream("api", "consul", "etcd", "static", static=["file:1"])]
    await following.start(ones, [registry("consul"), registry("etcd", "etcd")])
    consul, etcd = following.sources["consul"], following.sources["etcd"]
    assert (following.last, following.applied[-1].source) == (["file:1"], "static")
    etcd.say("api", "e:1")
    await turns()
    assert (following.last, following.applied[-1].source) == (["e:1"], "etcd")
    consul.say("api", "c:1")
    await turns()
    assert (following.last, following.applied[-1].source) == (["c:1"], "consul")
    consul.fail("api", OSError("gone"))  # which is not to know nobody
    await turns()
    assert following.last == ["c:1"]
    consul.say("api")
    await turns()
    assert following.last == ["e:1"]
    etcd.say("api")
    await turns()
    assert following.last == ["file:1"]


async def test_merged_sources(following: Following) -> None:
    ones = [upstream("api", "consul", "static", static=["file:1", "both:1"], merge=True)]
    await following.start(ones, [registry("consul")])
    following.sources["consul"].say("api", "both:1", "c:1")
    await turns()
    assert following.last == ["both:1", "c:1", "file:1"]
    assert following.applied[-1].source == "consul+static"


async def test_a_port_of_the_environment_is_that_of_all(following: Following) -> None:
    await following.start([upstream("api", "consul", override_port=99)], [registry("consul")])
    following.sources["consul"].say("api", "a:1", "a:2", "b:1")
    await turns()
    assert following.last == ["a:99", "b:99"]


async def test_a_burst_of_changes_is_applied_once(
    following: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    await following.start([upstream("api", "consul"), upstream("web", "consul")], [registry("consul")])
    source = following.sources["consul"]
    for number in range(1, 50):
        source.say("api", f"a:{number}")
    source.say("web", "w:1")
    await turns(200)
    assert len(following.applied) < 10
    assert {one.upstream: one.endpoints for one in following.applied} == {
        "api": endpoints("a:49"),
        "web": endpoints("w:1"),
    }


async def test_one_that_cannot_be_applied_keeps_no_other_as_it_was(
    following: Following, caplog: pytest.LogCaptureFixture
) -> None:
    supervisor = await following.start(
        [upstream("api", "consul"), upstream("web", "consul")], [registry("consul")]
    )

    def apply(snapshot: Snapshot) -> None:
        if snapshot.upstream == "api":
            raise ValueError("a mistake")
        following.applied.append(snapshot)

    supervisor._apply = apply
    following.sources["consul"].say("api", "a:1")
    await turns()
    following.sources["consul"].say("web", "w:1")
    await turns()
    assert following.last == ["w:1"]
    assert caplog.messages == [
        "api: not brought up to date: ValueError: a mistake",
    ]


async def test_readiness_waits_for_a_first_word_on_each_but_not_for_ever(following: Following) -> None:
    following.each = True
    supervisor = await following.start(
        [upstream("api", "consul"), upstream("web", "consul")], [registry("consul")]
    )
    following.sources["consul"].say("api", "a:1")
    await turns()
    assert not supervisor.settled
    following.clock.advance(5.0)
    assert supervisor.settled
    following.sources["consul"].say("web", "w:1")
    await turns()
    assert supervisor.settled


async def test_a_first_word_counts_once_it_is_applied(
    following: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.registry.supervisor.COALESCE", 0.01)
    supervisor = await following.start(
        [upstream("api", "consul"), upstream("web", "consul")], [registry("consul")]
    )
    following.sources["consul"].say("api", "a:1")
    await turns()
    following.sources["consul"].say("web", "w:1")
    await turns()
    assert (len(following.applied), supervisor.settled) == (1, False)
    async with asyncio.timeout(5.0):
        while not supervisor.settled:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.001)
    assert following.last == ["w:1"]


async def test_one_stream_of_several_fails_alone(following: Following) -> None:
    following.each = True
    supervisor = await following.start(
        [upstream("api", "consul"), upstream("web", "consul")], [registry("consul")]
    )
    source = following.sources["consul"]
    source.say("api", "a:1")
    source.say("web", "w:1")
    await turns()
    assert not following.is_stale("consul")
    following.may_go_on.clear()
    source.fail("web", OSError("gone"))
    await turns()
    assert [supervisor.feeds(name)[0].stale for name in ("api", "web")] == [False, True]
    assert following.is_stale("consul")
    following.may_go_on.set()


async def test_silence_makes_stale(following: Following) -> None:
    supervisor = await following.start([upstream("api", "consul")], [registry("consul", stale_after=30.0)])
    following.sources["consul"].say("api", "a:1")
    await turns()
    following.clock.advance(30.0)
    assert not following.is_stale("consul")
    following.clock.advance(0.1)
    assert following.is_stale("consul")
    (status,) = supervisor.sources()
    assert status.last_success == pytest.approx(following.clock.now - 30.1)


async def test_what_was_saved_serves_until_the_registry_speaks(following: Following) -> None:
    following.before = {
        ("consul", "api"): Saved(endpoints("old:1"), 1234.0),
        ("consul", "gone"): Saved(endpoints("x:1"), 1.0),
    }
    supervisor = await following.start([upstream("api", "consul")], [registry("consul")])
    assert following.last == ["old:1"]
    assert supervisor.settled
    (feed,) = supervisor.feeds("api")
    assert (feed.saved, feed.stale, feed.heard_at) == (True, True, None)
    following.sources["consul"].fail("api", OSError("down"))
    await turns()
    assert following.last == ["old:1"]
    following.sources["consul"].say("api", "new:1")
    await turns()
    assert following.last == ["new:1"]
    (feed,) = supervisor.feeds("api")
    assert (feed.saved, feed.stale) == (False, False)


async def test_what_is_known_is_written_down(following: Following) -> None:
    following.before = {("consul", "web"): Saved(endpoints("old:1"), 1234.0)}
    supervisor = await following.start(
        [upstream("api", "consul"), upstream("web", "consul")], [registry("consul")]
    )
    following.sources["consul"].say("api", "a:1")
    await turns()
    await supervisor.close()
    (saved,) = following.saved
    assert saved == {
        ("consul", "api"): (endpoints("a:1"), following.clock.wall()),
        ("consul", "web"): Saved(endpoints("old:1"), 1234.0),
    }


async def test_following_another_configuration_keeps_what_is_the_same(following: Following) -> None:
    following.each = True
    one, two = registry("consul"), registry("etcd", "etcd")
    supervisor = await following.start([upstream("api", "consul"), upstream("web", "consul")], [one, two])
    source = following.sources["consul"]
    source.say("api", "a:1")
    source.say("web", "w:1")
    await turns()
    before = list(following.applied)

    supervisor.follow(
        [upstream("api", "consul"), upstream("db", "consul"), upstream("web", "etcd")], [one, two]
    )
    await turns()
    assert following.sources["consul"] is source
    assert [group[0].upstream for group in source.opened] == ["api", "web", "db"]
    assert source.open == 2
    assert following.applied == before  # nobody has said anything else of them
    assert [feed.source for feed in supervisor.feeds("web")] == ["etcd"]
    source.say("api", "a:2")
    await turns()
    assert following.last == ["a:2"]

    supervisor.follow([upstream("web", "etcd")], [two])
    await turns()
    assert source.open == 0
    assert source.closed
    assert supervisor.feeds("api") == []


async def test_a_registry_that_has_moved_is_asked_anew_and_its_word_stands(following: Following) -> None:
    supervisor = await following.start([upstream("api", "consul")], [registry("consul")])
    first = following.sources["consul"]
    first.say("api", "a:1")
    await turns()
    supervisor.follow([upstream("api", "consul")], [registry("consul", datacenter="dc2")])
    await turns()
    second = following.sources["consul"]
    assert second is not first
    assert (first.open, first.closed, second.open) == (0, True, 1)
    assert supervisor.feeds("api")[0].endpoints == 1
    assert following.counts("consul")[CHANGED] == 1


async def test_another_name_in_the_registry_is_another_feed(following: Following) -> None:
    supervisor = await following.start([upstream("api", "consul")], [registry("consul")])
    following.sources["consul"].say("api", "a:1")
    await turns()
    supervisor.follow([upstream("api", "consul", service="api-v2")], [registry("consul")])
    await turns()
    assert supervisor.feeds("api")[0].endpoints is None
    assert following.last == ["a:1"]  # until the first word on the other


async def test_asked_for_something_else_nobody_falls_back_until_it_has_spoken(following: Following) -> None:
    def wanted(**source: object) -> list[UpstreamSettings]:
        return [upstream("api", "consul", "static", static=["file:1"], **source)]

    supervisor = await following.start(wanted(), [registry("consul")])
    following.sources["consul"].say("api", "a:1")
    await turns()
    for tags in (("one",), ("two",)):
        supervisor.follow(wanted(tags=tags), [registry("consul")])
        assert following.last == ["a:1"]
    following.sources["consul"].say("api", "b:1")
    await turns()
    assert following.last == ["b:1"]
    following.sources["consul"].say("api")
    await turns()
    assert following.last == ["file:1"]


async def test_hosts_of_before_are_not_those_that_a_name_server_is_asked_for_now(
    following: Following,
) -> None:
    one, two = (
        [upstream("api", "dns", "static", static=[host], service="")] for host in ("one:80", "two:80")
    )
    supervisor = await following.start(one, [registry("dns", "dns")])
    following.sources["dns"].say("api", "10.0.0.1:80")
    await turns()
    assert following.last == ["10.0.0.1:80"]
    supervisor.follow(two, [registry("dns", "dns")])
    assert following.last == ["two:80"], "the other host may be gone, and the name server too"


async def test_a_disk_that_takes_for_ever_has_one_thread_and_holds_up_no_end(
    following: Following, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sidecar.registry.supervisor.SAVE_AFTER", 0.0)
    monkeypatch.setattr("sidecar.registry.supervisor.SAVE_WITHIN", 0.01)
    asked: list[Kept] = []
    given_up: list[Kept] = []

    async def save(kept: Kept) -> None:
        asked.append(kept)
        try:
            await asyncio.Event().wait()
        finally:
            given_up.append(kept)

    monkeypatch.setattr(following, "_save", save)
    supervisor = await following.start([upstream("api", "consul")], [registry("consul")])
    for port in range(5):
        following.sources["consul"].say("api", f"a:{port + 1}")
        await turns()
    assert len(asked) == 1
    async with asyncio.timeout(5.0):
        await supervisor.close()
    assert len(asked) == len(given_up) == 2
    assert "what registries said last may not be kept" in caplog.text


@pytest.mark.parametrize("ends", [lambda s: s.fail("api", OSError("x")), lambda s: None])
async def test_closing_in_any_state_leaves_nothing(
    following: Following, ends: Callable[[ScriptedSource], None]
) -> None:
    following.may_go_on.clear()
    supervisor = await following.start([upstream("api", "consul")], [registry("consul")])
    ends(following.sources["consul"])
    await turns()
    await supervisor.close()
    assert following.sources["consul"].closed
    assert following.sources["consul"].open == 0
