"""Listening sockets going from one process to the next, so that no connection notices a restart.

    new ── ask ──────────────────────► old       over a unix socket, each message a JSON object
    new ◄── sockets (SCM_RIGHTS) ───── old       the very same ones: whoever waits in their queues goes on to wait
     │ starts, and is ready
    new ── ready ────────────────────► old
    new ◄── left ───────────────────── old       accepts no more, and finishes what it has
     │ accepts

Until `left` the old one serves, whatever becomes of the new one. The socket's name is in the abstract namespace
(unix(7)), which a network namespace has of its own as it has ports, and is made of the admin address, which is one
sidecar's. Who has another user id is no part of it, on either side (SO_PEERCRED).
"""

from __future__ import annotations

import array
import asyncio
import hashlib
import json
import logging
import os
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from sidecar.errors import SidecarError, StartError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Item", "Offer", "Owner", "Taken", "listen", "name_of", "take"]

PROTOCOL = 1  # of the messages; it grows only when an older process would not understand them
WITHIN = 5.0  # seconds for each word of the other side, which answers from memory
# Seconds that the new one may take until it is ready: a worker's start is given 30, registries 5 by default.
READY_WITHIN = 60.0
PAUSE = 1.0  # seconds until somebody is accepted again when no descriptor was free
WAITING = 4  # who may wait to be accepted; two would do: one is talked to, the next is told so
MAX_TALKS = 4  # at once, of which one gets the sockets and the others are told so
MAX_MESSAGE = 65536  # bytes; those below are far shorter
# Sockets in one message: the kernel allows 253 (SCM_MAX_FD, unix(7)), and names of 255 characters are to fit.
AT_ONCE = 100
MAX_SOCKETS = 65536  # of all together: 64 workers, 512 addresses

_UID = struct.Struct("3i")  # struct ucred: pid, uid, gid (unix(7), SO_PEERCRED)
_log = logging.getLogger("sidecar")

Message = dict[str, Any]
# What a socket is, in words and numbers that both sides know, and the socket.
Item = tuple[list[str | int], socket.socket]


class Owner(Protocol):
    """The process that is served by an `Offer`."""

    async def offered(self, request: Message) -> Sequence[Item]:
        """All listening sockets, for somebody who asks for them. Raises SidecarError to give none."""

    def give_way(self, pid: int, word: Message) -> Message:
        """The new process (0: its id is of another namespace) is ready: accept no more. What it is told beside.

        Raises TypeError when `word` is not understood, and nothing has changed then.
        """


def name_of(admin: str) -> str:
    """The socket's name for the sidecar whose `sidecar.admin` is this."""
    plain = f"\0sidecar-takeover:{admin}"
    if len(plain) < 100:  # of 108 that are possible
        return plain
    return f"\0sidecar-takeover:{hashlib.sha256(admin.encode()).hexdigest()}"


