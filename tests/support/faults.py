"""Endpoints that fail in ways of their own: an endpoint whose fault is switched while it runs, and the faults.

A fault says what is done to each request, and whether anybody listens at all. It holds from `suffer` until
`recover`, also on connections that were open before; what came of each request is kept with its time, so that a
test can tell since when nobody has been sent there, and since when somebody is again.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

from support.endpoints import Conversation, ScriptedEndpoint, ok

__all__ = [
    "DIE",
    "FLAP",
    "HANG",
    "IDLE_CLOSE",
    "REFUSE",
    "RESET_AFTER_HEAD",
    "RESET_BEFORE_HEAD",
    "Fault",
    "FaultyEndpoint",
    "Treatment",
    "answering",
    "last_before_silence",
    "slowed",
]

# What is done to a request that has been read, the n-th of this fault from 0: True when it was answered well.
Treatment = Callable[[Conversation, int], bool]

ON_ITS_WAY = 0.01  # seconds in which what was sent reaches the proxy, before a reset that would overtake it
WORDS = {500: "Internal Server Error", 502: "Bad Gateway", 503: "Service Unavailable"}


def well(conversation: Conversation, number: int) -> bool:
    """200, and the connection stays open."""
    conversation.send(ok())
    return True


def hung(conversation: Conversation, number: int) -> bool:
    """No answer for as long as the peer waits."""
    conversation.hang()
    return False


def reset_before_head(conversation: Conversation, number: int) -> bool:
    """RST instead of an answer."""
    conversation.reset()
    return False


def reset_after_head(conversation: Conversation, number: int) -> bool:
    """A head, 10 bytes of 100, and RST."""
    conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b"x" * 10)
    conversation.endpoint.stopping.wait(ON_ITS_WAY)
    conversation.reset()
    return False


def closed_on_next(conversation: Conversation, number: int) -> bool:
    """A connection that has been used before ends when its next request comes: by FIN and by RST in turn."""
    if not conversation.answered:
        return well(conversation, number)
    if conversation.number % 2:
        conversation.reset()
    else:
        conversation.socket.shutdown(socket.SHUT_RDWR)
    return False


@dataclass(frozen=True, slots=True)
class Fault:
    """How an endpoint fails.

    treat: what is done to each request. listens: whether connections are accepted; where not, open ones end too,
    by RST if `resets`. flaps: seconds for which it is dead, and then lives, and so on; 0 does not.
    """

    name: str
    treat: Treatment = well
    listens: bool = True
    resets: bool = False
    flaps: float = 0.0


def answering(status: int, share: float = 1.0) -> Fault:
    """`status` with an empty body to this share (0 to 1) of the requests, spread evenly; 200 to the others."""
    answer = f"HTTP/1.1 {status} {WORDS[status]}\r\nContent-Length: 0\r\n\r\n".encode()

    def treat(conversation: Conversation, number: int) -> bool:
        if int((number + 1) * share) == int(number * share):
            return well(conversation, number)
        conversation.send(answer)
        return False

    return Fault(f"{status} to {share:.0%}", treat)


def slowed(seconds: float, fault: Fault | None = None) -> Fault:
    """200 so much later; or another fault so much later."""
    treat = fault.treat if fault else well

    def wait_and_treat(conversation: Conversation, number: int) -> bool:
        conversation.endpoint.stopping.wait(seconds)
        return treat(conversation, number)

    return Fault(f"{fault.name if fault else 'slow'} after {seconds * 1000:g} ms", wait_and_treat)


WELL = Fault("well")
REFUSE = Fault("refuse", listens=False)  # a process that was stopped
DIE = Fault("die", listens=False, resets=True)  # one that was killed with requests before it
HANG = Fault("hang", hung)
RESET_BEFORE_HEAD = Fault("reset before head", reset_before_head)
RESET_AFTER_HEAD = Fault("reset after head", reset_after_head)
FLAP = Fault("flap every second", listens=False, flaps=1.0)
IDLE_CLOSE = Fault("idle-close race", closed_on_next)


@dataclass(slots=True)
class Episode:
    """A fault from its beginning on. ended: set when it is over."""

    fault: Fault
    number: int = 0
    ended: threading.Event = field(default_factory=threading.Event)


class FaultyEndpoint(ScriptedEndpoint):
    """A well endpoint, until it is told to `suffer` from a fault. Used as a context manager.

    arrivals, answers: monotonic seconds at which a request came, and at which one was answered well, in order;
    requests for `unseen` (a health check's path) are treated as all are, but stand in neither.
    spoilt: requests that were not answered well, those for `unseen` left out as well.
    """

    def __init__(self, port: int = 0, *, unseen: str = "") -> None:
        super().__init__(self._serve, port=port)
        self.arrivals: list[float] = []
        self.answers: list[float] = []
        self.spoilt = 0
        self._unseen = unseen
        self._dead = False
        self._episode = Episode(WELL)
        self._flapping: threading.Thread | None = None
        # Bound and never listening, so that nobody else takes the port of a dead endpoint.
        self._place = socket.socket()

    def __enter__(self) -> Self:
        self._place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._place.bind(("127.0.0.1", self.port))
        return super().__enter__()

    @property
    def fault(self) -> Fault:
        """What it suffers from now; `WELL` when from nothing."""
        return self._episode.fault

    def suffer(self, fault: Fault) -> float:
        """From now on this fault, in the place of any other; now, in monotonic seconds."""
        self.recover()
        self._episode = Episode(fault)
        if not fault.listens:
            self._die(reset=fault.resets)
        if fault.flaps:
            self._flapping = threading.Thread(target=self._flap, args=(self._episode,), name="flapping")
            self._flapping.start()
        return time.monotonic()

    def recover(self) -> float:
        """From now on well; now, in monotonic seconds. What hangs already hangs on."""
        before, self._episode = self._episode, Episode(WELL)
        before.ended.set()
        if self._flapping is not None:
            self._flapping.join()
            self._flapping = None
        if self._dead:
            self._revive()
        return time.monotonic()

    def stop(self) -> None:
        """End everything."""
        self._episode.ended.set()
        if self._flapping is not None:
            self._flapping.join()
            self._flapping = None
        super().stop()
        self._place.close()

    def _set_options(self, listener: socket.socket) -> None:
        super()._set_options(listener)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # beside its own place

    def _die(self, *, reset: bool) -> None:
        self._dead = True
        self.refuse()
        self.hang_up(reset=reset)

    def _revive(self) -> None:
        self._dead = False
        self.listen()

    def _flap(self, episode: Episode) -> None:
        while not episode.ended.wait(episode.fault.flaps):
            try:
                if self._dead:
                    self._revive()
                else:
                    self._die(reset=episode.fault.resets)
            except OSError as error:
                self.errors.append(error)

    def _serve(self, conversation: Conversation) -> None:
        # A connection may have been accepted in the moment of death, which ended all that it knew of. One that its
        # treatment has closed has no descriptor any more.
        while conversation.socket.fileno() >= 0 and (received := conversation.read_request()) is not None:
            if self._dead:
                return
            seen = not self._unseen or received.line.split(" ")[1] != self._unseen
            if seen:
                self.arrivals.append(time.monotonic())
            episode = self._episode
            number, episode.number = episode.number, episode.number + 1
            answered = False
            with suppress(OSError):  # a peer that has given up is one more that was not answered
                answered = episode.fault.treat(conversation, number)
            conversation.answered += 1
            if answered and seen:
                self.answers.append(time.monotonic())
            elif seen:
                self.spoilt += 1


def last_before_silence(
    arrivals: Iterable[float], since: float, *, silence: float = 1.0, until: float = float("inf")
) -> float | None:
    """Seconds from `since` until the last request before `silence` seconds with one request at most.

    One, because a breaker that asks whether the endpoint has recovered is not traffic; and none in the first quarter,
    in which no breaker asks yet. 0.0 when none came at all, None when there was no such silence before `until`. All
    in monotonic seconds.
    """
    times = [since, *(at for at in arrivals if since < at < until), until, until]
    for at, following, after in zip(times, times[1:], times[2:], strict=False):
        if following - at >= silence / 4 and after - at >= silence:
            return at - since
    return None
