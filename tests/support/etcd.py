"""A real etcd: one member, or a cluster of several, on free loopback ports, with its data in a directory."""

import json
import os
import signal
import ssl
import urllib.error
import urllib.request
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from sidecar.config.settings import Address
from support.ports import free_port
from support.processes import find_program
from support.servers import Server
from support.waiting import wait_until

__all__ = ["Etcd", "RefusedError", "cluster"]

LONGEST = 300  # seconds that a member runs at most, should nobody be left to stop it


class RefusedError(Exception):
    """A status other than 200, with its body."""


class Etcd(Server):
    """One member. A restart has the same data and ports.

    name: its own. peers: name to peer port, of all members; alone by default. certificate: files of a certificate,
    which is an authority's too, and its key: clients have to show it, and are shown it.
    """

    program = "etcd"

    def __init__(
        self,
        directory: Path,
        name: str = "a",
        peers: Mapping[str, int] | None = None,
        certificate: tuple[Path, Path] | None = None,
    ) -> None:
        super().__init__(directory, [free_port()])
        self.name = name
        self.peers = dict(peers or {name: free_port()})
        self.certificate = certificate
        self.token = ""

    @property
    def address(self) -> Address:
        """Where clients reach it."""
        return Address("127.0.0.1", self.ports[0])

    def command(self) -> list[str | Path]:
        program = find_program(self.program)
        assert program is not None, 'etcd is not installed; mark the test @pytest.mark.server("etcd")'
        client = f"{self._scheme}://127.0.0.1:{self.ports[0]}"
        peer = f"http://127.0.0.1:{self.peers[self.name]}"
        options = {
            "name": self.name,
            "data-dir": self.directory / "data",
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": ",".join(
                f"{name}=http://127.0.0.1:{port}" for name, port in self.peers.items()
            ),
            "heartbeat-interval": 50,  # milliseconds; half of the usual, so that a leader is elected sooner
            "election-timeout": 500,
        }
        if self.certificate:
            certificate, key = self.certificate
            options |= {"cert-file": certificate, "key-file": key, "trusted-ca-file": certificate}
        flags = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
        verify = ["--client-cert-auth"] if self.certificate else []
        return ["timeout", str(LONGEST), program, *flags, *verify]

    def start(self) -> None:
        """Start it, alone: until it has a leader, which a member of several waits for without being asked."""
        super().start()
        if len(self.peers) == 1:
            self.wait_until_well()

    def wait_until_well(self) -> None:
        """Until it answers as one that has a leader does."""
        wait_until(self._well, f"etcd {self.name} has a leader", 30)

    def _well(self) -> bool:
        try:
            with urllib.request.urlopen(
                f"{self._scheme}://{self.address}/health", timeout=2, context=self._context()
            ) as response:
                return bool(json.load(response)["health"] == "true")
        except (OSError, ValueError):
            return False

    @property
    def _scheme(self) -> str:
        return "https" if self.certificate else "http"

    def _context(self) -> ssl.SSLContext | None:
        if self.certificate is None:
            return None
        context = ssl.create_default_context(cafile=str(self.certificate[0]))
        context.check_hostname = False  # its certificate has a name, and it is asked by its address
        context.load_cert_chain(*self.certificate)
        return context

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, such as SIGSTOP, to all of it."""
        assert self.process is not None
        os.killpg(self.process.pid, number)

    # What a client does

    def call(self, path: str, message: Mapping[str, Any]) -> dict[str, Any]:
        """One question to the gateway. Raises RefusedError."""
        headers = {"Content-Type": "application/json"} | ({"Authorization": self.token} if self.token else {})
        request = urllib.request.Request(
            f"{self._scheme}://{self.address}{path}", json.dumps(message).encode(), headers
        )
        try:
            with urllib.request.urlopen(request, timeout=20, context=self._context()) as response:
                return dict(json.load(response))
        except urllib.error.HTTPError as error:
            with error:
                raise RefusedError(f"{error.code}: {error.read().decode()}") from None

    def put(self, key: str, value: object, lease: str = "") -> None:
        """Write a text, or anything else as JSON."""
        text = value if isinstance(value, str) else json.dumps(value)
        self.call(
            "/v3/kv/put", {"key": _base64(key), "value": _base64(text)} | ({"lease": lease} if lease else {})
        )

    def get(self, key: str) -> str | None:
        """What is there."""
        found = self.call("/v3/kv/range", {"key": _base64(key)}).get("kvs")
        return b64decode(found[0].get("value", "")).decode() if found else None

    def delete(self, key: str) -> None:
        """Delete it, if it is there."""
        self.call("/v3/kv/deleterange", {"key": _base64(key)})

    def grant(self, seconds: int) -> str:
        """A new lease's id."""
        return str(self.call("/v3/lease/grant", {"TTL": seconds})["ID"])

    def leases(self) -> list[str]:
        """Ids of those that there are."""
        return [lease["ID"] for lease in self.call("/v3/lease/leases", {}).get("leases", [])]

    def revoke(self, lease: str) -> None:
        """End a lease, with its keys."""
        self.call("/v3/lease/revoke", {"ID": lease})

    def leads(self) -> bool:
        """Whether it is the leader of its cluster."""
        status = self.call("/v3/maintenance/status", {})
        return bool(status["leader"] == status["header"]["member_id"])

    def compact(self) -> None:
        """Forget what has been before now."""
        now = self.call("/v3/kv/range", {"key": _base64("x")})["header"]["revision"]
        self.call("/v3/kv/compaction", {"revision": now, "physical": True})

    def add_users(self, password: str) -> None:
        """Ask for users from now on: `root`, whom `call` is then, and `sidecar`, who may do all under /services."""
        access = {"permType": "READWRITE", "key": _base64("/services/"), "range_end": _base64("/services0")}
        for path, message in (
            ("user/add", {"name": "root", "password": password}),
            ("role/add", {"name": "root"}),
            ("user/grant", {"user": "root", "role": "root"}),
            ("user/add", {"name": "sidecar", "password": password}),
            ("role/add", {"name": "services"}),
            ("role/grant", {"name": "services", "perm": access}),
            ("user/grant", {"user": "sidecar", "role": "services"}),
            ("enable", {}),
        ):
            self.call(f"/v3/auth/{path}", message)
        self.log_in(password)

    def log_in(self, password: str) -> None:
        """Be `root` from now on."""
        self.token = ""
        self.token = self.call("/v3/auth/authenticate", {"name": "root", "password": password})["token"]


@contextmanager
def cluster(directory: Path, members: int) -> Iterator[list[Etcd]]:
    """So many members that have found each other."""
    peers = {f"m{number}": free_port() for number in range(members)}
    with ExitStack() as stack:
        started = [stack.enter_context(Etcd(directory / name, name, peers)) for name in peers]
        for member in started:
            member.wait_until_well()
        yield started


def _base64(text: str) -> str:
    return b64encode(text.encode()).decode()