def listen(name: str) -> socket.socket:
    """Where to be asked. Raises OSError when somebody has the name."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        made.bind(name)
        made.listen(WAITING)
        made.setblocking(False)
    except BaseException:
        made.close()
        raise
    return made


# The process that is there


class Offer:
    """Gives the sockets of `owner` to whoever asks at `listening`, which is its own.

    busy: somebody is taking over just now.
    """

    def __init__(self, owner: Owner, listening: socket.socket) -> None:
        self.listening = listening
        self.busy = False
        self._owner = owner
        self._talks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        # Again, where another process has: who asks is told the id of who has done so last (SO_PEERCRED).
        listening.listen(WAITING)
        self._listen()

    def _listen(self) -> None:
        self._pause = None
        self._loop.add_reader(self.listening.fileno(), self._accept)

    def stop(self) -> None:
        """Be asked no more; a talk that goes on is not ended by that."""
        if self._pause is not None:
            self._pause.cancel()
        if self.listening.fileno() >= 0:
            self._loop.remove_reader(self.listening.fileno())
            self.listening.close()

    async def close(self) -> None:
        """The same, and end what goes on: whoever is there hears nothing more."""
        self.stop()
        for talk in self._talks:
            talk.cancel()
        if self._talks:
            await asyncio.wait(self._talks)

    def _accept(self) -> None:
        try:
            connection, _ = self.listening.accept()
        except BlockingIOError:  # it has left
            return
        except OSError:
            # No descriptor is free: whoever waits would be told of again in every turn of the loop.
            self._loop.remove_reader(self.listening.fileno())
            self._pause = self._loop.call_later(PAUSE, self._listen)
            return
        connection.setblocking(False)
        pid, uid = _peer(connection)
        if uid != os.geteuid():
            _log.warning("refused to be taken over by user id %d: it is not this process's", uid)
            connection.close()
        elif len(self._talks) >= MAX_TALKS:
            connection.close()
        else:
            talk = self._loop.create_task(self._answer(connection, pid))
            self._talks.add(talk)
            talk.add_done_callback(self._talks.discard)

    async def _answer(self, connection: socket.socket, pid: int) -> None:
        try:
            with connection:
                await self._hand_over(connection, pid)
        except (OSError, ValueError) as error:  # TimeoutError too
            why = getattr(error, "strerror", None) or str(error) or "no word from it in time"
            _log.warning("not taken over: %s; going on", why.lower())

    async def _hand_over(self, connection: socket.socket, pid: int) -> None:
        request = await self._hear(connection, WITHIN)
        if not request:
            return
        if self.busy:
            await self._refuse(connection, "another process is taking over just now")
            return
        self.busy = True
        try:
            await self._answer_first(connection, pid, request)
        finally:
            self.busy = False

    async def _refuse(self, connection: socket.socket, why: str) -> None:
        _log.warning("not taken over: %s", why)
        await self._tell(connection, {"refused": why})

    async def _answer_first(self, connection: socket.socket, pid: int, request: Message) -> None:
        """Of those who ask at the same time."""
        if request.get("takeover") != PROTOCOL:
            await self._refuse(connection, "it has another version; stop it, and start this one then")
            return
        try:
            items = await self._owner.offered(request)
        except SidecarError as error:
            await self._refuse(connection, str(error))
            return
        _log.info("process %d asks for the sockets, to take over", pid)
        for at in range(0, max(len(items), 1), AT_ONCE):
            part = items[at : at + AT_ONCE]
            message = {"sockets": [what for what, _ in part], "more": at + AT_ONCE < len(items)}
            await self._tell(connection, message, [one.fileno() for _, one in part])
        word: Message | None
        try:
            word = await self._hear(connection, READY_WITHIN)
        except TimeoutError:
            # While this process was stopped, so that it comes with the end of the time.
            word = _said(connection)
        if word is None:
            await self._tell(connection, {"kept": f"it was not ready within {READY_WITHIN:g} s"})
            raise TimeoutError
        if word and word.get("ready") and not _has_gone(connection):
            try:
                told = self._owner.give_way(pid, word)
            except TypeError:
                raise ValueError("what it says is not understood") from None
            await self._tell(connection, {"left": True, **told})
        else:
            _log.warning("not taken over: process %d has ended before it was ready; going on", pid)

    async def _hear(self, connection: socket.socket, within: float) -> Message:
        async with asyncio.timeout(within):
            while True:
                message = _said(connection)
                if message is not None:
                    return message
                await self._until(self._loop.add_reader, self._loop.remove_reader, connection)

    async def _tell(
        self, connection: socket.socket, message: Message, descriptors: Sequence[int] = ()
    ) -> None:
        async with asyncio.timeout(WITHIN):
            while True:
                with suppress(BlockingIOError):
                    _send(connection, message, descriptors)
                    return
                await self._until(self._loop.add_writer, self._loop.remove_writer, connection)

    async def _until(self, add: Any, remove: Callable[[int], object], connection: socket.socket) -> None:
        come: asyncio.Future[None] = self._loop.create_future()
        add(connection.fileno(), _settle, come)
        try:
            await come
        finally:
            remove(connection.fileno())


# The process that comes


class Taken:
    """What another process has handed over, and the talk with it.

    items: the sockets, which belong to whoever pops them from here.
    """

    def __init__(self, connection: socket.socket, items: list[Item]) -> None:
        self.items = items
        self._connection = connection

    @property
    def pid(self) -> int:
        """Of the process that has handed over; 0 if that is of another namespace."""
        return _peer(self._connection)[0]

    def ask(self, workers: int) -> None:
        """Ask for the sockets, for so many workers, and wait for them. Raises StartError, OSError, ValueError."""
        connection = self._connection
        uid = _peer(connection)[1]
        if uid != os.geteuid():
            raise StartError(f"user id {uid} has the running sidecar; start this one as the same user")
        _send(connection, {"takeover": PROTOCOL, "workers": workers})
        more = True
        while more:
            message, sockets = _receive(connection)
            if "refused" in message:
                raise StartError(f"the running sidecar is not taken over: {message['refused']}")
            named = message.get("sockets")
            if not isinstance(named, list) or len(named) != len(sockets) or len(self.items) > MAX_SOCKETS:
                for one in sockets:
                    one.close()
                raise ValueError("it hands over something else than sockets")
            self.items += zip(named, sockets, strict=True)
            more = bool(message.get("more"))

    def sockets(self, *what: str) -> list[socket.socket]:
        """Those that these words name; they are the caller's from now on."""
        found = [one for name, one in self.items if name == list(what)]
        self.items[:] = [item for item in self.items if item[0] != list(what)]
        return found

    def ports(self) -> list[Item]:
        """Those of the applications' ports, without the word that says so."""
        found = [(what[1:], one) for what, one in self.items if what[:1] == ["port"]]
        self.items[:] = [item for item in self.items if item[0][:1] != ["port"]]
        return found

    async def replace(self, **word: Any) -> Message:
        """Have it leave; when this returns, it accepts nothing more. word: what it is told beside.

        Returns what it says to that, empty if nothing: one that has died meanwhile, or does not answer, is in nobody's
        way, and if it has only been stopped it leaves when it hears of this, for which the connection stays open.
        Raises StartError when it goes on instead.
        """
        loop = asyncio.get_running_loop()
        connection = self._connection
        connection.setblocking(False)
        come: asyncio.Future[None] = loop.create_future()
        loop.add_reader(connection.fileno(), _settle, come)
        answer: Message = {}
        try:
            # It may have said something before it closed.
            with suppress(BrokenPipeError, ConnectionResetError):
                _send(connection, {"ready": True, **word})
            async with asyncio.timeout(WITHIN):
                await come
            try:
                answer, _ = _receive(connection)
            except ConnectionResetError:  # it has not read all; what it has said comes after this error
                answer, _ = _receive(connection)
        except (OSError, ValueError):
            answer = {}
        finally:
            loop.remove_reader(connection.fileno())
        if answer:
            connection.close()
        else:
            _log.warning("the process before does not answer; going on without it")
        if "kept" in answer:
            raise StartError(f"the running sidecar is not taken over: {answer['kept']}")
        return answer

    def settle(self) -> None:
        """Want nothing more of it: this process is in its place. The talk ends with `replace`, or with `close`."""
        while self.items:
            self.items.pop()[1].close()

    def close(self) -> None:
        """Want none of it any more: the other process goes on, if it has not left."""
        self.settle()
        self._connection.close()


