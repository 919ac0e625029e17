"""A name server that says what a test tells it to: UDP and TCP on one loopback port."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self

import dns.message
import dns.name
import dns.rcode
import dns.rrset

from support.ports import free_port

__all__ = ["NameServer", "Query", "rrsets"]

# What came, and over what (`udp` or `tcp`); gives the messages to send back, none for silence.
Reply = Callable[["Query"], list[bytes]]


class Query:
    """One question as it came. over: `udp` or `tcp`."""

    def __init__(self, wire: bytes, over: str) -> None:
        self.message = dns.message.from_wire(wire)
        self.over = over
        question = self.message.question[0]
        self.name = question.name.to_text(omit_final_dot=True)
        self.kind = str(question.rdtype.name)

    def response(
        self,
        *lines: str,
        rcode: str = "NOERROR",
        beside: tuple[str, ...] = (),
        authority: tuple[str, ...] = (),
    ) -> dns.message.Message:
        """A response with these records as its answer. beside: its additional section."""
        made = dns.message.make_response(self.message)
        made.set_rcode(dns.rcode.from_text(rcode))
        made.answer += rrsets(*lines)
        made.additional += rrsets(*beside)
        made.authority += rrsets(*authority)
        return made

    def wire(
        self,
        *lines: str,
        rcode: str = "NOERROR",
        beside: tuple[str, ...] = (),
        authority: tuple[str, ...] = (),
    ) -> bytes:
        """The same as bytes, whole however long it is."""
        return self.response(*lines, rcode=rcode, beside=beside, authority=authority).to_wire(max_size=65535)


def rrsets(*lines: str) -> list[dns.rrset.RRset]:
    """Of lines as `backend.example 30 A 10.0.0.1`; neighbours of one name and type are one set."""
    found: dict[tuple[str, str], dns.rrset.RRset] = {}
    for line in lines:
        name, ttl, kind, data = line.split(maxsplit=3)
        made = dns.rrset.from_text_list(
            f"{name}.", int(ttl), "IN", kind, [data], origin=dns.name.root, relativize=False
        )
        if (name, kind) in found:
            found[name, kind].update(made)
        else:
            found[name, kind] = made
    return list(found.values())


class NameServer(asyncio.DatagramProtocol):
    """Used as an async context manager. What it is told nothing about exists and has no records (NODATA).

    asked: what came, as `udp A backend.example`, in order.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.host = host
        self.port = 0
        self.asked: list[str] = []
        self._replies: dict[tuple[str, str], Reply] = {}
        self._transport: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None
        self._closed: asyncio.Future[None] | None = None
        self._mistake: Exception | None = None
        self._conversations: set[asyncio.Task[Any]] = set()

    def says(
        self,
        name: str,
        kind: str,
        *lines: str,
        rcode: str = "NOERROR",
        beside: tuple[str, ...] = (),
        authority: tuple[str, ...] = (),
    ) -> None:
        """From now on, to this question."""
        self.does(
            name, kind, lambda query: [query.wire(*lines, rcode=rcode, beside=beside, authority=authority)]
        )

    def does(self, name: str, kind: str, reply: Reply) -> None:
        """From now on, to this question: whatever `reply` gives."""
        self._replies[name, kind] = reply

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for _ in range(20):  # a port that is free for TCP may be taken for UDP
            self.port = free_port()
            with suppress(OSError):
                self._transport, _ = await loop.create_datagram_endpoint(
                    lambda: self, local_addr=(self.host, self.port)
                )
                break
        self._server = await asyncio.start_server(self._talk, self.host, self.port)
        return self

    async def close_tcp(self) -> None:
        """From now on nobody answers over TCP."""
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def __aexit__(self, *_: object) -> None:
        assert self._transport is not None
        self._closed = asyncio.get_running_loop().create_future()
        self._transport.close()
        await self.close_tcp()
        for task in self._conversations:
            task.cancel()
        await asyncio.gather(*self._conversations, return_exceptions=True)
        await self._closed
        if self._mistake is not None:
            raise self._mistake

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed."""
        if self._closed is not None and not self._closed.done():
            self._closed.set_result(None)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """A question over UDP."""
        assert self._transport is not None
        for message in self._answer(Query(data, "udp")):
            self._transport.sendto(message, addr)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._conversations.add(task)
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    size = int.from_bytes(await reader.readexactly(2), "big")
                    for message in self._answer(Query(await reader.readexactly(size), "tcp")):
                        if not message:  # an empty one is the end
                            return
                        writer.write(len(message).to_bytes(2, "big") + message)
        finally:
            self._conversations.discard(task)
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    def _answer(self, query: Query) -> list[bytes]:
        self.asked.append(f"{query.over} {query.kind} {query.name}")
        reply = self._replies.get((query.name, query.kind))
        try:
            return [query.wire()] if reply is None else reply(query)
        except Exception as error:  # else it would look like silence
            self._mistake = error
            return []
