"""Registries that a test fills, breaks and mends, one class for each kind, all told in the same words.

A trouble is one of `TROUBLES`: the registry is `shut` (stopped), answers `errors` or `garbage`, or says that there is
nobody (`empty`). `mend` ends it. What they know is the upstream `api`.
"""

import json
from abc import ABC, abstractmethod
from base64 import b64encode
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from support.background import Background
from support.consul import ConsulAgent
from support.dns import NameServer
from support.etcd import Etcd
from support.front import Front
from support.kubernetes import FakeKubernetes, slice_object

__all__ = ["STAGES", "TROUBLES", "Stage"]

TROUBLES = ("shut", "errors", "garbage", "empty")


class Stage(ABC):
    """Used as a context manager. kind: of its registry. ports: of the endpoints on 127.0.0.1 that it names."""

    kind = ""
    source = ""  # of the upstream, where it needs more than the registry's name

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ports: tuple[int, ...] = ()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.open(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @abstractmethod
    def open(self, stack: ExitStack) -> None:
        """Start what there is to start."""

    @property
    @abstractmethod
    def where(self) -> str:
        """The keys of its entry in external_registry, as YAML's flow has them."""

    def name(self, *ports: int) -> None:
        """Have it name these endpoints and no others."""
        before, self.ports = self.ports, ports
        self.change(
            [port for port in ports if port not in before], [port for port in before if port not in ports]
        )

    @abstractmethod
    def change(self, come: Iterable[int], gone: Iterable[int]) -> None:
        """Have it name these too, and those no more."""

    @abstractmethod
    def suffer(self, trouble: str) -> None:
        """From now on, until `mend`."""

    @abstractmethod
    def mend(self) -> None:
        """It is well again, and knows what it knew."""


class _Behind(Stage):
    """A registry over HTTP, behind a front that does the suffering. port: where it really is."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.front: Front
        self._hidden: tuple[int, ...] = ()

    def place(self, stack: ExitStack, port: int) -> None:
        """Put a front before it."""
        self.front = stack.enter_context(Front(port))

    @property
    def where(self) -> str:
        return f'host: "{self.front.address}"'

    def suffer(self, trouble: str) -> None:
        if trouble == "empty":
            self._hidden = self.ports
            self.name()
        else:
            self.front.turn(trouble)

    def mend(self) -> None:
        if self._hidden:
            self.name(*self._hidden)
            self._hidden = ()
        else:
            self.front.turn("pass")


class ConsulStage(_Behind):
    kind = "consul"

    def open(self, stack: ExitStack) -> None:
        self._background = stack.enter_context(Background())
        self._agent = self._background.enter(ConsulAgent())
        self.place(stack, self._agent.port)

    def change(self, come: Iterable[int], gone: Iterable[int]) -> None:
        def change() -> None:
            for port in come:
                self._agent.add("api", f"api-{port}", "127.0.0.1", port)
            for port in gone:
                self._agent.remove(f"api-{port}")

        self._background.call(change)


class EtcdStage(_Behind):
    kind = "etcd"

    def open(self, stack: ExitStack) -> None:
        self._etcd = stack.enter_context(Etcd(self.directory / "etcd"))
        self.place(stack, self._etcd.ports[0])

    def change(self, come: Iterable[int], gone: Iterable[int]) -> None:
        """All at once: what is told one after the other is also true one after the other."""
        operations = []
        for port in come:
            value = _base64(json.dumps({"host": "127.0.0.1", "port": port}))
            operations.append({"requestPut": {"key": _base64(f"/services/api/{port}"), "value": value}})
        operations += [{"requestDeleteRange": {"key": _base64(f"/services/api/{port}")}} for port in gone]
        self._etcd.call("/v3/kv/txn", {"success": operations})


def _base64(text: str) -> str:
    return b64encode(text.encode()).decode()


class KubernetesStage(_Behind):
    kind = "kubernetes"
    source = ", port: http"

    def open(self, stack: ExitStack) -> None:
        self._background = stack.enter_context(Background())
        self._server = self._background.enter(FakeKubernetes())
        self.place(stack, self._server.port)
        token = self.directory / "token"
        token.write_text("a-token\n")

    @property
    def where(self) -> str:
        return f'{super().where}, token_file: "{self.directory}/token", namespace: default'

    def change(self, come: Iterable[int], gone: Iterable[int]) -> None:
        def change() -> None:
            for port in come:
                self._server.put(slice_object("api", "127.0.0.1", name=f"api-{port}", port=port))
            for port in gone:
                self._server.delete(f"api-{port}")

        self._background.call(change)


class DnsStage(Stage):
    kind = "dns"
    source = ", service: _http._tcp.api.test"

    def open(self, stack: ExitStack) -> None:
        self._background = stack.enter_context(Background())
        self._server = self._background.enter(NameServer())

    @property
    def where(self) -> str:
        return f'host: "127.0.0.1:{self._server.port}"'

    def _reply(self, do: Callable[[], None]) -> None:
        self._background.call(do)

    def change(self, come: Iterable[int], gone: Iterable[int]) -> None:
        self.mend()

    def suffer(self, trouble: str) -> None:
        name, kind = "_http._tcp.api.test", "SRV"
        server = self._server
        if trouble == "shut":
            self._reply(lambda: server.does(name, kind, lambda _: []))
        elif trouble == "errors":
            self._reply(lambda: server.says(name, kind, rcode="SERVFAIL"))
        elif trouble == "garbage":
            self._reply(lambda: server.does(name, kind, lambda _: [b"\x00garbage"]))
        else:
            self._reply(lambda: server.says(name, kind, rcode="NXDOMAIN"))

    def mend(self) -> None:
        lines = [f"_http._tcp.api.test 1 SRV 0 1 {port} one.test." for port in self.ports]
        beside = ("one.test 1 A 127.0.0.1",)
        self._reply(lambda: self._server.says("_http._tcp.api.test", "SRV", *lines, beside=beside))
        self._reply(lambda: self._server.says("one.test", "A", *beside))


class FileStage(Stage):
    kind = "file"

    def open(self, stack: ExitStack) -> None:
        self._path = self.directory / "endpoints.yml"
        self._write("{}\n")

    @property
    def where(self) -> str:
        return "path: endpoints.yml"

    def _write(self, text: str) -> None:
        """As a careful writer does: another file, put in its place."""
        self._remove()
        beside = self._path.with_suffix(".new")
        beside.write_text(text)
        beside.replace(self._path)

    def _remove(self) -> None:
        if self._path.is_dir():
            self._path.rmdir()
        elif self._path.exists():
            self._path.unlink()

    def change(self, come: Iterable[int], gone: Iterable[int]) -> None:
        self.mend()

    def suffer(self, trouble: str) -> None:
        if trouble == "shut":
            self._remove()
        elif trouble == "errors":
            self._remove()
            self._path.mkdir()
        elif trouble == "garbage":
            self._write("api: [127.0.0.1:1, \n  nobody closes this")
        else:
            self._write("api: []\n")

    def mend(self) -> None:
        hosts = ", ".join(f'"127.0.0.1:{port}"' for port in self.ports)
        self._write(f"api: [{hosts}]\n")


STAGES = (ConsulStage, DnsStage, EtcdStage, FileStage, KubernetesStage)
