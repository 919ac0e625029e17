"""The supervisor's side of one worker: how it is started, told things, listened to, and missed."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sidecar.workers.channel import Channel
from sidecar.workers.values import add

if TYPE_CHECKING:
    from sidecar.workers.channel import Message
    from sidecar.workers.values import Tree

__all__ = ["Owner", "Program", "Spawn", "WorkerProcess", "ignore_signals", "spawn"]

START_TIMEOUT = 30.0  # seconds from the start of the process to its being ready: usually under one
# A process is not a zombie yet at the moment when its end of the channel has closed.
REAP_POLL = 0.01  # seconds
REAP_PATIENCE = 1.0  # seconds; one that lives without its channel can be told nothing more
NOT_STARTED = 127  # the exit code of a process that there never was, as a shell has it
# Unread bytes in a worker's channel beyond which it is taken for stuck. It is told some hundred bytes for each move,
# and for each endpoint when an upstream has changed: this is ten times what ten thousand endpoints are.
MAX_UNSENT = 16 * 1024 * 1024


class Program(Protocol):
    """A started process, as `subprocess.Popen` is one."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def kill(self) -> None: ...


# The signals that mean something to the supervisor alone.
SUPERVISORS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)

# Starts a worker that talks over the first descriptor and inherits the others.
Spawn = Callable[[int, Sequence[int]], Program]


class Owner(Protocol):
    """Whoever looks after a worker."""

    def worker_said(self, worker: WorkerProcess, message: Message) -> None:
        """It has told something that is not about itself."""

    def worker_ended(self, worker: WorkerProcess) -> None:
        """It has ended and left no process; once."""


