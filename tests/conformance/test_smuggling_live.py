"""A few hundred cases of the matrix over real sockets, through a sidecar into a strict and into a lenient origin.

Each case has targets of its own. What the origin's connections have brought is kept as it came, and read by
everybody at the end.
"""

import itertools
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
from support.endpoints import Conversation, ScriptedEndpoint
from support.http import HttpClient, Response
from support.lenient import PERSONALITIES
from support.ports import free_port
from support.proxy import Sidecar, configuration
from support.rfc9112 import Message, Verdict, read_requests
from support.waiting import wait_until

from conformance.bench import SURE, answer_to, misread, requests_asked, same_target
from conformance.forms import CODINGS, LENGTHS, bodies, chunked_bodies, framed, hidden, request

SHOWN = 5  # complaints of one test; the rest is counted


class Origin:
    """What stands behind the proxy, and the bytes of each of its connections.

    strict: answers whole and sound requests, refuses the rest with 400 and closes; else answers whatever ends as a
    head does, and reads on behind it. closed: numbers of the connections that have ended.
    """

    def __init__(self, *, strict: bool) -> None:
        self.strict = strict
        self.heard: dict[int, bytes] = {}
        self.closed: set[int] = set()

    def __call__(self, conversation: Conversation) -> None:
        """The script of one connection."""
        number = conversation.number
        self.heard[number] = unanswered = b""
        try:
            while data := conversation.socket.recv(65536):
                self.heard[number] += data
                unanswered += data
                while b"\r\n\r\n" in unanswered:
                    if not self.strict:
                        _, target, *_ = unanswered.split(b" ", 2)
                        unanswered = b""
                        conversation.send(answer_to(target))
                        break
                    message = read_requests(unanswered)[0]
                    if message.verdict is Verdict.INCOMPLETE:
                        break
                    if message.verdict not in SURE:
                        conversation.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
                        return
                    unanswered = unanswered[message.end :]
                    conversation.send(answer_to(message.name, message.method))
        finally:
            self.closed.add(number)


class Live:
    """A sidecar before one origin, and a client that knows what it may get."""

    def __init__(self, listen: int, origin: Origin, sidecar: Sidecar) -> None:
        self.listen = listen
        self.origin = origin
        self.sidecar = sidecar
        self.numbers = itertools.count()
        self.due: Counter[bytes] = Counter()  # requests that the origin must have seen
        self.possible: Counter[bytes] = Counter()  # and those that it may have

    def run(self, data: bytes, number: int) -> Iterator[str]:
        """Send one case, then two canaries, over the same connection where it lives on and over a fresh one."""
        asked = requests_asked(data)
        got: list[Response] = []
        with HttpClient(self.listen) as client:
            client.send(data)
            alive = True
            for message in asked:
                if message.verdict is Verdict.INCOMPLETE:
                    # The lenient origin answers a head: whether that comes before the client goes is chance.
                    if message.in_body:
                        self.possible[message.name] += 1
                    alive = False
                    break
                answer = client.read_response()
                got.append(answer)
                yield from self._look(message, answer)
                if answer.error or answer.header("connection") == "close" or not message.persists:
                    alive = False
                    if more := client.read_end():
                        yield f"{more!r} followed the end"
                    break
            if alive:
                yield from self._canary(client, b"/same-%d" % number)
        with HttpClient(self.listen) as client:
            yield from self._canary(client, b"/fresh-%d" % number)

    def _look(self, message: Message, answer: Response) -> Iterator[str]:
        target = (answer.header("x-for") or "").encode("latin-1")
        if target:
            if not same_target(message.name, target):
                yield f"{message.name!r} got the answer to {target!r}"
            whole = message.verdict is not Verdict.REFUSED
            (self.due if whole else self.possible)[target] += 1
            if not whole and (not message.in_body or self.origin.strict):
                yield f"{message.name!r} was to be refused"
            return
        if message.in_body:
            self.possible[message.name] += 1
        if message.verdict is Verdict.SOUND:
            yield f"{message.name!r} is sound and got {answer.status}"
        if answer.status not in (400, 413, 414, 417, 431, 501, 505) or answer.error is None:
            yield f"{message.name!r} got {answer.status} {answer.headers!r}"

    def _canary(self, client: HttpClient, target: bytes) -> Iterator[str]:
        client.send(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % target)
        self.due[target] += 1
        answer = client.read_response()
        if answer.header("x-for") != target.decode():
            yield f"{target!r} got {answer!r}"

    def judge(self) -> Iterator[str]:
        """What the origin has seen, connection by connection."""
        seen: Counter[bytes] = Counter()
        wait_until(lambda: not self.sidecar.upstream("api")["in_flight"], "the last exchanges' end")
        for number, heard in self.origin.heard.items():
            kept = number not in self.origin.closed
            for what in misread(heard, kept, tuple(PERSONALITIES)):
                yield f"{what}\n  connection {number}: {heard[-2000:]!r}"
            seen.update(message.name for message in read_requests(heard))
        if missing := self.due - seen:
            yield f"the origin has not seen {missing}"
        if extra := seen - self.due - self.possible:
            yield f"the origin has seen {extra}"


@pytest.fixture(params=["strict", "lenient"])
def live(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Live]:
    """Everything for one test; that it goes on to work is part of it."""
    origin = Origin(strict=request.param == "strict")
    listen = free_port()
    with (
        ScriptedEndpoint(origin) as endpoint,
        Sidecar(tmp_path, configuration(listen, [endpoint.port])) as sidecar,
    ):
        yield Live(listen, origin, sidecar)


def cases(numbers: Iterator[int]) -> Iterator[tuple[int, bytes]]:
    """Every length and every coding with what has fooled most servers, and every liberty with chunks."""
    shapes = ("plain, hiding", "chunked, hiding", "chunked to its end, hidden behind")
    pairs = {
        *product(LENGTHS, ("absent", "chunked")),
        *product(("absent", "right", "up to the hidden request"), CODINGS),
    }
    for length, coding in sorted(pairs):
        number = next(numbers)
        version = b"1.0" if number % 4 == 3 else b"1.1"
        body = bodies(hidden(b"/smuggled-%d" % number))[shapes[number % len(shapes)]]
        lines = [LENGTHS[length], CODINGS[coding]]
        both = framed(b"".join(reversed(lines) if number // 3 % 2 else lines), body)
        yield number, request(both, body.data, target=b"/case-%d" % number, version=version)
    for name in chunked_bodies():
        number = next(numbers)
        data = chunked_bodies(hidden(b"/smuggled-%d" % number))[name]
        yield number, request(CODINGS["chunked"], data, target=b"/case-%d" % number)


def test_the_origin_sees_the_requests_that_the_clients_have_sent(live: Live) -> None:
    complaints: list[str] = []
    for number, data in cases(live.numbers):
        complaints += [f"{what}\n  client sent: {data!r}" for what in live.run(data, number)]
    complaints += live.judge()
    assert not complaints, f"{len(complaints)} complaints\n" + "\n".join(complaints[:SHOWN])
