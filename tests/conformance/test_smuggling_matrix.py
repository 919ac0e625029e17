"""Every pair of framing headers and their obfuscations, through the whole data path in memory.

As many requests as the client has sent reach the endpoint, whoever reads there (see `bench`).
"""

from collections.abc import Iterator
from itertools import product

import pytest
from support.lenient import PERSONALITIES, Personality

from conformance.bench import Bench
from conformance.forms import (
    BODIES,
    CHUNKS,
    CODINGS,
    HIDDEN,
    LENGTHS,
    REQUESTS,
    UNDERSCORED,
    WRONG_HOSTS,
    framed,
    request,
)

SHOWN = 5  # complaints of one test; the rest is counted


@pytest.fixture
def bench() -> Iterator[Bench]:
    """An endpoint that answers what is whole."""
    made = Bench()
    yield made
    made.finish()


@pytest.fixture
def eager() -> Iterator[Bench]:
    """An endpoint that answers at the end of a head, whatever follows."""
    made = Bench(eager=True)
    yield made
    made.finish()


def none(complaints: list[str]) -> None:
    """Fail with the first complaints."""
    assert not complaints, f"{len(complaints)} complaints\n" + "\n".join(complaints[:SHOWN])


def cut(data: bytes) -> list[bytes]:
    """The head alone, then the rest in pieces that end within size lines and line ends."""
    end = data.find(b"\r\n\r\n") + 4
    if end < 4:
        return [data[:9], data[9:]]
    return [piece for piece in (data[:end], data[end : end + 1], data[end + 1 : -2], data[-2:]) if piece]


# The order of the two headers, version, method, and whether the bytes come cut, to an eager endpoint.
VARIANTS = [*product((0, 1), (b"1.1", b"1.0"), (b"POST", b"GET"), (False, True))]


# Those without a hidden request are left to the classic pairs, but for one of each framing.
MATRIX_BODIES = [body for body in BODIES if body not in ("none", "chunked, broken off")]


def pair_of(length: str, coding: str, body: str, variant: int) -> tuple[bytes, bool]:
    """A request with these two, and whether its bytes are to come cut."""
    order, version, method, pieces = VARIANTS[variant]
    lines = [LENGTHS[length], CODINGS[coding]]
    both = framed(b"".join(reversed(lines) if order else lines), BODIES[body])
    return request(both, BODIES[body].data, method=method, version=version), pieces


@pytest.mark.parametrize("length", LENGTHS)
def test_every_length_with_every_coding_and_every_body(bench: Bench, eager: Bench, length: str) -> None:
    """The variants take turns: each pair meets half of them, each length and each coding all with each body."""
    complaints: list[str] = []
    row = list(LENGTHS).index(length)
    for (column, coding), (layer, body) in product(enumerate(CODINGS), enumerate(MATRIX_BODIES)):
        data, pieces = pair_of(length, coding, body, (row + 3 * column + 2 * layer) % len(VARIANTS))
        complaints += eager.run(*cut(data)) if pieces else bench.run(data)
    none(complaints)


# Those that are valid, and those that have fooled most servers.
CLASSIC_LENGTHS = (
    "absent",
    "right",
    "up to the hidden request",
    "too long",
    "twice the same",
    "a list, right last",
    "plus",
    "a leading zero",
    "a blank before the colon",
    "nominated in Connection",
)
CLASSIC_CODINGS = (
    "absent",
    "chunked",
    "tabs",
    "twice",
    "a list, identity first",
    "x-chunked",
    "a blank before the colon",
    "vertical tab before",
    "behind a bare LF",
    "nominated in Connection",
)


@pytest.mark.parametrize("length", CLASSIC_LENGTHS)
def test_classic_pairs_in_every_variant(bench: Bench, eager: Bench, length: str) -> None:
    complaints: list[str] = []
    for coding, body, variant in product(CLASSIC_CODINGS, BODIES, range(len(VARIANTS))):
        data, pieces = pair_of(length, coding, body, variant)
        complaints += eager.run(*cut(data)) if pieces else bench.run(data)
    none(complaints)


