"""The access log, the tracer and request ids over the life of a process: made, followed, ended."""

import asyncio
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from support.clock import FakeClock

from sidecar.config.settings import AccessLogSettings, SidecarSettings, TracingSettings
from sidecar.errors import StartError
from sidecar.model import RecordingCounts
from sidecar.observe.recorder import ExchangeRecorder, Recording

LOG = AccessLogSettings("stdout")
TRACING = TracingSettings("http://127.0.0.1:4318")


class Part:
    """An access log, a tracer, or request ids: tells what is asked of it."""

    made: list["Part"]

    def __init__(self, name: str, *arguments: Any) -> None:
        self.name = name
        self.settings = arguments[0]
        self.did: list[str] = []
        Part.made.append(self)

    def start(self) -> None:
        self.did.append("start")
        if getattr(self.settings, "file", "") == "/closed":
            raise StartError("/closed (access_log): permission denied")

    def reopen(self) -> None:
        self.did.append("reopen")

    async def close(self) -> None:
        await asyncio.sleep(0)
        self.did.append("close")

    def identify(self, exchange: Any, head: Any) -> Any:
        return (*head, self.name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *_: self.did.append(name)


@pytest.fixture(autouse=True)
def parts(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Part]]:
    Part.made = []
    for module, name in (("access_log", "AccessLog"), ("tracing", "Tracer"), ("request_ids", "RequestIds")):
        double: Any = ModuleType(module)
        setattr(double, name, lambda *arguments, name=name: Part(name, *arguments))
        monkeypatch.setitem(__import__("sys").modules, f"sidecar.observe.{module}", double)
    yield Part.made
    Part.made = []


def recording() -> Recording:
    clock: Any = FakeClock()
    return Recording(clock, RecordingCounts(), {}, "local")


def did(parts: list[Part]) -> list[tuple[str, list[str]]]:
    return [(part.name, part.did) for part in parts]


async def test_nothing_is_asked_for(parts: list[Part]) -> None:
    one = recording()
    one.prepare(SidecarSettings())
    one.switch()
    one.reopen()
    assert (one.recorder, parts) == (None, [])
    await one.close()


async def test_everything_is_told_of_and_ended(parts: list[Part]) -> None:
    one = recording()
    one.prepare(SidecarSettings(access_log=LOG, tracing=TRACING, request_id=True))
    assert one.recorder is None, "not before the switch"
    one.switch()
    recorder: Any = one.recorder
    assert recorder.identifies
    assert recorder.identify(None, ()) == ("RequestIds", "Tracer"), "a span may hold the request's id"
    recorder.sending(None, None)
    recorder.attempt_over(None, None, None, 0.0, 0.0)
    recorder.exchange_over(None, 200, None, 0.0)
    recorder.refused(None, 0, None, 0.0)
    recorder.session_over(None, None, 0.0)
    one.reopen()
    await one.close()
    assert did(parts) == [
        ("AccessLog", ["start", "exchange_over", "refused", "session_over", "reopen", "close"]),
        ("Tracer", ["start", "sending", "attempt_over", "exchange_over", "close"]),
        ("RequestIds", []),
    ]
    assert one.recorder is None


async def test_nobody_stands_between_where_only_the_log_is_told(parts: list[Part]) -> None:
    log: Any = Part("AccessLog", LOG)
    log.exchange_over = lambda *_: None
    assert ExchangeRecorder(log, None, None).exchange_over is log.exchange_over
    nobody: Any = ExchangeRecorder(None, None, log)
    nobody.exchange_over(None, 200, None, 0.0)
    nobody.refused(None, 0, None, 0.0)
    nobody.session_over(None, None, 0.0)
    nobody.sending(None, None)
    nobody.attempt_over(None, None, None, 0.0, 0.0)
    assert nobody.identify(None, ()) == ("AccessLog",)


async def test_what_is_the_same_goes_on_and_what_is_not_is_another(parts: list[Part]) -> None:
    one = recording()
    one.prepare(SidecarSettings(access_log=LOG, tracing=TRACING, request_id=True))
    one.switch()
    one.prepare(
        SidecarSettings(access_log=AccessLogSettings("stdout", 0.1), tracing=TRACING, request_id=True)
    )
    one.switch()
    assert [part.name for part in parts] == ["AccessLog", "Tracer", "RequestIds", "AccessLog"]
    one.prepare(SidecarSettings(tracing=TRACING))
    one.switch()
    await one.close()
    assert [part.did[-1] for part in parts if part.did] == ["close"] * 3
    assert [part.did.count("start") for part in parts if part.did] == [1, 1, 1]


async def test_what_cannot_be_opened_changes_nothing(parts: list[Part]) -> None:
    one = recording()
    one.prepare(SidecarSettings(access_log=LOG))
    one.switch()
    recorder = one.recorder
    with pytest.raises(StartError, match="permission denied"):
        one.prepare(SidecarSettings(access_log=AccessLogSettings("/closed"), tracing=TRACING))
    one.switch()
    assert one.recorder is recorder
    assert parts[0].did == ["start"]
    await one.close()


async def test_what_was_opened_for_nothing_is_closed(parts: list[Part]) -> None:
    one = recording()
    one.prepare(SidecarSettings(access_log=LOG))
    one.switch()
    one.prepare(SidecarSettings(access_log=LOG, tracing=TRACING))
    one.discard()
    one.switch()
    assert one.recorder is not None
    assert one.recorder.tracer is None
    await one.close()
    assert did(parts) == [("AccessLog", ["start", "close"]), ("Tracer", ["start", "close"])]


async def test_what_is_prepared_when_the_file_is_moved_away_is_opened_anew_too(parts: list[Part]) -> None:
    one = recording()
    one.prepare(SidecarSettings(access_log=LOG))
    one.switch()
    one.prepare(SidecarSettings(access_log=AccessLogSettings("stdout", 0.1)))
    one.reopen()
    one.switch()
    one.prepare(SidecarSettings(access_log=AccessLogSettings("stdout", 0.1), request_id=True))
    one.reopen()
    await one.close()
    assert [part.did for part in parts if part.did] == [
        ["start", "reopen", "close"],
        ["start", "reopen", "reopen", "close"],
    ]


async def test_a_supervisor_finds_out_what_its_workers_would_fail_at(parts: list[Part]) -> None:
    one = recording()
    one.assume(SidecarSettings(access_log=LOG))
    one.prepare(SidecarSettings(access_log=LOG))
    assert parts == []
    with pytest.raises(StartError):
        one.prepare(SidecarSettings(access_log=AccessLogSettings("/closed")))
    await one.close()
