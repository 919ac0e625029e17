"""One case in memory: a client's bytes through the whole data path, and everything that is asked of what comes out.

The oracle (`support.rfc9112`) says what the client has sent. Then:

- each request that is sound is answered by the endpoint, once; what is to be refused is answered by the proxy,
  once, with 4xx, 501 or 505, and ends the connection; what lies in between may go either way;
- the endpoint has got those requests and no other, in bytes that the oracle finds sound;
- every lenient reader (`support.lenient`) sees the same requests in them, and on a connection that is kept no
  byte beyond: nothing waits there for the next request;
- that next request, from another client, gets its own answer.
"""

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

from support.lenient import PERSONALITIES, Personality
from support.rfc9112 import Message, Verdict, read_requests, read_responses
from support.transports import MemoryTransport
from unit.proxy.harness import Proxy

__all__ = ["Bench", "answer_to", "canary", "misread", "requests_asked", "same_target"]

SURE = (Verdict.SOUND, Verdict.ODD)
REFUSALS = (b"400", b"408", b"413", b"414", b"417", b"431", b"501", b"505")
# What may never come late (RFC 9110 6.5.1): framing, routing, and what belongs to one hop.
NO_TRAILERS = frozenset(
    (
        b"connection",
        b"content-length",
        b"expect",
        b"host",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
_AUTHORITY = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)
CASES_PER_PROXY = 200  # the harness keeps every transport, and looks through all of them


def answer_to(target: bytes, method: bytes = b"GET") -> bytes:
    """An endpoint's answer, which tells what it answers."""
    return b"HTTP/1.1 200 OK\r\nX-For: %b\r\nContent-Length: 2\r\n\r\n%b" % (
        target,
        b"" if method == b"HEAD" else b"ok",
    )


def canary(target: bytes = b"/canary") -> bytes:
    """A request that nobody could misunderstand."""
    return b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % target


def same_target(asked: bytes, seen: bytes) -> bool:
    """Whether the target that was sent on is the one asked for: as it was, or in origin-form."""
    match = _AUTHORITY.match(asked)
    rest = asked[match.end() :] if match else asked
    return seen in (asked, rest if rest.startswith(b"/") else b"/" + rest) or (not rest and seen == b"*")


def requests_asked(data: bytes) -> list[Message]:
    """What a client has asked for by the letter, remembered."""
    return _read(data)


@lru_cache(maxsize=4096)
def _read(data: bytes) -> list[Message]:
    return read_requests(data)


@lru_cache(maxsize=4096)
def _answers(data: bytes, methods: tuple[bytes, ...], closed: bool) -> list[Message]:
    return read_responses(data, *methods, closed=closed)


@lru_cache(maxsize=16384)
def misread(heard: bytes, kept: bool, readers: tuple[Personality, ...]) -> tuple[str, ...]:
    """What is wrong with the bytes that one endpoint's connection has brought. kept: it is still open.

    readers: who has to agree with the oracle about them.
    """
    found: list[str] = []
    messages = read_requests(heard)
    for at, message in enumerate(messages):
        last = at == len(messages) - 1
        if message.verdict not in SURE and not (last and not kept and message.verdict is Verdict.INCOMPLETE):
            found.append(f"sent on what is {message.verdict.value}")
        if forbidden := NO_TRAILERS.intersection(message.trailers):
            found.append(f"sent on the trailers {sorted(forbidden)}")
    if b"h2c" in heard.lower():
        found.append("sent on an upgrade to h2c")
    seen = tuple(message.name for message in messages)
    for reader in readers:
        sight = reader.requests(heard)
        if sight.begun != seen:
            found.append(f"a reader [{reader}] sees {sight.begun!r}, not {seen!r}")
        elif kept and sight.rest:
            found.append(f"a reader [{reader}] has {sight.rest!r} left for the next request")
        if len(found) > 3:
            break
    return tuple(found)


class _Endpoint:
    """The far end of one connection. heard: its bytes since the case began; answered: how many of these are."""

    __slots__ = ("answered", "early", "heard", "transport")

    def __init__(self, transport: MemoryTransport) -> None:
        self.transport = transport
        self.begin()

    def begin(self) -> None:
        """A case begins."""
        self.heard = b""
        self.answered = 0
        self.early = False

    @property
    def kept(self) -> bool:
        """Whether the connection is open."""
        return not self.transport.closing

    def move(self, *, eager: bool) -> bool:
        """Take what has come and answer; whether anything happened.

        eager: at the end of a head, as servers do that read no further; else only what is whole and sure, and 400
        to what is neither.
        """
        new = self.transport.taken()
        self.heard += new
        if self.transport.closing or self.transport.protocol.exchange is None:
            return bool(new)
        unanswered = self.heard[self.answered :]
        if b"\r\n\r\n" not in unanswered:
            return bool(new)
        if eager:
            method, target, *_ = unanswered.split(b" ", 2)
            self.early = not read_requests(unanswered) or read_requests(unanswered)[0].verdict not in SURE
            self.answered = len(self.heard)
            self.transport.feed(answer_to(target, method))
            return True
        message = read_requests(unanswered)[0]
        if message.verdict is Verdict.INCOMPLETE:
            return bool(new)
        if message.verdict not in SURE:
            self.answered = len(self.heard)
            self.transport.feed(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            return True
        self.answered += message.end
        self.transport.feed(answer_to(message.name, message.method))
        return True


class Bench:
    """Runs cases, over one proxy as long as that makes no difference.

    eager: see `_Endpoint.move`; readers: who has to agree about what is sent on.
    """

    def __init__(self, *readers: Personality, eager: bool = False) -> None:
        self.eager = eager
        self.readers = readers or tuple(PERSONALITIES)
        self.cases = 0
        self._fresh()

    def _fresh(self) -> None:
        self.proxy = Proxy(breaker_threshold=1 << 30, breaker_failure_rate=0.0, retries=0)
        self._ends: list[_Endpoint] = []

    def finish(self) -> None:
        """Everybody leaves; nothing may be left in the proxy's books."""
        self.proxy.begun = sum(self.proxy.cluster.stats.requests)  # which was counted case by case
        self.proxy.finish()

    def run(self, *pieces: bytes) -> Iterator[str]:
        """One case, in these pieces: complaints, each with the exact bytes."""
        self.cases += 1
        if self.cases % CASES_PER_PROXY == 0:
            self.finish()
            self._fresh()
        data = b"".join(pieces)
        counted = sum(self.proxy.cluster.stats.requests)
        client, closed = self._converse(pieces)
        for what in self._judge(data, client, closed, sum(self.proxy.cluster.stats.requests) - counted):
            heard = [end.heard for end in self._ends if end.heard]
            yield f"{what}\n  client sent:  {data!r}\n  endpoint got: {heard!r}\n  client got:   {client.data!r}"
        touched = any(end.heard for end in self._ends)
        self._ends = [end for end in self._ends if end.kept]
        if touched or self.cases % 100 == 1:
            asked = canary()
            client, _ = self._converse([asked])
            heard = [end.heard for end in self._ends if end.heard]
            if client.data != answer_to(b"/canary") or len(heard) != 1 or not heard[0].startswith(asked[:20]):
                yield (
                    f"the next client's request was not served as it should\n  first sent:   {data!r}\n"
                    f"  endpoint got: {heard!r}\n  client got:   {client.data!r}"
                )
            self._ends = [end for end in self._ends if end.kept]

    def _converse(self, pieces: Iterable[bytes]) -> tuple[MemoryTransport, bool]:
        """A client sends these; the client when everything has stood still, and whether the proxy ended it."""
        for end in self._ends:
            end.begin()
        client = self.proxy.client()
        for piece in pieces:
            if client.closing:
                break
            client.feed(piece)
            self._move()
        closed = client.closing or client.eof_written
        if not client.closing:
            client.feed_eof()
        client.lose()
        for end in self._ends:
            if not end.kept and not end.transport.lost:
                end.transport.lose()
        return client, closed

    def _move(self) -> None:
        moved = True
        while moved:
            moved = False
            if self.proxy.connecting:
                self._ends.append(_Endpoint(self.proxy.accept()))
                moved = True
            for end in self._ends:
                moved |= end.move(eager=self.eager)

    def _judge(self, data: bytes, client: MemoryTransport, closed: bool, counted: int) -> Iterator[str]:
        asked = requests_asked(data)
        methods = tuple(message.method or b"GET" for message in asked)
        everything = _answers(client.data, methods, closed)
        got = [
            message for message in everything if message.verdict is Verdict.SOUND and message.name >= b"200"
        ]
        if len(got) != len(everything):
            yield f"the client got {[(message.verdict.value, message.name) for message in everything]}"
        answered: list[bytes] = []
        # What was answered before it had come: its connection is no other request's, and its rest is nobody's.
        early_targets = {
            message.name
            for end in self._ends
            if end.early and not end.kept
            for message in read_requests(end.heard)[-1:]
        }
        refused = False
        for message in asked:
            answer = got.pop(0) if got else None
            target = answer.values(b"x-for") if answer else []
            refused = bool(answer and not target)
            if target and not same_target(message.name, target[0]):
                yield f"{message.name!r} got the answer to {target[0]!r}"
            early = bool(target) and target[0] in early_targets
            if target and not early:
                answered.append(target[0])
            if refused and not (answer and _is_refusal(answer) and closed):
                yield f"{message.name!r} was refused by {answer and (answer.name, answer.fields)}, ended: {closed}"
            if message.verdict is Verdict.SOUND and not target:
                yield f"{message.name!r} is sound and was not answered by the endpoint"
            if message.verdict is Verdict.REFUSED and not refused and not (message.in_body and early):
                yield f"{message.name!r} was to be refused"
            if message.verdict is Verdict.INCOMPLETE and target and not early:
                yield f"{message.name!r} was answered before it was whole"
            ends = bool(answer and answer.values(b"connection") == [b"close"])
            if not target or (early and ends) or not message.persists:
                break
            if closed and message.verdict is not Verdict.SOUND:
                break  # served, and the end of the connection, as it may be
        if got:
            yield f"{len(got)} more answers than requests"
        heard = [end.heard for end in self._ends if end.heard]
        sent = [message for bytes_heard in heard for message in read_requests(bytes_heard)]
        complete = [message.name for message in sent if message.verdict in SURE]
        if complete != answered:
            yield f"the endpoint was sent {complete!r} and answered {answered!r}"
        begun = [message for message in asked if message.in_body or message.verdict is not Verdict.REFUSED]
        if len(sent) > len(begun):
            yield f"{len(begun)} requests made {len(sent)} at the endpoint"
        if counted < len(complete) + refused:
            yield f"{counted} requests were counted"
        for end in self._ends:
            if end.heard:
                yield from misread(end.heard, end.kept, self.readers)


def _is_refusal(answer: Message) -> bool:
    """The proxy's own words, which end the connection."""
    return (
        answer.name in REFUSALS
        and len(answer.values(b"x-sidecar-error")) == 1
        and answer.values(b"connection") == [b"close"]
    )
