"""The same from the other side: an endpoint's answer is one answer, to whoever reads it, and poisons no other."""

from collections.abc import Iterator
from functools import lru_cache
from itertools import product

import pytest
from support.lenient import PERSONALITIES
from support.rfc9112 import Message, Verdict, read_responses
from support.transports import MemoryTransport
from unit.proxy.harness import Proxy

from conformance.bench import answer_to, canary
from conformance.forms import BODIES, CODINGS, LENGTHS, RESPONSE, Body, bodies, chunked_bodies, framed

SHOWN = 5  # complaints of one test; the rest is counted
CASES_PER_PROXY = 20  # the harness keeps every transport, and looks through all of them
HIDING = bodies(RESPONSE)
BROKEN = (Verdict.REFUSED, Verdict.INCOMPLETE)


def final(messages: list[Message]) -> list[Message]:
    """Without the interim ones."""
    return [message for message in messages if not message.name.startswith(b"1")]


def _ambiguous(message: Message) -> bool:
    """Whether more may come of it; 204 has a test of its own."""
    return message.verdict is Verdict.AMBIGUOUS and message.name != b"204"


@lru_cache(maxsize=4096)
def _misread(data: bytes, bodiless: bool, seen: tuple[bytes, ...]) -> tuple[str, ...]:
    """The first reader at a client's place who does not see these statuses."""
    for reader in PERSONALITIES:
        sight = reader.responses(data, bodiless=bodiless)
        if sight.begun != seen:
            return (f"a reader [{reader}] sees {sight.begun!r}, not {seen!r}",)
    return ()


class Bench:
    """One proxy; every case is one exchange, and another client's behind it."""

    def __init__(self) -> None:
        self.cases = 0
        self._fresh()

    def _fresh(self) -> None:
        self.proxy = Proxy(breaker_threshold=1 << 30, breaker_failure_rate=0.0, retries=0)

    def finish(self) -> None:
        """Everybody leaves; nothing may be left in the proxy's books."""
        self.proxy.begun = sum(self.proxy.cluster.stats.requests)  # each was begun, as each is a good request
        self.proxy.finish()

    def run(
        self, response: bytes, method: bytes = b"GET", *, cut_at: int = 0, closes: bool = True
    ) -> Iterator[str]:
        """An endpoint answers with these bytes, in one or two pieces, and may close: complaints."""
        self.cases += 1
        if self.cases % CASES_PER_PROXY == 0:
            self.finish()
            self._fresh()
        proxy = self.proxy
        client = proxy.client(b"%b /first HTTP/1.1\r\nHost: x\r\n\r\n" % method)
        endpoint = proxy.accept() if proxy.connecting else proxy.busy[-1]
        endpoint.taken()
        for piece in filter(None, (response[:cut_at], response[cut_at:])):
            if not endpoint.closing:
                endpoint.feed(piece)
        kept = not endpoint.closing
        if kept and closes:
            endpoint.lose()
        complaints = [*self._judge(response, method, client, kept, closes)]
        ended = client.closing or client.eof_written
        if not client.closing:
            client.feed_eof()
        client.lose()
        if endpoint.closing and not endpoint.lost:
            endpoint.lose()
        complaints += self._next(endpoint)
        for what in complaints:
            yield (
                f"{what}\n  answer to {method.decode()}: {response!r}\n"
                f"  client got: {client.data!r}, ended: {ended}, broken off: {client.aborted}"
            )

    def _judge(
        self, response: bytes, method: bytes, client: MemoryTransport, kept: bool, closes: bool
    ) -> Iterator[str]:
        came = read_responses(response, method, closed=closes)
        got = read_responses(client.data, method)
        answers = final(got)
        if any(message.name == b"101" for message in came):
            yield from self._refused(got, kept)  # nobody has asked for another protocol
            return
        asked = final(came)
        message = asked[0] if asked else Message(b"", Verdict.REFUSED, 0, 0)
        own = bool(answers and answers[0].values(b"x-sidecar-error"))
        promised = any(one.name.startswith(b"1") and one.verdict is Verdict.AMBIGUOUS for one in came)
        refused = message.verdict is Verdict.REFUSED and not message.in_body
        if refused or (promised and own):  # an interim response that announces a body may be refused
            yield from self._refused(got, kept)
        elif message.verdict in BROKEN or (message.verdict is not Verdict.SOUND and client.aborted):
            if own:
                yield from self._refused(got, kept)
            elif client.data and got[-1].verdict is not Verdict.INCOMPLETE:
                yield f"what is {message.verdict.value} became {got[-1].verdict.value}"
            elif (closes or message.verdict is Verdict.REFUSED) and not client.aborted:
                yield "the broken answer was not broken off"
            elif kept and message.verdict is Verdict.REFUSED:
                yield "the endpoint's connection was kept"
        elif own and message.verdict is not Verdict.SOUND:
            yield from self._refused(got, kept)
        elif len(answers) != 1 or answers[0].verdict not in (Verdict.SOUND, message.verdict):
            yield f"the client got {[(answer.verdict.value, answer.name) for answer in answers]}"
        elif (answers[0].name, answers[0].body) != (message.name, message.body):
            yield f"{message.name!r} {message.body!r} became {answers[0].name!r} {answers[0].body!r}"
        if kept and (len(asked) > 1 or _ambiguous(message)):
            yield "the endpoint's connection was kept"
        seen = tuple(message.name for message in got)
        yield from _misread(client.data, method == b"HEAD", seen)

    def _refused(self, got: list[Message], kept: bool) -> Iterator[str]:
        answers = final(got)
        if len(answers) != 1 or (answers[0].verdict, answers[0].name) != (Verdict.SOUND, b"502"):
            yield f"no 502: {[(answer.verdict.value, answer.name) for answer in answers]}"
        if kept:
            yield "the endpoint's connection was kept"

    def _next(self, before: MemoryTransport) -> Iterator[str]:
        """Another client's request, over whatever connection there is now."""
        proxy = self.proxy
        client = proxy.client(canary())
        endpoint = proxy.accept() if proxy.connecting else proxy.busy[-1]
        if before.closing and endpoint is before:
            yield "a closed connection was used again"
        endpoint.taken()
        endpoint.feed(answer_to(b"/canary"))
        if client.data != answer_to(b"/canary"):
            yield f"the next client got {client.data!r}"
        client.feed_eof()
        client.lose()
        if endpoint.closing and not endpoint.lost:
            endpoint.lose()


