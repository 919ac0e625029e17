"""The floor as a peer: `relay.c`, which does the least that a proxy can do, compiled where there is a C compiler.

What it costs is the kernel's and the machine's, and everybody's: no proxy of four system calls a request goes below.
"""

import subprocess
from pathlib import Path

from origins import Front
from peers import Proxy, UnavailableError
from programs import Programs, find, free_ports
from scenarios import Scenario

__all__ = ["Relay"]

SOURCE = Path(__file__).resolve().parent / "relay.c"


class Relay:
    """A relay in C that looks at nothing."""

    name = "floor"

    def version(self) -> str:
        """It has none."""
        _compiler()
        return "relay in C"

    def takes(self, scenario: Scenario) -> bool:
        """Whether all its messages come in one read."""
        small = (
            scenario.load == "http" and scenario.path == "/" and not scenario.body and not scenario.closing
        )
        return small and scenario.front in ("balanced", "endpoints")

    def start(self, programs: Programs, front: Front, cpus: set[int]) -> Proxy:
        """Compile and start it."""
        program = programs.directory / "relay"
        if not program.exists():
            command = [_compiler(), "-O2", "-o", str(program), str(SOURCE)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise UnavailableError(f"{self.name}: it does not compile: {done.stderr[-400:].strip()}")
        ports = free_ports(1)
        backends = [address.rpartition(":")[2] for address in front.backends[0]]
        pid = programs.start(self.name, [str(program), str(ports[0]), *backends], ports, cpus)
        return Proxy(pid, tuple(ports))


def _compiler() -> str:
    found = find("cc") or find("gcc")
    if found is None:
        raise UnavailableError("floor: there is no C compiler (Debian: apt-get install gcc libc6-dev)")
    return found
