"""Announcing while well, renewing, withdrawing: with a scripted registry and checks, and time that a test lets pass."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from support.clock import FakeClock
from support.registrars import ScriptedRegistrar, registration
from support.sources import registry
from support.timeline import Timeline, turns

from sidecar.config.settings import Address, HealthSettings, RegistrationSettings, RegistrySettings
from sidecar.errors import SourceError
from sidecar.health.probes import Finding
from sidecar.model.registry import RegistrationStatus
from sidecar.registry import announcement
from sidecar.registry import registration as registration_module
from sidecar.registry.registration import Announcer
from sidecar.registry.sources.source import Surroundings

ETCD = registry("etcd", "etcd", hosts=(Address("10.0.0.1", 2379),))
ANNOUNCED, RENEWED, WITHDRAWN, ERROR = range(4)
WELL, UNWELL = Finding(True, 0.0), Finding(False, 0.0, "connection refused")


async def _nowhere(host: str, port: int) -> list[object]:
    raise AssertionError("nobody is to be looked up")


class Machine:
    """A machine whose services are announced. finding: what every check finds; asked: how many have been made."""

    def __init__(self) -> None:
        self.time = Timeline()
        self.finding: Finding | Exception = WELL
        self.may_answer = asyncio.Event()  # the checks
        self.may_answer.set()
        self.asked: list[tuple[str, int]] = []
        self.registrars: list[ScriptedRegistrar] = []
        self.error: Exception | None = None  # of registrars that are made from now on
        self.announcer: Announcer | None = None

    async def examine(self, _probe: object, host: str, port: int, *_: object) -> Finding:
        self.asked.append((host, port))
        await self.may_answer.wait()
        if isinstance(self.finding, Exception):
            raise self.finding
        return self.finding

    def _make(self, settings: RegistrySettings, surroundings: Surroundings) -> ScriptedRegistrar:
        made = ScriptedRegistrar(settings, surroundings)
        made.error = self.error
        self.registrars.append(made)
        return made

    async def start(
        self, *registrations: RegistrationSettings, registries: Sequence[RegistrySettings] = (ETCD,)
    ) -> Announcer:
        self.announcer = Announcer(
            registrations,
            registries,
            Surroundings(self.time.clock, {}, _nowhere),
            make=self._make,
            sleep=self.time.sleep,
        )
        self.announcer.start()
        await turns()
        return self.announcer

    @property
    def etcd(self) -> ScriptedRegistrar:
        return self.registrars[-1]

    @property
    def status(self) -> RegistrationStatus:
        assert self.announcer is not None
        (status,) = self.announcer.registered().statuses
        return status

    @property
    def counts(self) -> list[int]:
        assert self.announcer is not None
        return list(self.announcer.registered().counts["etcd"])


@pytest.fixture
async def machine(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Machine]:
    made = Machine()
    monkeypatch.setattr(announcement, "examine", made.examine)
    yield made
    if made.announcer is not None:
        await made.announcer.close()
    assert all(one.closed for one in made.registrars)


# While it is well


async def test_what_is_well_is_announced(machine: Machine) -> None:
    began = machine.time.clock.now
    await machine.start(registration())

    assert list(machine.etcd.known) == ["api-10.0.0.7-8080"]
    assert machine.asked == [("127.0.0.1", 8080)]
    assert machine.counts == [1, 0, 0, 0]
    assert machine.status == RegistrationStatus(
        "api", "etcd", "10.0.0.7:8080", "announced", "", began, registered=True
    )


async def test_it_is_renewed_three_times_in_a_ttl(machine: Machine) -> None:
    await machine.start(registration(ttl=15.0))
    await machine.time.advance(15.0)

    assert machine.etcd.told == [("announce", "api-10.0.0.7-8080")] * 4
    assert machine.counts == [1, 3, 0, 0]


async def test_a_check_that_takes_long_holds_up_no_renewal(machine: Machine) -> None:
    await machine.start(registration(ttl=15.0))
    machine.may_answer.clear()
    await machine.time.advance(30.0)

    assert len(machine.asked) == 2
    assert len(machine.etcd.told) == 7


async def test_a_renewal_that_takes_long_holds_up_no_check(machine: Machine) -> None:
    await machine.start(registration())
    machine.etcd.answers.clear()
    await machine.time.advance(10.0)

    assert len(machine.etcd.told) == 2
    assert len(machine.asked) == 11


async def test_it_counts_as_unknown_to_the_registry_once_its_ttl_is_over(machine: Machine) -> None:
    await machine.start(registration(ttl=15.0))
    machine.etcd.error = SourceError("no leader")
    await machine.time.advance(14.9)
    assert machine.status.registered
    await machine.time.advance(0.2)
    assert not machine.status.registered

    machine.etcd.error = None
    await machine.time.advance(5.0)
    assert machine.status.registered
    assert machine.counts[ANNOUNCED] == 2, "it was forgotten, and is announced again"


# When it is not


async def test_what_is_unwell_is_not_announced(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    machine.finding = UNWELL
    await machine.start(registration())
    await machine.time.advance(20.0)

    assert machine.etcd.told == []
    assert machine.status.state == "unwell"
    assert machine.status.error == "connection refused"
    assert [record.message for record in caplog.records] == [
        "api: not announced in etcd yet, as its check fails: connection refused"
    ]


async def test_it_is_withdrawn_after_fall_failures_in_a_row(machine: Machine) -> None:
    await machine.start(registration())
    machine.finding = UNWELL
    await machine.time.advance(1.0)
    machine.finding = WELL
    await machine.time.advance(1.0)
    machine.finding = UNWELL
    await machine.time.advance(1.0)
    assert machine.etcd.known
    await machine.time.advance(1.0)

    assert machine.etcd.known == {}
    assert machine.status.state == "unwell"
    assert machine.status.since == machine.time.clock.now
    assert not machine.status.registered
    await machine.time.advance(30.0)
    assert [what for what, _ in machine.etcd.told] == ["announce", "withdraw"]


async def test_it_is_announced_again_after_rise_successes_in_a_row(machine: Machine) -> None:
    check = HealthSettings(kind="tcp", interval=1.0, rise=3, fall=1)
    await machine.start(registration(check=check))
    assert machine.etcd.known, "the first answer counts at once"
    machine.finding = UNWELL
    await machine.time.advance(1.0)
    assert not machine.etcd.known
    machine.finding = WELL
    await machine.time.advance(2.0)
    assert not machine.etcd.known
    await machine.time.advance(1.0)
    assert machine.etcd.known
    assert machine.counts == [2, 0, 1, 0]


@pytest.mark.parametrize(
    "finding", [Finding(None, 0.0, "no descriptors", answered=False), ZeroDivisionError("by zero")]
)
async def test_what_cannot_be_asked_stays_as_it_is(
    machine: Machine, finding: Finding | Exception, caplog: pytest.LogCaptureFixture
) -> None:
    await machine.start(registration())
    machine.finding = finding
    await machine.time.advance(5.0)

    assert machine.etcd.known
    (said,) = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert said.startswith("api: cannot be checked: ")
    assert all(record.exc_info is None for record in caplog.records)


async def test_a_change_during_an_announcement_is_followed(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await machine.start(registration(check=HealthSettings(kind="tcp", interval=1.0, rise=1, fall=1)))
    machine.etcd.answers.clear()
    await machine.time.advance(5.0)  # a renewal is under way
    machine.finding = UNWELL
    await machine.time.advance(1.0)
    assert machine.status.state == "unwell"
    may_withdraw = asyncio.Event()
    withdraw = machine.etcd.withdraw

    async def slowly(service: RegistrationSettings) -> None:
        await may_withdraw.wait()
        await withdraw(service)

    monkeypatch.setattr(machine.etcd, "withdraw", slowly)
    machine.etcd.answers.set()
    await turns()
    assert machine.etcd.known
    assert (machine.status.state, machine.status.error) == ("unwell", "connection refused")
    may_withdraw.set()
    await turns()
    assert machine.etcd.known == {}
    assert machine.status.state == "unwell"


# When the registry errs


async def test_a_registry_that_errs_is_told_again_ever_later(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    machine.error = SourceError("PUT /v3/kv/put at e.example: status 503")
    check = HealthSettings(kind="tcp", interval=1000.0)
    await machine.start(registration(ttl=30.0, check=check))
    await machine.time.advance(29.0)

    # Half of 0.5 s, doubled each time, and never more than half of what lies between two renewals.
    assert machine.time.slept == [1000.0, 0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0, 5.0, 5.0, 5.0]
    assert machine.counts == [0, 0, 0, 10]
    assert machine.status.state == "failing"
    assert machine.status.error == "PUT /v3/kv/put at e.example: status 503"
    assert [record.message for record in caplog.records] == [
        "api: cannot be announced in etcd: PUT /v3/kv/put at e.example: status 503"
    ]
    machine.etcd.error = None
    await machine.time.advance(5.0)
    assert machine.status.state == "announced"
    assert machine.status.error == ""


async def test_chance_may_say_nothing_and_a_moment_passes_all_the_same(machine: Machine) -> None:
    machine.time.clock = FakeClock(chances=[0.0])
    machine.error = OSError("unreachable")
    await machine.start(registration(check=HealthSettings(kind="tcp", interval=1000.0)))
    await machine.time.advance(0.95)
    assert machine.time.slept[1:] == [0.1] * 10


async def test_a_withdrawal_that_fails_is_tried_again(machine: Machine) -> None:
    await machine.start(registration())
    machine.finding = UNWELL
    machine.etcd.error = SourceError("no leader")
    await machine.time.advance(4.0)
    assert machine.status.state == "failing"
    machine.etcd.error = None
    await machine.time.advance(5.0)

    assert machine.etcd.known == {}
    assert machine.status.state == "unwell"
    assert machine.status.error == "connection refused"


async def test_the_first_failure_after_a_success_is_the_first_again(machine: Machine) -> None:
    await machine.start(registration(check=HealthSettings(kind="tcp", interval=1000.0)))
    for _ in range(3):
        machine.etcd.errors = [OSError("unreachable")]
        await machine.time.advance(5.25)
    assert machine.time.slept == [1000.0, 5.0, *([0.25, 5.0] * 3)]


async def test_what_may_have_arrived_is_withdrawn_when_unwell(machine: Machine) -> None:
    machine.error = TimeoutError()
    await machine.start(registration(check=HealthSettings(kind="tcp", interval=0.2, rise=1, fall=1)))
    machine.finding = UNWELL
    await machine.time.advance(0.2)
    machine.etcd.error = None
    await machine.time.advance(5.0)
    assert machine.etcd.told[-1][0] == "withdraw"


async def test_an_announcement_that_failed_may_have_arrived_and_is_withdrawn(machine: Machine) -> None:
    machine.error = TimeoutError()
    await machine.start(registration())
    machine.etcd.error = None
    machine.finding = UNWELL
    assert machine.announcer is not None
    await machine.announcer.drain()
    assert machine.etcd.told[-1][0] == "withdraw"


async def test_a_registry_that_never_answers_is_given_up(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcement, "ANSWER", 0.01)
    await machine.start(registration())
    machine.etcd.answers.clear()
    machine.etcd.asked.clear()
    await machine.time.advance(5.0)
    async with asyncio.timeout(5.0):
        while machine.status.state != "failing":  # noqa: ASYNC110 - a state, which tells nobody
            await asyncio.sleep(0.001)
    assert machine.status.error == "no answer in time"


# The end


async def test_draining_withdraws_everything_and_stops(machine: Machine) -> None:
    announcer = await machine.start(registration("api"), registration("web", 81))
    assert len(machine.registrars) == 1, "one for each registry"
    await announcer.drain()
    await machine.time.advance(60.0)

    assert machine.etcd.known == {}
    assert [what for what, _ in machine.etcd.told] == ["announce", "announce", "withdraw", "withdraw"]
    assert [one.state for one in announcer.registered().statuses] == ["withdrawn", "withdrawn"]
    assert len(machine.asked) == 2
    await announcer.drain()
    assert len(machine.etcd.told) == 4


async def test_what_another_process_announces_from_now_on_is_not_withdrawn(machine: Machine) -> None:
    kept = registration("api")
    announcer = await machine.start(kept, registration("web", 81))
    await announcer.drain({(kept.registry, kept.name, kept.port, kept.host, kept.identity)})
    await machine.time.advance(60.0)
    assert list(machine.etcd.known) == ["api-10.0.0.7-8080"]
    assert [what for what, _ in machine.etcd.told] == ["announce", "announce", "withdraw"]
    assert len(machine.asked) == 2, "nor looked after any more"


async def test_draining_what_was_never_announced_asks_nobody(machine: Machine) -> None:
    machine.finding = UNWELL
    announcer = await machine.start(registration())
    await announcer.drain()
    assert machine.etcd.told == []
    assert machine.status.state == "withdrawn"


async def test_draining_lets_what_is_under_way_arrive_first(machine: Machine) -> None:
    announcer = await machine.start(registration())
    machine.etcd.answers.clear()
    await machine.time.advance(5.0)
    draining = asyncio.get_running_loop().create_task(announcer.drain())
    await turns()
    assert [what for what, _ in machine.etcd.told] == ["announce", "announce"]
    machine.etcd.answers.set()
    await draining
    assert [what for what, _ in machine.etcd.told] == ["announce", "announce", "withdraw"]
    assert machine.etcd.cancelled == 0


async def test_draining_gives_up_what_is_under_way_for_too_long(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcement, "UNDER_WAY", 0.01)
    announcer = await machine.start(registration())
    machine.etcd.answers.clear()
    await machine.time.advance(5.0)
    machine.etcd.asked.clear()
    draining = asyncio.get_running_loop().create_task(announcer.drain())
    async with asyncio.timeout(5.0):
        await machine.etcd.asked.wait()
    machine.etcd.answers.set()
    await draining
    assert machine.etcd.cancelled == 1
    assert machine.etcd.known == {}


async def test_a_withdrawal_at_the_end_is_tried_twice(machine: Machine) -> None:
    announcer = await machine.start(registration())
    machine.etcd.errors = [ConnectionResetError()]
    await announcer.drain()
    assert machine.etcd.known == {}
    assert machine.status.state == "withdrawn"


async def test_draining_is_over_in_time_whatever_the_registry_does(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(registration_module, "GRACE", 0.02)
    announcer = await machine.start(registration())
    machine.etcd.answers.clear()
    async with asyncio.timeout(5.0):
        await announcer.drain()

    assert machine.etcd.cancelled == 1
    assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == [
        "api: etcd has not answered its withdrawal within 0.02 s; it is forgotten when its ttl of 15 s is over"
    ]


async def test_draining_with_a_registry_that_is_down(machine: Machine) -> None:
    announcer = await machine.start(registration())
    machine.etcd.error = ConnectionRefusedError(111, "Connection refused")
    await announcer.drain()
    assert machine.status.state == "failing"
    assert machine.status.error == "ConnectionRefusedError: [Errno 111] Connection refused"


async def test_closing_ends_everything_at_once(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcement, "UNDER_WAY", 1000.0)
    announcer = await machine.start(registration())
    machine.etcd.answers.clear()
    await machine.time.advance(5.0)
    async with asyncio.timeout(5.0):
        await announcer.close()
    assert machine.etcd.cancelled == 1
    assert [what for what, _ in machine.etcd.told] == ["announce", "announce"]


async def test_closing_ends_a_drain(machine: Machine) -> None:
    announcer = await machine.start(registration())
    machine.etcd.answers.clear()
    draining = asyncio.get_running_loop().create_task(announcer.drain())
    await turns()
    await announcer.close()
    await draining
    assert machine.etcd.cancelled == 1


# Another configuration


async def test_what_is_the_same_goes_on(machine: Machine) -> None:
    announcer = await machine.start(registration())
    announcer.follow([registration(), registration("web", 81)], [ETCD])
    await turns()
    assert [what for what, _ in machine.etcd.told] == ["announce", "announce"]
    assert len(machine.registrars) == 1
    assert [one.name for one in announcer.registered().statuses] == ["api", "web"]


async def test_the_same_twice_is_announced_once(machine: Machine) -> None:
    announcer = await machine.start(registration(), registration())
    assert machine.etcd.told == [("announce", "api-10.0.0.7-8080")]
    assert len(announcer.registered().statuses) == 1


async def test_what_has_gone_is_withdrawn_and_its_registry_closed(machine: Machine) -> None:
    consul = registry("consul", hosts=(Address("10.0.0.2", 8500),))
    announcer = await machine.start(
        registration(), registration("web", 81, registry="consul"), registries=[ETCD, consul]
    )
    etcd, other = machine.registrars
    announcer.follow([registration()], [ETCD, consul])
    await turns(30)

    assert other.known == {}
    assert other.closed
    assert list(etcd.known) == ["api-10.0.0.7-8080"]
    assert announcer.registered().counts["consul"] == [1, 0, 1, 0], "counts only grow"


async def test_what_changes_in_its_place_is_told_over_the_old_one(machine: Machine) -> None:
    announcer = await machine.start(registration())
    announcer.follow([registration(weight=7)], [ETCD])
    await turns(30)

    assert [what for what, _ in machine.etcd.told] == ["announce", "announce"]
    assert machine.etcd.known["api-10.0.0.7-8080"].weight == 7
    assert machine.counts == [1, 1, 0, 0]


async def test_what_is_unwell_after_a_change_is_withdrawn(machine: Machine) -> None:
    announcer = await machine.start(registration())
    machine.finding = UNWELL
    announcer.follow([registration(weight=7)], [ETCD])
    await turns(30)
    assert machine.etcd.known == {}


async def test_what_moves_is_withdrawn_before_it_is_announced(machine: Machine) -> None:
    announcer = await machine.start(registration())
    announcer.follow([registration(host="10.0.0.8")], [ETCD])
    await turns(30)
    assert machine.etcd.told == [
        ("announce", "api-10.0.0.7-8080"),
        ("withdraw", "api-10.0.0.7-8080"),
        ("announce", "api-10.0.0.8-8080"),
    ]


async def test_another_registry_of_the_same_name_is_told_after_the_old_one(machine: Machine) -> None:
    announcer = await machine.start(registration())
    moved = registry("etcd", "etcd", hosts=(Address("10.0.0.9", 2379),))
    announcer.follow([registration()], [moved])
    await turns(40)

    old, new = machine.registrars
    assert (old.known, old.closed) == ({}, True)
    assert list(new.known) == ["api-10.0.0.7-8080"]


async def test_nothing_is_followed_any_more_at_the_end(machine: Machine) -> None:
    announcer = await machine.start(registration())
    await announcer.drain()
    announcer.follow([registration("web", 81)], [ETCD])
    await turns()
    assert [what for what, _ in machine.etcd.told] == ["announce", "withdraw"]


# What it says of itself


@pytest.mark.parametrize(
    ("values", "identity"),
    [
        ({"host": "fd00::7"}, "api-fd00-7-8080"),
        ({"host": "node.example"}, "api-node.example-8080"),
        ({"identity": "first"}, "first"),
    ],
)
async def test_its_identity(machine: Machine, values: dict[str, Any], identity: str) -> None:
    await machine.start(registration(**values))
    assert list(machine.etcd.known) == [identity]


async def test_its_host_is_found_when_none_is_given(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [SourceError("no address"), "10.0.0.5"]

    async def own_host(asked: RegistrySettings, _surroundings: object) -> str:
        assert asked is ETCD
        answer = found.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(announcement, "own_host", own_host)
    await machine.start(registration(host=""))
    assert machine.status.state == "failing"
    assert machine.status.address == ""
    await machine.time.advance(20.0)
    assert machine.etcd.known["api-10.0.0.5-8080"].host == "10.0.0.5"
    assert machine.status.address == "10.0.0.5:8080"


async def test_what_the_log_says_of_a_life(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    announcer = await machine.start(registration())
    machine.finding = UNWELL
    await machine.time.advance(2.0)
    machine.finding = WELL
    await machine.time.advance(1.0)
    await announcer.drain()
    assert [record.message for record in caplog.records] == [
        "api: announced in etcd as 10.0.0.7:8080",
        "api: not announced in etcd any more, as its check fails: connection refused",
        "api: withdrawn from etcd",
        "api: announced in etcd as 10.0.0.7:8080",
        "api: withdrawn from etcd",
    ]