@pytest.mark.parametrize("group", sorted({name.partition(":")[0] for name in CHUNKS}))
def test_every_liberty_with_chunks(bench: Bench, eager: Bench, group: str) -> None:
    complaints: list[str] = []
    for name, body in CHUNKS.items():
        if name.partition(":")[0] == group:
            data = request(CODINGS["chunked"], body)
            complaints += bench.run(data)
            complaints += bench.run(*cut(data))
            complaints += eager.run(*cut(data))
            complaints += bench.run(*[data[at : at + 1] for at in range(min(len(data), 400))], data[400:])
    none(complaints)


@pytest.mark.parametrize("group", sorted({name.partition(":")[0] for name in REQUESTS}))
def test_every_liberty_with_the_rest_of_a_head(bench: Bench, eager: Bench, group: str) -> None:
    complaints: list[str] = []
    for name, data in REQUESTS.items():
        if name.partition(":")[0] == group:
            complaints += bench.run(data)
            complaints += bench.run(*cut(data))
            complaints += eager.run(*cut(data))
    none(complaints)


def raw() -> Iterator[bytes]:
    """What clients send, as an endpoint would get it with no proxy between."""
    yield from REQUESTS.values()
    for body in CHUNKS.values():
        yield request(CODINGS["chunked"], body)
    for coding, length, body in product(
        CODINGS, LENGTHS, ("plain, hiding", "chunked to its end, hidden behind")
    ):
        yield pair_of(length, coding, body, 0)[0]


def test_every_reader_is_fooled_without_a_proxy() -> None:
    """Each reads some of these bytes otherwise than the plain one does, so that its agreement above says something."""
    plain, agreeing = PERSONALITIES[0], PERSONALITIES[1:]
    for data in raw():
        agreeing = [reader for reader in agreeing if reader.requests(data) == plain.requests(data)]
        if not agreeing:
            break
    assert not agreeing, list(map(str, agreeing))


def judged(bench: Bench, data: bytes) -> None:
    """One case alone."""
    complaints = list(bench.run(data))
    bench.finish()
    none(complaints)


# What is valid, or harmless by default, and yet read otherwise by somebody: refused, or written anew.


@pytest.mark.parametrize(
    ("winner", "lines", "body_name"),
    [
        ("te", LENGTHS["right"] + UNDERSCORED["coding"], "chunked to its end, hidden behind"),
        ("cl", CODINGS["chunked"] + UNDERSCORED["length up to the hidden request"], "chunked, hiding"),
        ("te", UNDERSCORED["length in full"], "plain"),
    ],
    ids=["a length, Transfer_Encoding", "a coding, Content_Length", "Content_Length alone"],
)
def test_names_with_underscores_are_framing_to_nobody(winner: str, lines: bytes, body_name: str) -> None:
    """nginx drops such names by default; CGI, WSGI and their like cannot tell them from the real ones."""
    bench = Bench(Personality(underscore=True, winner=winner))
    body = BODIES[body_name]
    judged(bench, request(framed(lines, body), body.data))


@pytest.mark.parametrize("bits", [32, 31])
def test_sizes_of_chunks_fit_in_32_bits(bits: int) -> None:
    """HAProxy, Envoy and nginx write chunks anew. Such a size, and a reader that counts with 32 bits."""
    body = b"%x\r\n" % ((1 << 32) + 5) + b"hello\r\n0\r\n\r\n" + HIDDEN
    judged(Bench(Personality(bits=bits)), request(CODINGS["chunked"], body))


def test_a_length_has_one_base() -> None:
    """010 is eight to who lets C guess the base."""
    body = BODIES["plain"]
    judged(Bench(Personality(length="octal")), request(framed(LENGTHS["a leading zero"], body), body.data))


def test_a_coding_has_one_spelling() -> None:
    """CHUNKED is no coding at all to who compares bytes."""
    lines = b"Transfer-Encoding: Chunked\r\n"
    judged(Bench(Personality(coding="case")), request(lines, BODIES["chunked, hiding"].data))


@pytest.mark.parametrize("host", WRONG_HOSTS.values(), ids=WRONG_HOSTS)
def test_a_host_that_is_none_is_refused(host: bytes) -> None:
    """RFC 9112 3.2 asks for 400."""
    judged(Bench(), b"GET /first HTTP/1.1\r\n%b\r\n" % host)
