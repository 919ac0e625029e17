"""Threads and a program's live services: who may ask at once, and how the one that follows registries ends."""

import gc
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.live import FALLING_BACK, WEB, Scripted, balancer, live_of, threads, urls
from support.waiting import wait_until

import sidecar.registry.live
from sidecar.cluster import Cluster
from sidecar.errors import SourceError
from sidecar.model import Snapshot
from sidecar.registry import get_service_registry, reset_service_registry
from sidecar.registry.supervisor import SourceSupervisor


def test_no_call_waits_for_a_registry_that_never_answers(live: Scripted) -> None:
    registry = live.start(FALLING_BACK)
    took = []
    for _ in range(2000):
        begun = time.perf_counter()
        registry.get_service_url("web")
        took.append(time.perf_counter() - begun)
    registry.get_deployment_info()
    assert sorted(took)[1900] < 0.002, "nineteen of twenty; the machine may have had something else to do"
    assert sum(took) < 1.0


def test_threads_share_it_while_snapshots_change(live: Scripted) -> None:
    registry = live.start(balancer("slow_start: 1"))
    live.say("consul", "web", "h0:1")
    stop = threading.Event()

    def ask(number: int) -> Counter[str]:
        found: Counter[str] = Counter()
        while not stop.is_set():
            found[registry.get_service_url("web", "/x")] += 1
            if not number:
                registry.get_deployment_info()
        return found

    with ThreadPoolExecutor(8) as pool:
        asking = [pool.submit(ask, number) for number in range(8)]
        try:
            for number in range(1, 60):
                live.say("consul", "web", *(f"h{number + one}:1" for one in range(number % 5 + 1)))
        finally:
            stop.set()
        found = sum((one.result(10) for one in asking), Counter())
    assert len(found) > 20
    assert set(found) <= {f"http://h{number}:1/x" for number in range(70)}


def test_turns_are_exact_across_threads(live: Scripted) -> None:
    registry = live.start(WEB)
    live.say("consul", "web", "a:1", "b:1", "c:1", "d:1")
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            found = sum(pool.map(lambda _: urls(registry, 2000), range(8)), Counter())
    finally:
        sys.setswitchinterval(before)
    assert set(found.values()) == {4000}


class Watched(Cluster):
    """Takes its time, and counts how often somebody came while another was there. Pickers know nothing of threads."""

    inside = met = 0

    def apply(self, snapshot: Snapshot) -> None:
        with self.alone():
            super().apply(snapshot)

    def pick(self, *arguments: Any) -> Any:
        with self.alone():
            return super().pick(*arguments)

    @contextmanager
    def alone(self) -> Iterator[None]:
        self.inside += 1
        self.met += self.inside > 1
        time.sleep(0.0001)
        yield
        self.inside -= 1


def test_nobody_meets_at_a_cluster(live: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sidecar.registry.live, "Cluster", Watched)
    registry = live.start(WEB)
    live.say("consul", "web", "h0:1")
    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(urls, registry, 100) for _ in range(4)]
        for number in range(20):
            live.say("consul", "web", f"h{number}:1")
        for one in asking:
            one.result(20)
    cluster: Any = live_of(registry)._clusters["web"]
    assert cluster.met == 0


def test_closing_ends_the_thread_and_keeps_what_is_known(live: Scripted) -> None:
    with live.start(WEB) as registry:
        live.say("consul", "web", "10.0.0.1:80")
        assert threads() == ["sidecar registries"]
    assert threads() == []
    assert live.sources["consul"].closed
    assert live.sources["consul"].open == 0
    assert registry.get_service_url("web") == "http://10.0.0.1:80"
    registry.close()


def test_nothing_holds_what_is_closed(live: Scripted) -> None:
    live.start(WEB)
    left = weakref.ref(live_of(live.registry))
    live.close()
    live.sources.clear()
    del live.registry
    gc.collect()
    assert left() is None


def test_closing_in_its_own_thread(live: Scripted) -> None:
    """As a handler of the log may do, which hears of registries there."""
    registry = live.start(WEB)
    thread = live_of(registry)._thread
    assert thread is not None
    closed: Future[None] = Future()

    def close() -> None:
        try:
            closed.set_result(registry.close())
        except RuntimeError as error:
            closed.set_exception(error)

    thread.loop.call_soon_threadsafe(close)
    closed.result(10)
    thread.join(10)
    assert not thread.is_alive()


async def test_closing_in_a_coroutine(live: Scripted) -> None:
    async with live.start(WEB):
        assert threads()
    assert threads() == []


def test_collecting_it_ends_the_thread(live: Scripted) -> None:
    live.start(WEB)
    thread = live_of(live.registry)._thread
    assert thread is not None
    live.registry.itself = live.registry  # type: ignore[attr-defined] # one of a cycle
    del live.registry
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()


def test_resetting_the_registry_of_the_process_ends_its_thread(
    live: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config" / "deployment").mkdir(parents=True)
    (tmp_path / "config" / "deployment" / "local.yml").write_text(FALLING_BACK)
    monkeypatch.setenv("AUTOBOT_DEPLOYMENT_MODE", "local")
    monkeypatch.chdir(tmp_path)
    reset_service_registry()
    assert get_service_registry().get_service_url("web") == "http://file.example:80"
    assert threads()
    reset_service_registry()
    assert threads() == []


@pytest.mark.parametrize("what", ["_Following.start", "asyncio.new_event_loop"])
def test_without_a_thread_to_be_had_there_is_one_clear_line(
    live: Scripted, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def refuse(*_: object) -> None:
        raise (
            RuntimeError("can't start new thread") if "start" in what else OSError(24, "Too many open files")
        )

    monkeypatch.setattr(f"sidecar.registry.live.{what}", refuse)
    with pytest.raises(SourceError, match=r"^registries cannot be followed: .*(can't start|Too many)"):
        live.start(WEB)


def test_a_mistake_of_the_thread_is_one_line(
    live: Scripted, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def start(_: object) -> None:
        raise ValueError("two\nlines")

    monkeypatch.setattr(SourceSupervisor, "start", start)
    registry = live.start(FALLING_BACK)
    wait_until(lambda: not threads(), "the end of the thread")
    assert caplog.messages[-1] == (
        "registries are followed no more, by a mistake of this program: ValueError: two lines"
    )
    assert registry.get_service_url("web") == "http://file.example:80"
    assert not registry.wait_until_ready(0.03)
