"""What holds for every test: nothing is left behind, servers are real, and the cores are covered."""

import asyncio
import gc
import importlib.util
import inspect
import io
import threading
import time
import tomllib
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path

import pytest
from support.processes import find_program
from support.requirements import lacking

# The modules whose every branch a test must take: these decide what happens to requests.
FULLY_COVERED = ("sidecar/http1/*", "sidecar/balance/*", "sidecar/resilience/*", "sidecar/pool.py")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--covered-fully` is what tests/run.py gives when it runs everything, together with --cov."""
    parser.addoption(
        "--covered-fully",
        action="store_true",
        help=f"fail unless every branch of {', '.join(FULLY_COVERED)} was taken; needs --cov",
    )
    parser.addoption(
        "--build", choices=("pure", "compiled"), help="end at once unless this is what is tested"
    )
    parser.addoption(
        "--failed-before", metavar="RUNS", help="earlier runs that failed: one more failure here"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Markers of this file."""
    config.addinivalue_line("markers", "uvloop: an async test that runs on uvloop, as the proxy does")
    config.addinivalue_line(
        "markers", "every_loop: an async test that runs on each loop that the proxy may have"
    )
    if config.getoption("covered_fully") and not config.pluginmanager.hasplugin("_cov"):
        raise pytest.UsageError("--covered-fully needs --cov=sidecar")
    _check_build(config.getoption("build"), config.rootpath)


def pytest_report_header() -> str:
    """Which package it is that is tested."""
    import sidecar
    from sidecar.version import build_name

    return f"sidecar: {build_name()}, {Path(sidecar.__file__).parent}"


def _check_build(wanted: str | None, root: Path) -> None:
    """Every module that compiles is loaded, and has to come from where the wanted build has it."""
    if wanted is None:
        return
    listed = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["ext-modules"]
    suffix = ".so" if wanted == "compiled" else ".py"
    names = [entry["name"] for entry in listed]
    if wanted == "pure":  # what only the compiled build has is not there at all
        names = [name for name in names if importlib.util.find_spec(name)]
    found = {name: str(importlib.import_module(name).__file__) for name in names}
    others = [f"{name} is {path}" for name, path in found.items() if not path.endswith(suffix)]
    if others:
        raise pytest.UsageError(f"this is not the {wanted} build: {'; '.join(others)}")


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Async tests run on asyncio's loop, or on uvloop or on each of them when marked so."""
    if item.get_closest_marker("every_loop"):
        import uvloop

        from sidecar.net.network import new_event_loop

        loops = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop, "own": new_event_loop}
        own = new_event_loop()
        if own is None:
            del loops["own"]
        else:
            own.close()
        return loops  # type: ignore[return-value] # it makes none only where it was left out
    if item.get_closest_marker("uvloop"):
        import uvloop

        return {"uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


def pytest_itemcollected(item: pytest.Item) -> None:
    """Async tests look for leaked tasks while their loop still exists; sync tests need no loop."""
    if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
        item.fixturenames.insert(0, "task_leaks")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """`@pytest.mark.server("nginx", ...)`: without the program a laptop skips, CI fails."""
    wanted = [name for marker in item.iter_markers("server") for name in marker.args]
    missing = [name for name in wanted if find_program(name) is None]
    if missing:
        lacking(f"not installed: {', '.join(missing)}; tests/run.py installs them where it may")


@pytest.fixture
async def task_leaks() -> AsyncIterator[None]:
    """Fails a test that leaves asyncio tasks running."""
    before = asyncio.all_tasks()
    yield
    mine = asyncio.current_task()
    for _ in range(10):  # a cancelled or just finished task needs a turn or two of the loop to be done
        left = {task for task in asyncio.all_tasks() if task is not mine and task not in before}
        if not left:
            return
        await asyncio.sleep(0)
    names = ", ".join(sorted(repr(task.get_coro()) for task in left))
    pytest.fail(f"tasks left running: {names}", pytrace=False)


@pytest.fixture(autouse=True)
def leaks() -> Iterator[None]:
    """Fails a test that leaves threads, child processes or descriptors behind, and names them."""
    descriptors, threads, children = _descriptors(), set(threading.enumerate()), _children()
    yield
    for thread in set(threading.enumerate()) - threads:
        thread.join(1.0)  # one that was told to end has this long to do so
    left = [f"thread {thread.name}" for thread in set(threading.enumerate()) - threads]
    left += [f"child process {_command(pid)} (pid {pid})" for pid in sorted(_children() - children)]
    if _descriptors() - descriptors:
        gc.collect()  # what only a reference cycle holds is reported by its own ResourceWarning
        # watchfiles' thread closes its own some microseconds after it was told to, and is none of Python's.
        for _ in range(100):
            if not _descriptors() - descriptors:
                break
            time.sleep(0.01)
    left += [f"descriptor {number} {target}" for (number, target) in sorted(_descriptors() - descriptors)]
    if left:
        pytest.fail("left behind: " + "; ".join(left), pytrace=False)


def _descriptors() -> set[tuple[int, str]]:
    """Open descriptors by number and target; those that tools of the test run open lazily are left out."""
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        try:
            target = str(link.readlink())
        except OSError:  # the listing's own descriptor
            continue
        if not (target.startswith("/dev/") or ".coverage" in target or ".hypothesis" in target):
            found.add((int(link.name), target))
    return found


def _children() -> set[int]:
    found: set[int] = set()
    for listing in Path("/proc/self/task").glob("*/children"):
        try:
            found.update(int(pid) for pid in listing.read_text().split())
        except OSError:  # the thread has ended meanwhile
            continue
    return found


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return "(gone)"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """The coverage floor, and what failed before, are tests too: pytest's last line and exit code know of them."""
    result = yield
    config = session.config
    if config.option.collectonly:
        return result
    if config.getoption("covered_fully"):
        _report(session, "every_branch_of_the_cores_is_taken", _coverage_gaps(config.rootpath))
    if config.getoption("failed_before"):
        _report(
            session,
            "the_runs_before",
            f"failed, see their own summaries: {config.getoption('failed_before')}",
        )
    return result


def _report(session: pytest.Session, name: str, problem: str) -> None:
    """One more test of this name, which passes without a problem."""
    report = pytest.TestReport(
        nodeid=f"tests/conftest.py::{name}",
        location=("tests/conftest.py", None, name),
        keywords={},
        outcome="failed" if problem else "passed",
        longrepr=problem or None,
        when="call",
    )
    session.config.hook.pytest_runtest_logreport(report=report)


def _coverage_gaps(root: Path) -> str:
    """Coverage's own table of what is missing in `FULLY_COVERED`; empty when nothing is."""
    import coverage

    table = io.StringIO()
    measured = coverage.Coverage(data_file=str(root / ".coverage"), config_file=str(root / "pyproject.toml"))
    measured.load()
    patterns = [str(root / pattern) for pattern in FULLY_COVERED]
    try:
        total = measured.report(
            include=patterns, show_missing=True, skip_covered=True, precision=2, file=table
        )
    except coverage.exceptions.NoDataError:
        return f"nothing of {', '.join(FULLY_COVERED)} was measured; was --cov=sidecar given?"
    return "" if total >= 100 else f"every branch here needs a test that takes it:\n{table.getvalue()}"
