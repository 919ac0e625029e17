"""Questions to name servers, one server after another: over UDP, and over TCP what does not fit (RFC 7766 section 5).

The questions of one try share one connected socket, whose port the kernel chooses anew each time. So only the server
itself is heard, a server that is not there says so at once, and to guess an answer takes its number and the port.
"""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import dns.entropy

from sidecar.net import names
from sidecar.registry.dns.answer import Answer, Question, UnusableAnswerError, is_truncated, wants_no_edns
from sidecar.registry.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sidecar.clock import Clock
    from sidecar.registry.dns.directions import NameServers, Server

__all__ = ["Client", "NoAnswerError"]

AT_ONCE = (
    128  # tries at the same moment, each with one descriptor; as many as there are health checks at once
)
AVOIDED = 30.0  # seconds for which a server that kept silent is asked after the others
LONGEST_REPLY = 4096  # bytes of a datagram that are looked at; more than `answer.UDP_PAYLOAD` nobody may send
AT_A_TIME = 16  # datagrams that are taken before others have their turn: anybody may send many
LARGE = 4096  # bytes of an answer from which on it is read in a thread: a thousand SRV records take 50 ms
REPORTED = 4  # servers that a message names
_SILENT = "no answer"


class NoAnswerError(Exception):
    """No server had an answer to use. Its text says for each what it did instead."""


class Client:
    """Asks name servers. Several may ask at the same time."""

    def __init__(self, name_servers: NameServers, clock: Clock) -> None:
        self._name_servers = name_servers
        self._clock = clock
        self._gate = asyncio.Semaphore(AT_ONCE)
        self._avoided: dict[Server, float] = {}  # until when, monotonic seconds

    async def ask(self, questions: Sequence[Question], until: float) -> list[Answer | NoAnswerError]:
        """What came of each question, at the latest at `until` (monotonic seconds).

        Where the first has records, the others are tried only once more: a server that keeps silent about one type is
        not to hold up what is known. Raises SourceError where there is no name server.
        """
        directions = await self._name_servers.now()
        attempt = _Attempt(questions)
        limit = partial(self._left, directions.timeout, until)
        servers = self._in_turn(directions.servers)
        tries = 0
        for server in servers * directions.tries:
            asked = attempt.open_at(server)
            if not asked:
                continue
            async with self._gate:
                if limit() <= 0:
                    break
                await _try(attempt, server, asked, limit)
            self._remember(attempt, server)
            tries += 1
            if not attempt.missing or (tries >= 2 and attempt.is_enough):
                break
        return attempt.results()

    def _left(self, timeout: float, until: float) -> float:
        """Seconds that one wait may take: `timeout`, and nothing after `until`."""
        return min(timeout, until - self._clock.monotonic())

    def _in_turn(self, servers: tuple[Server, ...]) -> tuple[Server, ...]:
        if not self._avoided:
            return servers
        now = self._clock.monotonic()
        self._avoided = {server: end for server, end in self._avoided.items() if end > now}
        return tuple(sorted(servers, key=self._avoided.__contains__))

    def _remember(self, attempt: _Attempt, server: Server) -> None:
        if server in attempt.heard:
            self._avoided.pop(server, None)
        else:
            self._avoided[server] = self._clock.monotonic() + AVOIDED


class _Attempt:
    """What several questions have come to so far. heard: servers that said anything at all."""

    def __init__(self, questions: Sequence[Question]) -> None:
        self._questions = questions
        self._answers: dict[Question, Answer] = {}
        self._problems: dict[Question, dict[Server, str]] = {question: {} for question in questions}
        self.heard: set[Server] = set()

    @property
    def missing(self) -> bool:
        """Whether a question has no answer yet."""
        return len(self._answers) < len(self._questions)

    @property
    def is_enough(self) -> bool:
        """Whether the question that matters most has records."""
        first = self._answers.get(self._questions[0])
        return first is not None and bool(first.addresses or first.services)

    def open_at(self, server: Server) -> list[Question]:
        """What `server` is to be asked: what has no answer, but not what it has refused already."""
        return [
            question
            for question in self._questions
            if question not in self._answers
            and self._problems[question].get(server, _SILENT).startswith(_SILENT)
        ]

    def answered(self, question: Question, reply: bytes, server: Server) -> None:
        """A message to this question has come."""
        self.heard.add(server)
        try:
            self._answers[question] = question.read(reply)
        except UnusableAnswerError as error:
            self._problems[question][server] = str(error)

    def failed(self, question: Question, server: Server, problem: str) -> None:
        """None has come."""
        self._problems[question][server] = problem

    def results(self) -> list[Answer | NoAnswerError]:
        """In the order of the questions."""
        return [self._answers.get(question) or self._error(question) for question in self._questions]

    def _error(self, question: Question) -> NoAnswerError:
        problems = list(self._problems[question].items())[:REPORTED]
        said = "; ".join(f"{problem} from {server}" for server, problem in problems)
        return NoAnswerError(f"{question}: {said or 'there was no time left to ask'}")