class WorkerProcess:
    """One worker.

    slot: whose sockets it has. pid: 0 before there is one. started_at: monotonic seconds.
    ready: None once it serves, else why it never did. ended: its exit code, negative for a signal.
    values: what it last said that it had counted. quiet: it has had nothing to do for a while, draining.
    readings: what the history needs of that, by upstream. reread: those of which it has said more than was added up.
    leaving: others have taken its place.
    """

    def __init__(self, slot: int, owner: Owner, started_at: float) -> None:
        loop = asyncio.get_running_loop()
        self.slot = slot
        self.started_at = started_at
        self.ready: asyncio.Future[str | None] = loop.create_future()
        self.ended: asyncio.Future[int] = loop.create_future()
        self.values: Tree | None = None
        self.quiet = False
        self.leaving = False
        self._owner = owner
        self._loop = loop
        self._program: Program | None = None
        self._channel = Channel(self._receive, self._lost)
        self._answer: asyncio.Future[None] | None = None
        self.readings: dict[str, list[int]] = {}
        self.reread: set[str] = set()
        self._reading: asyncio.Future[None] | None = None
        self._reload: asyncio.Future[str] | None = None
        self._settings_unsent = 0  # bytes that may be unsent beside what it is told usually
        self._timer: asyncio.TimerHandle | None = None
        self._patience = REAP_PATIENCE
        self._said: Tree = {}  # of its values, so far

    @property
    def pid(self) -> int:
        return 0 if self._program is None else self._program.pid

    @property
    def serves(self) -> bool:
        """Whether it became ready and has not ended."""
        return self.ready.done() and self.ready.result() is None and not self.ended.done()

    @property
    def end(self) -> str:
        """How it ended, in words."""
        code = self.ended.result()
        if code >= 0:
            return f"ended with exit code {code}"
        try:
            return f"was ended by {signal.Signals(-code).name}"
        except ValueError:
            return f"was ended by signal {-code}"

    async def start(self, message: Callable[[], Message], sockets: Sequence[int], spawn: Spawn) -> None:
        """Start it and tell it `message`. What fails shows in `ready` and `ended`.

        The message is made when it can be sent: what it says holds then, and all that comes after it is told too.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                ours.setblocking(False)
                await self._channel.open(self._loop, ours)
                self._channel.send(message())
                self._program = spawn(theirs.fileno(), sockets)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            self.ready.set_result(f"cannot start a worker: {why.lower()}")
            self._channel.close()
            return
        self._timer = self._loop.call_later(START_TIMEOUT, self._give_up)

    def tell(self, message: Message) -> None:
        """Send it a message. One that reads nothing is killed before what it is told fills the memory."""
        self._channel.send(message)
        if self.serves and self._channel.unsent > MAX_UNSENT + self._settings_unsent:
            self.kill()

    def ask(self) -> asyncio.Future[None]:
        """Done once `values` are newer than this call, or it has ended. Not asked twice while it is silent."""
        if self._answer is None or self._answer.done():
            self._answer = self._loop.create_future()
            self._channel.send({"kind": "values"})
        return self._answer

    def ask_readings(self) -> asyncio.Future[None]:
        """The same of `readings`."""
        if self._reading is None or self._reading.done():
            self._reading = self._loop.create_future()
            self._channel.send({"kind": "readings"})
        return self._reading

    def reload(self, message: Message) -> asyncio.Future[str]:
        """Have it go by other settings (`wire.reload_message`); empty once it does, else why it does not.

        Of one that has ended it is empty too: whoever takes its place is started with them.
        """
        self._reload = self._loop.create_future()
        self._channel.send(message)
        self._settings_unsent = self._channel.unsent
        return self._reload

    def kill(self) -> None:
        """End it now, whatever it does; `ended` follows."""
        if self._program is not None and not self.ended.done():
            self._program.kill()

    # What it says, and its end

    def _receive(self, message: Message) -> None:
        kind = message["kind"]
        if kind == "values":
            # One that ends says all at once, whatever it was in the middle of saying.
            part = message["values"]
            self._said = add(self._said, part) if message.get("part") else part
            if not message.get("more"):
                self.values = self._said
                self._answered()
        elif kind == "readings":
            self.readings |= message["readings"]
            self.reread |= message["readings"].keys()
            if not message["more"] and self._reading is not None and not self._reading.done():
                self._reading.set_result(None)
        elif kind == "reloaded":
            self._settings_unsent = 0
            self._reloaded(message["why"])
        elif kind == "quiet":
            self.quiet = message["quiet"]
        elif kind in ("ready", "failed"):
            if not self.ready.done():
                self.ready.set_result(message.get("why"))
                self._cancel_timer()
        else:
            self._owner.worker_said(self, message)

    def _answered(self) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(None)

    def _reloaded(self, why: str) -> None:
        if self._reload is not None and not self._reload.done():
            self._reload.set_result(why)

    def _give_up(self) -> None:
        if not self.ready.done():
            self.ready.set_result(f"worker {self.slot} was not ready within {START_TIMEOUT:g} s")
        self.kill()

    def _lost(self) -> None:
        self._cancel_timer()
        self._reap()

    def _reap(self) -> None:
        """Wait for the process behind a channel that has closed, for a while with patience."""
        code = NOT_STARTED if self._program is None else self._program.poll()
        if code is None:
            if self._patience <= 0:
                self.kill()
            self._patience -= REAP_POLL
            self._timer = self._loop.call_later(REAP_POLL, self._reap)
            return
        self._timer = None
        self.ended.set_result(code)
        if not self.ready.done():
            self.ready.set_result(f"worker {self.slot} {self.end} while it started")
        self._answered()
        if self._reading is not None and not self._reading.done():
            self._reading.set_result(None)
        self._reloaded("")
        self._owner.worker_ended(self)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def spawn(channel: int, sockets: Sequence[int]) -> Program:
    """Start `python -m sidecar worker CHANNEL`: the same Python, the same package. Raises OSError."""
    flags = ["-I"] if sys.flags.isolated else []
    # -m would look into the working directory first, where an application may have a logging.py of its own; but that
    # is right where this process was found in the same way, by `python -m sidecar` in a checkout.
    package = Path(__file__).resolve().parents[2]
    if not sys.path or not sys.path[0] or Path(sys.path[0]).resolve() != package:
        flags.append("-P")
    command = [sys.executable, *flags, "-m", "sidecar", "worker", str(channel)]
    # In the same process group: a terminal's Ctrl-C reaches the workers too, which leave it to the supervisor. They are
    # born with such signals blocked, so that none finds them before they have learnt to ignore it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SUPERVISORS)
    try:
        return subprocess.Popen(  # noqa: S603 - this very program
            command, stdin=subprocess.DEVNULL, pass_fds=(channel, *sockets)
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_signals() -> None:
    """What a worker does first of all."""
    for number in SUPERVISORS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SUPERVISORS)