@pytest.fixture
def bench() -> Iterator[Bench]:
    """Looks for leaks at its end."""
    made = Bench()
    yield made
    made.finish()


def none(complaints: list[str]) -> None:
    """Fail with the first complaints."""
    assert not complaints, f"{len(complaints)} complaints\n" + "\n".join(complaints[:SHOWN])


def answer(lines: bytes, body: bytes, status: bytes = b"HTTP/1.1 200 OK") -> bytes:
    """One response. lines: header lines with their ends."""
    return b"%b\r\n%b\r\n%b" % (status, lines, body)


ROWS = [name for name in LENGTHS if name != "18 digits"]  # which would be waited for, as it is valid
STATUSES = (
    (b"HTTP/1.1 200 OK", b"GET"),
    (b"HTTP/1.1 200 OK", b"HEAD"),
    (b"HTTP/1.0 200 OK", b"GET"),
    (b"HTTP/1.1 204 No Content", b"GET"),
    (b"HTTP/1.1 304 Not Modified", b"GET"),
)


@pytest.mark.parametrize("length", ROWS)
def test_every_length_with_every_coding(bench: Bench, length: str) -> None:
    complaints: list[str] = []
    row = ROWS.index(length)
    for column, coding in enumerate(CODINGS):
        turn = row + column
        body: Body = list(HIDING.values())[(row + 3 * column) % len(HIDING)]
        status, method = STATUSES[turn % len(STATUSES)]
        lines = [LENGTHS[length], CODINGS[coding]]
        data = answer(framed(b"".join(reversed(lines) if turn % 2 else lines), body), body.data, status)
        head = data.find(b"\r\n\r\n") + 4
        complaints += bench.run(data, method, cut_at=head if turn % 3 else 0)
    none(complaints)


@pytest.mark.parametrize(
    "group", ["size", "last size", "extension", "extension of the last", "end", "trailer"]
)
def test_every_liberty_with_chunks(bench: Bench, group: str) -> None:
    complaints: list[str] = []
    for name, body in chunked_bodies(RESPONSE).items():
        if name.partition(":")[0].startswith(group):
            data = answer(CODINGS["chunked"], body)
            for cut_at in (0, data.find(b"\r\n\r\n") + 4, len(data) - 1):
                complaints += bench.run(data, cut_at=cut_at)
    none(complaints)


STARTS = {
    "HTTP/2.0": b"HTTP/2.0 200 OK",
    "HTTP/1.2": b"HTTP/1.2 200 OK",
    "HTTP/0.9": b"HTTP/0.9 200 OK",
    "no version": b"200 OK",
    "another protocol": b"ICY 200 OK",
    "lower case": b"http/1.1 200 OK",
    "no reason": b"HTTP/1.1 200 ",
    "no reason and no blank": b"HTTP/1.1 200",
    "no status": b"HTTP/1.1 OK",
    "two digits": b"HTTP/1.1 20 OK",
    "four digits": b"HTTP/1.1 2000 OK",
    "a letter": b"HTTP/1.1 2O0 OK",
    "a minus": b"HTTP/1.1 -20 OK",
    "600": b"HTTP/1.1 600 What",
    "000": b"HTTP/1.1 000 What",
    "two blanks": b"HTTP/1.1  200 OK",
    "a tab": b"HTTP/1.1\t200 OK",
    "a NUL": b"HTTP/1.1 200 O\x00K",
    "a bare LF": b"HTTP/1.1 200 OK\nX: y",
    "a bare CR": b"HTTP/1.1 200 OK\rX: y",
    "a bare LF and a response": b"HTTP/1.1 200 OK\n\nHTTP/1.1 299 Smuggled",
    "a blank before": b" HTTP/1.1 200 OK",
    "an empty line before": b"\r\nHTTP/1.1 200 OK",
    "100 before": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK",
    "100 with a length before": b"HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\nHTTP/1.1 200 OK",
    "103 with a coding before": b"HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\nHTTP/1.1 200 OK",
    "100 and a blank line too many": b"HTTP/1.1 100 Continue\r\n\r\n\r\nHTTP/1.1 200 OK",
    "101": b"HTTP/1.1 101 Switching Protocols",
    "101 with Upgrade": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c",
    "a line without a colon": b"HTTP/1.1 200 OK\r\nX",
    "a line without a name": b"HTTP/1.1 200 OK\r\n: y",
    "a folded line": b"HTTP/1.1 200 OK\r\nX: y\r\n z",
    "a folded line first": b"HTTP/1.1 200 OK\r\n X: y",
    "a blank before a colon": b"HTTP/1.1 200 OK\r\nX : y",
    "Connection names the length": b"HTTP/1.1 200 OK\r\nConnection: Content-Length, Transfer-Encoding",
    "Connection: close": b"HTTP/1.1 200 OK\r\nConnection: close",
    "Host": b"HTTP/1.1 200 OK\r\nHost: a\r\nHost: b",
}