def take(admin: str, workers: int) -> Taken | None:
    """Ask the sidecar whose admin address this is for its sockets; None where there is none.

    Blocks for as long as that takes, `WITHIN` for each word. Raises StartError when it gives none.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    taken = Taken(connection, [])
    connection.settimeout(WITHIN)
    try:
        connection.connect(name_of(admin))
        taken.ask(workers)
    except ConnectionRefusedError:
        taken.close()
        return None
    except (OSError, ValueError) as error:
        taken.close()
        why = getattr(error, "strerror", None) or str(error) or "no answer"
        raise StartError(f"the running sidecar is not taken over: {why.lower()}") from None
    except BaseException:
        taken.close()
        raise
    return taken


# Messages


def _settle(come: asyncio.Future[None]) -> None:
    if not come.done():
        come.set_result(None)


def _send(connection: socket.socket, message: Message, descriptors: Sequence[int] = ()) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    connection.sendmsg([json.dumps(message).encode()], rights)


def _receive(connection: socket.socket) -> tuple[Message, list[socket.socket]]:
    """One message, empty when the other side has gone. Raises OSError, ValueError."""
    room = socket.CMSG_SPACE(AT_ONCE * array.array("i").itemsize)
    # Not inherited by a worker that is started meanwhile.
    data, rights, flags, _ = connection.recvmsg(MAX_MESSAGE, room, socket.MSG_CMSG_CLOEXEC)
    descriptors = array.array("i")
    for level, kind, part in rights:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(part[: len(part) - len(part) % descriptors.itemsize])
    sockets = _sockets_of(descriptors)
    message: Any = None
    if not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        with suppress(ValueError):
            message = json.loads(data) if data else {}
    if isinstance(message, dict):
        return message, sockets
    for one in sockets:
        one.close()
    raise ValueError("what it says is not understood, or too long, or no descriptor is free for it")


def _sockets_of(descriptors: Sequence[int]) -> list[socket.socket]:
    """Raises OSError where one is no socket, and leaves none open then."""
    sockets: list[socket.socket] = []
    try:
        for descriptor in descriptors:
            sockets.append(socket.socket(fileno=descriptor))  # noqa: PERF401 - those that are made are to be closed
    except OSError:
        for one in sockets:
            one.close()
        for descriptor in descriptors[len(sockets) :]:
            os.close(descriptor)
        raise
    return sockets


def _said(connection: socket.socket) -> Message | None:
    """What has come; None for nothing."""
    with suppress(BlockingIOError):
        message, sockets = _receive(connection)
        for one in sockets:  # nobody asks for any
            one.close()
        return message
    return None


def _has_gone(connection: socket.socket) -> bool:
    """Whether the other side has closed, or its process has ended, since it said something."""
    try:
        return not connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False


def _peer(connection: socket.socket) -> tuple[int, int]:
    """The process id and user id of the other side, as they were when it connected or listened."""
    pid, uid, _ = _UID.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UID.size))
    return pid, uid
