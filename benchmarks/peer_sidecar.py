"""The sidecar as a peer, with default policies unless told: as this Python finds it, of a folder, or not compiled."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from certificates import NAME
from origins import Front
from peers import Proxy, UnavailableError, told_version
from programs import Programs, free_ports

__all__ = ["EVERY_POLICY", "HEDGED", "ROOT", "Sidecar", "differs", "find_package", "interpreter", "pure_copy"]

ROOT = Path(__file__).resolve().parent.parent
NEEDED = "import uvloop, yaml, aiohttp, prometheus_client"
SOURCES = (".py", ".pyx", ".pxd")
BUILT = "import sidecar.proxy.exchange as built; print(built.__file__)"
FIND = "import importlib.util; print(importlib.util.find_spec('sidecar').submodule_search_locations[0])"


# What is off by default, or less: health checks, limits of each kind, every reason to try again.
EVERY_POLICY = (
    'retries: 2, retry_on: [connect, reset, timeout, "502", "503"], per_try_timeout: 10, '
    "circuit_breaker: {failure_rate: 50%, failure_statuses: [5xx]}, outlier: {max_ejected: 50%, min_available: 1}, "
    "limits: {connections_per_endpoint: 1000, in_flight: 10000}, slow_start: 1s, close_on_unhealthy: true, "
    "health_check: {type: tcp, interval: 1}"
)
# And the two that make another kind of exchange of each request.
HEDGED = f"{EVERY_POLICY}, hedge_after: 5, deadline_header: x-request-timeout-ms"


@dataclass(frozen=True, slots=True)
class Sidecar:
    """The package `sidecar` in the folder `root`, run by a Python that has its dependencies.

    policy: further keys of each HTTP upstream, as YAML flow `key: value, ...`. logs: it writes an access log.
    """

    name: str
    root: Path
    python: str
    policy: str = ""
    logs: bool = False

    def version(self) -> str:
        """Which one it is, and how what was imported is built: `0.1.0 compiled` or `0.1.0 pure`."""
        done = subprocess.run([*self._python(), "-c", BUILT], capture_output=True, text=True, check=False)
        kind = "compiled" if done.stdout.strip().endswith(".so") else "pure"
        return f"{told_version([*self._python(), '-m', 'sidecar', '--version'])} {kind}"

    def start(self, programs: Programs, front: Front, cpus: set[int]) -> Proxy:
        """Start it."""
        ports = free_ports(len(front.backends) + 2)
        admin, metrics = ports.pop(), ports.pop()
        lines = ["services:" if front.protocol == "tcp" else "load_balancers:"]
        for number, addresses in enumerate(front.backends):
            if front.protocol == "tcp":
                host, _, port = addresses[0].rpartition(":")
                lines.append(f"  u{number}: {{host: {host}, port: {port}, scheme: redis}}")
            else:
                hosts = ", ".join(f'"{address}"' for address in addresses)
                secure = front.secure
                tls = f"scheme: https, tls: {{ca: {secure.ca}, server_name: {NAME}}}, " if secure else ""
                lines.append(f"  u{number}: {{hosts: [{hosts}], {tls}{self.policy}}}")
        lines += ["sidecar:", "  bind: [127.0.0.1]", "  ports:"]
        if front.door:
            tls = f"{{cert: {front.door.cert}, key: {front.door.key}}}"
            lines += [f"    {port}: {{to: u{number}, tls: {tls}}}" for number, port in enumerate(ports)]
        else:
            lines += [f"    {port}: u{number}" for number, port in enumerate(ports)]
        lines += [f"  admin: 127.0.0.1:{admin}", f"  metrics: 127.0.0.1:{metrics}", ""]
        if self.logs:
            lines.insert(-1, f"  access_log: {programs.directory / f'{self.name}.access'}")
        config = programs.directory / f"{self.name}.yml"
        config.write_text("\n".join(lines))
        command = [*self._python(), "-m", "sidecar", "run", "--config", str(config)]
        return Proxy(programs.start(self.name, command, ports, cpus), tuple(ports))

    def _python(self) -> list[str]:
        # -P: what is imported is of the folder that PYTHONPATH names first, and not of the current directory.
        path = os.pathsep.join([str(self.root), *filter(None, [os.environ.get("PYTHONPATH")])])
        mode = "AUTOBOT_DEPLOYMENT_MODE=local"
        return ["/usr/bin/env", f"PYTHONPATH={path}", mode, self.python, "-P"]


def interpreter() -> str:
    """This Python, or the one of the checkout's test environment. Raises `UnavailableError`."""
    for python in (sys.executable, str(ROOT / ".venv" / "bin" / "python")):
        check = [python, "-c", NEEDED]
        if (
            os.access(python, os.X_OK)
            and subprocess.run(check, capture_output=True, check=False).returncode == 0
        ):
            return python
    raise UnavailableError(
        "sidecar: its dependencies are missing; install it once, as the README says: "
        "python3 -m venv .venv && .venv/bin/pip install ."
    )


def find_package(python: str) -> Path:
    """The folder of the package that this Python imports, PYTHONPATH first; the checkout where there is none."""
    done = subprocess.run([python, "-P", "-c", FIND], capture_output=True, text=True, check=False)
    return Path(done.stdout.strip()).parent if done.returncode == 0 else ROOT


def differs(root: Path) -> bool:
    """Whether the package in `root` is of other sources than this checkout's."""
    ours, theirs = (
        {
            path.relative_to(folder): path.read_bytes()
            for path in (folder / "sidecar").rglob("*")
            if path.suffix in SOURCES
        }
        for folder in (ROOT, root)
    )
    return ours != theirs


def pure_copy(root: Path, directory: Path) -> Path:
    """A folder in `directory` with the package of `root` but nothing of it that is compiled."""
    copy = directory / "pure"
    left_out = shutil.ignore_patterns("*.so", "__pycache__")
    shutil.copytree(root / "sidecar", copy / "sidecar", ignore=left_out)
    return copy
