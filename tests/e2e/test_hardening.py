"""With every capability dropped, as nobody, and on a file system that can be written to in one directory alone."""

import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.endpoints import ScriptedEndpoint, ok, respond
from support.http import get
from support.ports import free_port
from support.processes import Process
from support.proxy import clean_environment, command
from support.waiting import wait_until

pytestmark = pytest.mark.server("setpriv", "unshare")

NOBODY = 65534

# A mount namespace of its own: everything is read-only but the directory of the last good snapshots. Before that come
# the mounts that let nobody see Python, lines of a file: `--bind FROM TO`.
READ_ONLY = """
set -e
mount --make-rprivate /
while read -r how from to; do mount "$how" "$from" "$to"; done < "$1"
shift
mount --bind "$1" "$1"
for place in $(cut -d ' ' -f 5 /proc/self/mountinfo | sort -u); do
    case "$place" in
        "$1") ;;
        /proc | /proc/* | /sys | /sys/*) ;;
        *) mount -o remount,bind,ro "$place" 2> /dev/null || true ;;
    esac
done
shift
exec "$@"
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that nobody may enter, which pytest's own is not."""
    with tempfile.TemporaryDirectory(prefix="hardening-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


def hidden(path: Path) -> Path | None:
    """The outermost directory on the way to `path` that nobody may enter, such as a home of root's."""
    for place in reversed(path.parents):
        if not place.stat().st_mode & stat.S_IXOTH:
            return place
    return None


def shown(folder: Path) -> Path:
    """What is mounted so that nobody reaches Python and the package: directories that lead there, and no further."""
    package = Path(find_spec("sidecar").origin or "").resolve().parent  # type: ignore[union-attr]
    covers: dict[Path, Path] = {}
    lines = []
    for needed in dict.fromkeys(Path(place).resolve() for place in (sys.base_prefix, sys.prefix, package)):
        place = hidden(needed)
        if place is not None:
            cover = covers.setdefault(place, folder / f"cover-{len(covers)}")
            target = cover / needed.relative_to(place)
            target.mkdir(parents=True)
            lines.append(f"--bind {needed} {target}")
    lines += [f"--rbind {cover} {place}" for place, cover in covers.items()]
    file = folder / "mounts"
    file.write_text("".join(f"{line}\n" for line in lines))
    return file


@cache
def has_mounts() -> bool:
    """Whether root may have a mount namespace of its own; a container's often may not."""
    return not os.geteuid() and subprocess.run(["unshare", "--mount", "true"], check=False).returncode == 0


def confined(state: Path, *arguments: str | Path) -> list[str | Path]:
    """The command of a sidecar without rights; by root, who has some to drop, or else as whoever runs the tests."""
    run = [str(part) for part in command(*arguments)]
    dropped = ["setpriv", "--no-new-privs"]
    if os.geteuid():
        return [*dropped, *run]
    user = ["--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]
    dropped += ["--bounding-set=-all", "--inh-caps=-all", *user]
    if not has_mounts():
        return [*dropped, *run]
    return ["unshare", "--mount", "sh", "-c", READ_ONLY, "sh", shown(state.parent), state, *dropped, *run]


def status(pid: int) -> dict[str, str]:
    """Of /proc/PID/status, by name."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@pytest.mark.parametrize("workers", [1, 2])
def test_it_serves_reloads_keeps_and_ends_without_any_right(folder: Path, workers: int) -> None:
    state = folder / "state"
    state.mkdir()
    if not os.geteuid():
        os.chown(state, NOBODY, NOBODY)
    port, admin, metrics = free_port(), free_port(), free_port()
    with ScriptedEndpoint(respond(ok(b"served"))) as endpoint:
        endpoints = folder / "endpoints.yml"
        endpoints.write_text(f"api: ['127.0.0.1:{endpoint.port}']\n")
        config = folder / "sidecar.yml"
        text = f"""
external_registry: {{type: file, path: {endpoints}}}
services: {{api: {{port: {port}}}}}
sidecar:
  bind: 127.0.0.1
  admin: 127.0.0.1:{admin}
  metrics: 127.0.0.1:{metrics}
  workers: {workers}
  last_good: {state / "last-good.json"}
"""
        config.write_text(text)
        process = Process(
            confined(state, "run", "--config", config), folder, clean_environment(), name="sidecar"
        )
        try:
            wait_until(
                lambda: not process.running or "metrics: http" in process.stderr,
                f"its start: {process.stderr}",
            )
            assert process.running, process.stderr
            assert get(port, "/").body == b"served"

            seen = status(process.pid)
            assert seen["NoNewPrivs"] == "1"
            if not os.geteuid():
                assert seen["Uid"].split() == [str(NOBODY)] * 4
                for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
                    assert int(seen[name], 16) == 0

            kept = state / "last-good.json"
            wait_until(kept.exists, "the last good snapshots")
            assert stat.S_IMODE(kept.stat().st_mode) == 0o600
            if has_mounts():
                outside = Path(f"/proc/{process.pid}/root") / str(folder.relative_to("/"))
                with pytest.raises(OSError, match="Read-only"):
                    (outside / "elsewhere").touch()

            config.write_text(f"{text}  drain_timeout: 7\n")
            wait_until(lambda: "drain_timeout" in process.stderr, "the reload")
            assert get(port, "/").body == b"served"
            process.send(signal.SIGTERM)
            assert process.wait() == 0, process.stderr
        finally:
            process.stop()
    assert "ermission" not in process.stderr
    assert "Traceback" not in process.stderr
    assert sorted(path.name for path in state.iterdir()) == ["last-good.json"]
