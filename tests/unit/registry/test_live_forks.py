"""Programs with live services end, and fork: each in a process of its own."""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from support.live import FALLING_BACK, WEB
from support.proxy import PACKAGES, ROOT, clean_environment

PROLOGUE = """\
import gc, os, pathlib, sys, threading, time
import pytest
import sidecar.registry.live as module
from support.live import Scripted
from support.waiting import wait_until
live = Scripted(pathlib.Path(sys.argv[1]))
module.source_supervisor = live.supervisor
registry = live.start(sys.argv[2])

def child(do):
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        do()
        sys.exit(0)
    return pid

def end(pid):
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""


def program(directory: Path, text: str, code: str) -> Sequence[str]:
    """What it prints. It has to end well, say nothing on stderr, and not take long."""
    done = subprocess.run(
        # Python from 3.12 on warns of forks beside threads, which is what is looked at.
        [sys.executable, "-X", "dev", "-W", "ignore:This process", "-c", PROLOGUE + code, directory, text],
        env=clean_environment() | {"PYTHONPATH": f"{PACKAGES}:{ROOT / 'tests'}"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_a_program_that_closes_nothing_ends(tmp_path: Path) -> None:
    code = """
live.say("consul", "web", "a:1")
import atexit
atexit.register(lambda: print(registry.get_service_url("web")))  # before or after the thread has ended
async def close():
    print("closed")
live.sources["consul"].close = close
print("end")
"""
    assert program(tmp_path, WEB, code) == ["end", "http://a:1", "closed"]


def test_a_source_that_does_not_end_holds_nobody_up(tmp_path: Path) -> None:
    code = """
import asyncio
module.END_WITHIN = 0.1
async def close():
    await asyncio.sleep(60)
live.say("consul", "web", "a:1")
live.sources["consul"].close = close
begun = time.monotonic()
registry.close()
assert threading.active_count() == 2
print(time.monotonic() - begun < 5)
"""
    begun = time.monotonic()
    assert program(tmp_path, WEB, code) == ["True"]
    assert time.monotonic() - begun < 20


def test_a_forked_process_follows_by_itself(tmp_path: Path) -> None:
    code = """
live.say("consul", "web", "a:1")
parent = live.sources["consul"]
def work():
    assert threading.active_count() == 1
    assert registry.get_service_url("web") == "http://a:1"  # not the file's, though nobody has spoken here
    assert threading.active_count() == 2
    assert live.sources["consul"] is not parent
    assert registry.get_deployment_info()["services"]["web"]["stale"]
    live.say("consul", "web", "b:1")
    assert registry.wait_until_ready(10, fresh=True)
    assert registry.get_service_url("web") == "http://b:1"
    end(child(lambda: print("grandchild", registry.get_service_url("web"))))
    registry.close()
    live.__dict__.clear()
    globals()["registry"] = None
    gc.collect()  # of what the parent uses nothing may be closed here
    assert threading.active_count() == 1
end(child(work))
end(child(lambda: None))  # one that makes no use of it
live.say("consul", "web", "c:1")  # the parent's loop still hears
print("parent", registry.get_service_url("web"))
"""
    said = program(tmp_path, FALLING_BACK, code)
    assert said == ["grandchild http://b:1", "parent http://c:1"]


def test_a_fork_in_the_middle_of_everything(tmp_path: Path) -> None:
    code = """
live.say("consul", "web", "h0:1")
stop = threading.Event()
def ask():
    while not stop.is_set():
        registry.get_service_url("web")
def change():
    number = 0
    while not stop.is_set():
        number += 1
        live._call("consul", "say", "web", *(f"h{one}:1" for one in range(number % 40 + 1)))
        time.sleep(0.0005)
workers = [threading.Thread(target=one) for one in (ask, ask, ask, change)]
for one in workers:
    one.start()
def work():
    for _ in range(10):
        registry.get_service_url("web")
    count = len(live.addresses("web"))
    found = {registry.get_service_url("web") for _ in range(count)}
    assert len(found) == count, (len(found), count)
    os._exit(0)  # at once
for _ in range(30):
    end(child(work))
stop.set()
for one in workers:
    one.join()
print("fine")
"""
    assert program(tmp_path, WEB, code) == ["fine"]


def test_a_fork_while_somebody_waits(tmp_path: Path) -> None:
    code = """
held, go_on = threading.Event(), threading.Event()
def wait():
    with registry._live._ended._cond:  # as one that waits has for a moment, again and again
        held.set()
        go_on.wait()
waiting = threading.Thread(target=wait)
waiting.start()
held.wait()
def work():
    assert not registry.wait_until_ready(0.05)
    print("came back")
    os._exit(sys.stdout.flush() or 0)
end(child(work))
go_on.set()
waiting.join()
"""
    assert program(tmp_path, WEB, code) == ["came back"]


def test_a_child_without_a_thread_to_be_had_goes_by_what_its_parent_knew(tmp_path: Path) -> None:
    code = """
live.say("consul", "web", "a:1")
def work():
    def refuse(self):
        raise RuntimeError("no thread")
    module._Following.start = refuse
    import logging
    told = []
    logging.getLogger("sidecar.registry").warning = lambda *words: told.append(words[0] % words[1:])
    assert registry.get_service_url("web") == registry.get_service_url("web") == "http://a:1"
    print(*told)
end(child(work))
"""
    assert program(tmp_path, WEB, code) == [
        "registries are not followed in this process: registries cannot be followed: RuntimeError: no thread"
    ]