async def _try(
    attempt: _Attempt, server: Server, questions: Sequence[Question], limit: Callable[[], float]
) -> None:
    """Ask one server once, and tell `attempt` what came of each question. limit: seconds for a wait that begins."""
    timeout = limit()
    try:
        with socket.socket(server.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
            sock.connect(server.address)
            datagrams = _Datagrams(sock, questions)
            await datagrams.exchange(timeout)
    except OSError as error:
        for question in questions:
            attempt.failed(question, server, f"{_SILENT} ({_words(error)})")
        return
    for question in questions:
        reply = datagrams.replies.get(question)
        if reply is None:
            attempt.failed(question, server, datagrams.problem or f"{_SILENT} within {timeout:.3g} s")
        elif not is_truncated(reply):
            attempt.answered(question, reply, server)
        else:
            attempt.heard.add(server)
            await _try_tcp(attempt, server, question, max(limit(), 0.0))


async def _try_tcp(attempt: _Attempt, server: Server, question: Question, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            reply = await _over_tcp(server, question)
    except TimeoutError:
        attempt.failed(question, server, f"{_SILENT} over TCP within {seconds:.3g} s")
    except EOFError:
        attempt.failed(question, server, "an answer over TCP that breaks off")
    except OSError as error:
        attempt.failed(question, server, f"{_SILENT} over TCP ({_words(error)})")
    else:
        if reply is None or is_truncated(reply):
            attempt.failed(question, server, "an answer over TCP that cannot be used")
        else:
            if len(reply) >= LARGE:
                with suppress(UnusableAnswerError):  # as it is to whoever reads it again, which takes no time
                    await in_thread(f"reading of {question}", partial(question.read, reply))
            attempt.answered(question, reply, server)


async def _over_tcp(server: Server, question: Question) -> bytes | None:
    """The reply, with two bytes of length before it on the wire (RFC 1035 4.2.2); None for one to something else.

    Raises OSError, EOFError.
    """
    loop = asyncio.get_running_loop()
    number = dns.entropy.random_16()
    query = question.query(number)
    entry = (server.family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", server.address)
    with await names.connect([entry], loop) as sock:
        await loop.sock_sendall(sock, len(query).to_bytes(2, "big") + query)
        length = int.from_bytes(await _exactly(sock, 2, loop), "big")
        reply = await _exactly(sock, length, loop)
    return reply if reply[:2] == query[:2] and question.answered_by(reply) else None


async def _exactly(sock: socket.socket, size: int, loop: asyncio.AbstractEventLoop) -> bytes:
    held = b""
    while len(held) < size:
        part = await loop.sock_recv(sock, size - len(held))
        if not part:
            raise EOFError
        held += part
    return held


class _Datagrams:
    """Questions over one connected UDP socket. replies: what has come; problem: why nothing more will, else empty."""

    def __init__(self, sock: socket.socket, questions: Sequence[Question]) -> None:
        self.replies: dict[Question, bytes] = {}
        self.problem = ""
        self._sock = sock
        self._count = len(questions)
        self._asked: dict[int, tuple[Question, bool]] = {}  # by the message's number; whether with EDNS
        self._strange = 0  # what came and answers nothing
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for question in questions:
            self._send(question, extended=True)

    async def exchange(self, seconds: float) -> None:
        """Wait until all has come, or it is clear that it will not, or `seconds` are over."""
        loop = self._done.get_loop()
        timer = loop.call_later(seconds, self._end, "")
        descriptor = self._sock.fileno()  # of a socket asyncio makes the text each time
        loop.add_reader(descriptor, self._readable)
        try:
            await self._done
        finally:
            loop.remove_reader(descriptor)
            timer.cancel()
        if self._strange and not self.problem and len(self.replies) < self._count:
            self.problem = (
                f"{_SILENT} within {seconds:.3g} s, but {self._strange} messages that answer nothing"
            )

    def _send(self, question: Question, extended: bool) -> None:
        number = dns.entropy.random_16()
        while number in self._asked:
            number = dns.entropy.random_16()
        self._asked[number] = question, extended
        self._sock.send(question.query(number, extended))

    def _readable(self) -> None:
        try:
            for _ in range(AT_A_TIME):
                self._take(self._sock.recv(LONGEST_REPLY))
                if len(self.replies) == self._count:
                    self._end("")
                    return
        except BlockingIOError:
            return
        except OSError as error:  # nobody listens there, or no way leads there
            self._end(f"{_SILENT} ({_words(error)})")

    def _take(self, reply: bytes) -> None:
        question, extended = self._asked.get(int.from_bytes(reply[:2], "big"), (None, False))
        if question is None or question in self.replies or not question.answered_by(reply):
            self._strange += 1
        elif extended and wants_no_edns(reply):
            self._send(question, extended=False)
        else:
            self.replies[question] = reply

    def _end(self, problem: str) -> None:
        if not self._done.done():
            self.problem = problem
            self._done.set_result(None)


def _words(error: OSError) -> str:
    number = error.errno
    return (os.strerror(number) if number else str(error) or type(error).__name__).lower()
