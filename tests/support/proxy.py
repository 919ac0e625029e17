"""The sidecar as its users run it: a process with a configuration file, told things by signals."""

import os
import signal
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import sidecar
from support.http import HttpClient, Response, get
from support.ports import free_port
from support.processes import Process
from support.waiting import wait_until

__all__ = ["ROOT", "Sidecar", "clean_environment", "command", "configuration", "samples"]

ROOT = Path(__file__).resolve().parents[2]
# What processes import is what this one does: the checkout, or what was compiled of it.
PACKAGES = Path(sidecar.__file__).resolve().parents[1]


def clean_environment(**extra: str) -> dict[str, str]:
    """Nothing of the caller's deployment, so that a test sees only what it sets."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, "PYTHONPATH": str(PACKAGES), **extra}


def configuration(
    listen: int, endpoints: Iterable[int], *, scheme: str = "http", policy: str = "", sidecar: str = ""
) -> str:
    """One upstream, `api`, before local endpoints. policy, sidecar: further keys, as YAML flow `key: value, ...`."""
    hosts = ", ".join(f'"127.0.0.1:{port}"' for port in endpoints)
    return f"""load_balancers:
  api: {{hosts: [{hosts}], scheme: {scheme}, {policy}}}
sidecar:
  {{bind: [127.0.0.1], ports: {{{listen}: api}}, admin: "127.0.0.1:ADMIN", metrics: "127.0.0.1:METRICS", {sidecar}}}
"""


def command(*arguments: str | Path) -> list[str | Path]:
    """`sidecar ARGUMENTS` of the package that is tested, by this Python."""
    return [sys.executable, "-m", "sidecar", *arguments]


class Sidecar:
    """`sidecar run` with a configuration. Used as a context manager, which fails unless it ends well at SIGTERM.

    text: YAML, or `path`: a file to use as it is. In text, `ADMIN` and `METRICS` stand for the free ports
    chosen; a file that says nothing about them has the defaults, 9901 and 9902.
    """

    def __init__(
        self,
        directory: Path,
        text: str = "",
        *,
        path: Path | None = None,
        environ: Mapping[str, str] | None = None,
        admin: int = 0,
        metrics: int = 0,
        arguments: tuple[str, ...] = (),
    ) -> None:
        self.directory = directory
        self.admin = admin or free_port()
        self.metrics_port = metrics or free_port()
        self.path = path or directory / "sidecar.yml"
        if path is None:
            self.path.write_text(
                text.replace("ADMIN", str(self.admin)).replace("METRICS", str(self.metrics_port))
            )
        self.environ = clean_environment(**(environ or {}))
        self.arguments = arguments
        self.process: Process

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:  # the test has failed already: its own words matter
            self.process.kill()
            return
        try:
            code = self.end() if self.process.running else self.process.wait()
        finally:
            self.process.kill()
        assert code == 0, f"exit code {code}: {self.process.stderr}"
        assert "Traceback" not in self.process.stderr, self.process.stderr

    def start(self) -> None:
        """Start it and wait until it says that it is ready."""
        self.process = Process(
            command("run", "--config", self.path, *self.arguments), self.directory, self.environ, "sidecar"
        )

        def ready() -> bool:
            if not self.process.running:
                raise AssertionError(
                    f"the sidecar ended at start: {self.process.stderr or self.process.stdout}"
                )
            try:
                return get(self.metrics_port, "/ready").status == 200
            except OSError:
                return False

        try:
            wait_until(ready, "the sidecar's /ready", 20.0)
        except BaseException:
            self.process.kill()
            raise

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send(number)

    def end(self, number: signal.Signals = signal.SIGTERM, seconds: float = 10.0) -> int:
        """Signal it, wait for its end, and give its exit code."""
        self.send(number)
        return self.process.wait(seconds)

    def reload(self) -> Response:
        """Ask it to read its file again, and wait until it has."""
        with HttpClient(self.admin, timeout=30.0) as client:
            return client.request("POST", "/reload", [("Connection", "close"), ("X-Sidecar-Control", "1")])

    # What it says about itself

    def metrics(self) -> dict[str, float]:
        """Every sample of /metrics, keyed as it is written: `name{label="value",...}`."""
        return samples(get(self.metrics_port, "/metrics").text)

    def upstream(self, name: str) -> dict[str, Any]:
        """One upstream of /upstreams."""
        view = get(self.admin, "/upstreams").json
        return next(entry for entry in view["upstreams"] if entry["name"] == name)

    def breaker(self, upstream: str, address: str) -> str:
        """The state that /metrics shows for one endpoint."""
        found = self.metrics()
        for state in ("closed", "open", "half_open"):
            labels = f'endpoint="{address}",state="{state}",upstream="{upstream}"'
            if found.get(f"sidecar_breaker_state{{{labels}}}") == 1:
                return state
        return "unknown"

    # What the kernel says about it

    def memory(self, key: str = "VmRSS") -> int:
        """Bytes: VmRSS now, VmHWM the most it ever had."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(key + ":"))

    def forget_peak(self) -> None:
        """Let VmHWM start again from now (proc(5), clear_refs)."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def cpu_seconds(self) -> float:
        """User and system time so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def descriptors(self) -> int:
        """How many it has open."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))


def samples(text: str) -> dict[str, float]:
    """The samples of a text exposition, labels in alphabetical order."""
    found = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            series, _, value = line.rpartition(" ")
            name, brace, labels = series.partition("{")
            if brace:
                pairs = sorted(part for part in labels.rstrip("}").split('",') if part)
                series = name + "{" + ",".join(pair.rstrip('"') + '"' for pair in pairs) + "}"
            found[series] = float(value)
    return found