@pytest.mark.parametrize("name", STARTS)
def test_every_liberty_with_the_rest_of_a_head(bench: Bench, name: str) -> None:
    complaints: list[str] = []
    length = b"Content-Length: %d\r\n" % len(RESPONSE)
    for lines, body in (
        (length, RESPONSE),
        (length, RESPONSE + RESPONSE),
        (b"Content-Length: 0\r\n", RESPONSE),
        (CODINGS["chunked"], HIDING["chunked, hiding"].data),
        (CODINGS["chunked"], HIDING["chunked to its end, hidden behind"].data),
        (b"", RESPONSE),
    ):
        for method, cut_at in product((b"GET", b"HEAD"), (0, 9)):
            complaints += bench.run(answer(lines, body, STARTS[name]), method, cut_at=cut_at)
    none(complaints)


@pytest.mark.parametrize(
    "what", [RESPONSE, b"\r\n", b"HTTP/1.1 299", b"\x00"], ids=["whole", "blank", "begun", "NUL"]
)
@pytest.mark.parametrize("when", ["with it", "after it"])
def test_an_answer_that_nobody_asked_for_goes_to_nobody(bench: Bench, what: bytes, when: str) -> None:
    """Behind a whole answer, in the same read or once the connection is idle."""
    first = answer_to(b"/first")
    if when == "with it":
        none([*bench.run(first + what, closes=False)])
        return
    proxy = bench.proxy
    assert proxy.exchange(canary(b"/first"), first) == first
    (idle,) = proxy.upstreams
    idle.feed(what)
    assert idle.closing
    none([*bench._next(idle)])


@pytest.mark.parametrize("upgrade", ["websocket", "h2c"])
def test_behind_101_no_connection_is_used_again(bench: Bench, upgrade: str) -> None:
    """Where an upgrade is passed on and agreed to, what follows belongs to that client; else it is 502."""
    proxy = bench.proxy
    lines = b"Connection: upgrade\r\nUpgrade: %b\r\n" % upgrade.encode()
    client = proxy.client(b"GET /first HTTP/1.1\r\nHost: x\r\n%b\r\n" % lines)
    endpoint = proxy.accept()
    passed_on = b"upgrade" in endpoint.taken().lower()
    assert not (passed_on and upgrade == "h2c"), "h2c would hide its requests from the proxy"
    endpoint.feed(answer(lines, RESPONSE, b"HTTP/1.1 101 Switching Protocols"))
    if passed_on:
        assert client.data.startswith(b"HTTP/1.1 101 ")
        assert client.data.endswith(b"\r\n\r\n" + RESPONSE)
    else:
        (refused,) = read_responses(client.data, b"GET")
        assert refused.name == b"502"
        assert endpoint.closing
    if not client.closing:
        client.feed_eof()
        client.closing = True
    proxy.settle()
    another = proxy.client(canary())
    second = proxy.accept()
    assert second is not endpoint
    second.feed(answer_to(b"/canary"))
    assert another.data == answer_to(b"/canary")


@pytest.mark.parametrize("lines", [b"Content-Length: 44\r\n", CODINGS["chunked"]], ids=["length", "chunked"])
def test_behind_a_204_with_a_body_to_come_no_connection_is_used_again(bench: Bench, lines: bytes) -> None:
    """Such a body comes too late to be noticed, and would answer the next request."""
    proxy = bench.proxy
    client = proxy.client(canary(b"/first"))
    endpoint = proxy.accept()
    endpoint.feed(answer(lines, b"", b"HTTP/1.1 204 No Content"))
    assert client.data == b"HTTP/1.1 204 No Content\r\n\r\n"
    assert endpoint.closing


def test_the_shapes_of_bodies_hide_a_response() -> None:
    """As those of requests hide a request."""
    assert {name for name, body in HIDING.items() if RESPONSE in body.data} == {
        name for name, body in BODIES.items() if b"/smuggled" in body.data
    }
