"""Nothing that we accept means something else to h11 or httptools, nor does what we send on.

Another program that reads the same bytes and finds another end of a message is how a request is smuggled past
a proxy (RFC 9112 section 11.2). Three properties, of requests, of responses, and of responses to HEAD:

- what is accepted: h11 and httptools read the same messages, or refuse them.
- what goes on: they accept it, and so do we, and it means what came, but for what belongs to one hop.
- the split: pieces of any sizes give the same messages, the same refusal and the same bytes on the other side.

`PERMITTED` lists every exception. The files in `corpus/` are replayed each time: known tricks, sizes at their
bounds, and what was found. A longer run is made by hand, and writes what it finds into the corpus:

    python tests/property/fuzz.py --minutes 10
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.dialects import READERS, Ending, Kind, Message, Ours, Reading, read_ours
from support.messages import inputs

__all__ = ["CORPUS", "KINDS", "check_accepted", "check_split", "check_what_goes_on", "corpus"]

CORPUS = Path(__file__).with_name("corpus")
KINDS = {"requests": (Kind.REQUESTS,), "responses": (Kind.RESPONSES, Kind.HEAD_RESPONSES)}

bounded = settings(
    max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)

# The methods that everybody knows: RFC 9110 9.3 and RFC 5789.
COMMON_METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"PATCH"))


FRAMING = frozenset((b"content-length", b"transfer-encoding"))
NO_TRAILERS = frozenset((b"connection", b"proxy-connection", b"transfer-encoding"))


@dataclass(frozen=True, slots=True)
class Permitted:
    """One difference that may be.

    reader: who differs; about: the attribute of `Message` in which, "ending" (it stops here while we go on), or
    "refused" (it refuses what we send on).
    when: decides by our message. why: what the RFC says.
    """

    reader: str
    about: str
    when: Callable[[Message], bool]
    why: str


def asks_for_upgrade(message: Message) -> bool:
    return b"upgrade" in message.members(b"connection") and bool(message.values(b"upgrade"))


PERMITTED = (
    Permitted(
        "h11",
        "keep_alive",
        lambda message: message.minor == 0 and b"keep-alive" in message.members(b"connection"),
        "RFC 9112 9.3: keep-alive in HTTP/1.0 is for who wishes to honour it; h11 does not",
    ),
    Permitted(
        "httptools",
        "keep_alive",
        lambda message: bool(message.values(b"proxy-connection")),
        "RFC 9112 C.2.2: Proxy-Connection is no field of HTTP; httptools reads it as Connection",
    ),
    Permitted(
        "httptools",
        "keep_alive",
        lambda message: {b"close", b"keep-alive"} <= {*message.members(b"connection")},
        "RFC 9112 9.3: close goes before keep-alive; httptools turns that round for HTTP/1.0",
    ),
    *(
        Permitted(
            "httptools",
            about,
            lambda message: not message.status and asks_for_upgrade(message),
            "RFC 9110 7.8: the request comes to its end before another protocol may begin; httptools leaves "
            "its body and what follows to whoever handles the upgrade",
        )
        for about in ("body", "whole", "trailers", "end", "ending", "keep_alive")
    ),
    *(
        Permitted(
            "httptools",
            about,
            lambda message: 100 <= message.status < 200,
            "RFC 9112 6.3: an interim response ends with its head, whatever its fields say; they are taken out",
        )
        for about in ("body", "whole", "trailers", "end", "keep_alive")
    ),
    *(
        Permitted(
            reader,
            "keep_alive",
            lambda message: message.status == 204 and any(name in FRAMING for name, _ in message.fields),
            "RFC 9110 8.6: nothing may announce a body there; where something does, we do not wait to see it come",
        )
        for reader in ("h11", "httptools")
    ),
    Permitted(
        "httptools",
        "keep_alive",
        lambda message: any(name in NO_TRAILERS for name, _ in message.trailers),
        "RFC 9110 6.5.1: these mean nothing in trailers, and do not go on there; httptools obeys them",
    ),
    Permitted(
        "h11",
        "trailers",
        lambda message: any(name == b"content-length" for name, _ in message.trailers),
        "RFC 9110 6.5.1: Content-Length means nothing in trailers, nor does it go on; h11 makes one of equal ones",
    ),
    Permitted(
        "h11",
        "refused",
        lambda message: re.search(rb"[\x80-\xff]", message.target) is not None,
        "RFC 9112 3.2 lets a recipient refuse it; applications send raw UTF-8, and it cannot be misread",
    ),
    Permitted(
        "httptools",
        "refused",
        lambda message: re.search(rb"[\x80-\xff]", message.target) is not None,
        "the same",
    ),
    Permitted(
        "httptools",
        "refused",
        lambda message: not message.status and message.method not in COMMON_METHODS,
        "RFC 9110 9.1: methods are extensible; httptools knows a list",
    ),
)


def permitted(reader: str, about: str, mine: Message) -> bool:
    return any(row.reader == reader and row.about == about and row.when(mine) for row in PERMITTED)


# What is accepted

HEAD_SAYS = ("method", "target", "status", "minor", "fields")
ALL_SAYS = (*HEAD_SAYS, "body", "trailers", "whole", "end", "keep_alive")


def check_accepted(wire: bytes, kind: Kind) -> None:
    """What we accept, h11 and httptools read as we do, or refuse."""
    ours = read_ours(wire, kind)
    for reader, read in READERS.items():
        heads_only = reader == "httptools" and kind is Kind.HEAD_RESPONSES
        compare(reader, ours, read(wire, kind), heads_only=heads_only)


def compare(reader: str, ours: Reading, theirs: Reading, *, heads_only: bool) -> None:
    """The same messages, as far as both have accepted them."""
    for number, mine in enumerate(ours.messages):
        if number == len(theirs.messages):
            assert theirs.ending is Ending.REFUSED, f"{reader} does not see {mine}: it waits"
            return
        other = theirs.messages[number]
        last_of_theirs = number == len(theirs.messages) - 1
        broken = (
            heads_only
            or (ours.ending is Ending.REFUSED and not mine.whole)
            or (theirs.ending is Ending.REFUSED and not other.whole)
        )
        for about in HEAD_SAYS if broken else ALL_SAYS:
            said, heard = getattr(mine, about), getattr(other, about)
            if about in ("end", "keep_alive") and not (mine.whole and other.whole):
                continue  # they are told at the end
            if said != heard and not permitted(reader, about, mine):
                pytest.fail(f"{reader} reads another {about}: {heard!r}, where we read {said!r} in {mine}")
        if broken:
            longer, shorter = sorted((mine.body, other.body), key=len, reverse=True)
            assert longer.startswith(shorter), f"{reader} reads another body: {other.body!r} in {mine}"
            return
        if (mine.whole, mine.end, mine.keep_alive) != (other.whole, other.end, other.keep_alive):
            return  # as is permitted, and what follows is not comparable
        if theirs.ending is Ending.SWITCHES and last_of_theirs:
            assert ours.ending is Ending.SWITCHES or permitted(reader, "ending", mine), (
                f"{reader} stops: {mine}"
            )
            return
    more = theirs.messages[len(ours.messages) :]
    assert not more or ours.ending is Ending.REFUSED, f"{reader} sees messages where we wait: {more}"


# What goes on

# RFC 9110 7.6.1, and those that are made anew; HTTP2-Settings belongs to Upgrade: h2c (RFC 7540 3.2.1).
OF_ONE_HOP = frozenset(
    (b"close", b"connection", b"http2-settings", b"keep-alive", b"proxy-connection", b"te", b"upgrade")
)
NEVER_NOMINATED = frozenset((b"content-length", b"host", b"transfer-encoding"))


def check_what_goes_on(wire: bytes, kind: Kind) -> None:
    """What we send on means what came, to h11, to httptools and to ourselves."""
    ours = Ours(kind, reframe=True)
    ours.feed(wire)
    for message, sent in zip(ours.messages, ours.finished, strict=True):
        for reader, read in {**READERS, "ours": read_ours}.items():
            heads_only = reader == "httptools" and kind is Kind.HEAD_RESPONSES
            reading = read(sent, kind)
            if reading.ending is Ending.REFUSED:
                assert permitted(reader, "refused", message), f"{reader} refuses {sent!r}: {reading.error}"
                continue
            assert len(reading.messages) == 1, f"{reader} reads {len(reading.messages)} messages in {sent!r}"
            check_meaning(reader, message, reading.messages[0], sent, kind, heads_only=heads_only)


def check_meaning(
    reader: str, came: Message, went: Message, sent: bytes, kind: Kind, *, heads_only: bool
) -> None:
    """One message that came against what a reader makes of the bytes that went on."""
    until_close = lasts_until_close(came, kind)
    left = left_out(came, until_close=until_close)
    expected = [
        ("method", came.method, went.method),
        ("target", origin_form(came), origin_form(went)),
        ("status", came.status, went.status),
        ("minor", 1, went.minor),
        (
            "fields",
            [plainly(*one) for one in came.fields if one[0] not in left],
            [one for one in went.fields if one[0] not in left],
        ),
    ]
    if not heads_only:
        expected += [
            ("body", came.body, went.body),
            ("whole", came.whole or until_close, went.whole),
        ]
        assert went.end == len(sent) or not went.whole, (
            f"{reader} reads another message behind {went.end} in {sent!r}"
        )
        assert is_part(went.trailers, came.trailers), f"{reader} reads other trailers in {sent!r}"
    for about, wanted, found in expected:
        assert wanted == found, (
            f"{reader} reads another {about} in {sent!r}: {found!r}, where came {wanted!r}"
        )


def plainly(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    """The framing fields are written anew: a length without leading zeros, the coding in lower case."""
    if name == b"content-length":
        return name, b"%d" % int(value)
    return name, value.lower() if name == b"transfer-encoding" else value


def lasts_until_close(message: Message, kind: Kind) -> bool:
    """RFC 9112 6.3, the last rule."""
    return (
        kind is Kind.RESPONSES
        and not message.whole
        and not any(name in FRAMING for name, _ in message.fields)
    )


def left_out(came: Message, *, until_close: bool) -> frozenset[bytes]:
    """Names of fields that need not go on as they came."""
    left = OF_ONE_HOP | (frozenset(came.members(b"connection")) - NEVER_NOMINATED)
    if came.status:
        if came.status < 200 or came.status == 204:
            left |= FRAMING  # RFC 9112 6.1 and RFC 9110 8.6 forbid them there
        return left | {b"transfer-encoding"} if until_close else left
    if came.method in (b"TRACE", b"OPTIONS"):
        left |= {b"max-forwards"}  # RFC 9110 7.6.2: one less
    if not came.minor:
        left |= {b"expect"}  # RFC 9110 10.1.1: to be ignored
        if not came.values(b"host"):
            left |= {b"host"}  # HTTP/1.1 needs one
    return left


def origin_form(message: Message) -> bytes:
    """The target as an endpoint is sent it (RFC 9112 3.2.1, and 3.2.4 for OPTIONS)."""
    match = re.fullmatch(rb"https?://[^/?#]*(.*)", message.target, re.IGNORECASE | re.DOTALL)
    if match is None:
        return message.target
    if not match[1]:
        return b"*" if message.method == b"OPTIONS" else b"/"
    return match[1] if match[1].startswith(b"/") else b"/" + match[1]


def is_part(some: Sequence[object], whole: Iterable[object]) -> bool:
    """Whether `some` is in `whole`, in order."""
    rest = iter(whole)
    return all(one in rest for one in some)


# The split


def check_split(wire: bytes, kind: Kind, cuts: Sequence[int]) -> None:
    """Whole, cut and byte by byte come to the same."""
    whole = received(kind, [wire])
    finest = received(kind, (wire[at : at + 1] for at in range(len(wire))))
    ends = sorted({*cuts, len(wire)})
    pieces = [wire[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    for other in (finest, received(kind, pieces)):
        assert outcome(other) == outcome(whole), f"{outcome(other)} in pieces, {outcome(whole)} whole"
        assert other.forwarded == whole.forwarded


def received(kind: Kind, pieces: Iterable[bytes]) -> Ours:
    ours = Ours(kind)
    for piece in pieces:
        ours.feed(piece)
    return ours


def outcome(ours: Ours) -> tuple[object, ...]:
    """All that was made of the bytes, but for how much of a body had come before it was refused."""
    heads = [tuple(getattr(message, about) for about in HEAD_SAYS) for message in ours.messages]
    whole = [message for message in ours.messages if ours.ending is not Ending.REFUSED or message.whole]
    error = ours.error
    refusal = error and (error.status, error.reason, str(error))
    return heads, whole, ours.ending, refusal


# The tests

every_kind = pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.name.lower())


@every_kind
@bounded
@given(data=st.data())
def test_what_we_accept_means_the_same_to_others(kind: Kind, data: st.DataObject) -> None:
    check_accepted(data.draw(inputs(kind)), kind)


@every_kind
@bounded
@given(data=st.data())
def test_what_goes_on_means_what_came(kind: Kind, data: st.DataObject) -> None:
    check_what_goes_on(data.draw(inputs(kind)), kind)


@every_kind
@bounded
@given(data=st.data())
def test_any_split_comes_to_the_same(kind: Kind, data: st.DataObject) -> None:
    wire = data.draw(inputs(kind))
    check_split(wire, kind, data.draw(st.lists(st.integers(0, len(wire)), max_size=6)))


def corpus() -> Iterator[tuple[Path, Kind]]:
    """Every kept input, with what it is to be read as."""
    for folder, kinds in KINDS.items():
        for path in sorted((CORPUS / folder).iterdir()):
            yield from ((path, kind) for kind in kinds)


@pytest.mark.parametrize(
    ("path", "kind"),
    [pytest.param(path, kind, id=f"{kind.name.lower()}-{path.name}") for path, kind in corpus()],
)
def test_the_corpus(path: Path, kind: Kind) -> None:
    wire = path.read_bytes()
    check_accepted(wire, kind)
    check_what_goes_on(wire, kind)
    check_split(wire, kind, range(0, len(wire), 7))
