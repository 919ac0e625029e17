"""A real dnsmasq that knows nothing but what it is told, unprivileged, on one loopback port."""

import signal
import socket
from contextlib import suppress
from pathlib import Path

import dns.exception
import dns.message
import dns.query

from support.ports import free_port
from support.processes import find_program
from support.servers import Server
from support.waiting import wait_until

__all__ = ["Dnsmasq"]


class Dnsmasq(Server):
    """Answers `options` and the hosts file, and refuses all else; `domain` is its own, where what it lacks is NXDOMAIN.

    options: as on its command line, without the two dashes, such as `srv-host=_http._tcp.x.test,a.test,80,1,5`.
    """

    program = "dnsmasq"

    def __init__(self, directory: Path, *options: str, domain: str = "test", ttl: int = 1) -> None:
        super().__init__(directory, [free_udp_port()])
        self._options = [*options, f"local=/{domain}/", f"local-ttl={ttl}"]
        self._hosts = directory / "hosts"
        self._hosts.write_text("")

    @property
    def port(self) -> int:
        """Its port, for UDP and TCP."""
        return self.ports[0]

    def hosts(self, *lines: str) -> None:
        """From now on, as lines of /etc/hosts: it reads them again, and has when this returns."""
        serial = f"10.255.{len(lines)}.{(self._serial() + 1) % 250 + 1} serial.test"
        self._hosts.write_text("\n".join((*lines, serial, "")))
        if self.process is not None:
            self.process.send(signal.SIGHUP)
            wait_until(
                lambda: self.address("serial.test") == serial.split(maxsplit=1)[0], "the new hosts file"
            )

    def _serial(self) -> int:
        lines = self._hosts.read_text().split()
        return int(lines[-2].rpartition(".")[2]) if lines else 0

    def address(self, name: str) -> str:
        """What it says now; empty when nothing."""
        query = dns.message.make_query(name, "A")
        with suppress(dns.exception.DNSException, OSError):
            answer = dns.query.udp(query, "127.0.0.1", 1.0, self.port).answer
            return str(answer[0][0]) if answer else ""
        return ""

    def command(self) -> list[str | Path]:
        program = find_program(self.program)
        assert program is not None, 'mark the test @pytest.mark.server("dnsmasq")'
        own = [
            "conf-file=/dev/null",
            "keep-in-foreground",
            "no-resolv",
            "no-hosts",
            "no-poll",
            "log-facility=-",
            "pid-file",
            "user=",
            "group=",
            "bind-interfaces",
            "listen-address=127.0.0.1",
            f"port={self.port}",
            f"addn-hosts={self._hosts}",
        ]
        return [program, *(f"--{option}" for option in (*own, *self._options))]


def free_udp_port() -> int:
    """A loopback port that is free for UDP and TCP."""
    while True:
        port = free_port()
        with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", port))
            return port
