"""However the bytes are split on their way, both sides get the same ones (architecture, rule 8).

Valid or not: a response that turns out to be none breaks off at the same byte, and a request whose body is none
gets the same refusal (how much of it an endpoint had got before depends on when its connection was there).

A body that lasts until close is left out for HTTP/1.1 clients: it is framed in chunks as it comes, so its
framing, and nothing else, follows the split.
"""

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st
from unit.proxy.harness import Proxy, chunked, ok, request


@dataclass(frozen=True)
class Asked:
    """One request and what an endpoint answers. ends: by closing its connection. early: comes with the request's
    end, for the protocol that both switch to."""

    request: bytes
    response: bytes
    ends: bool = False
    early: bytes = b""


@dataclass(frozen=True)
class Seen:
    """What came out: at the client, at the endpoints request by request, and in the counters."""

    client: bytes
    requests: list[bytes]
    counted: list[tuple[str, str, str, int]]
    closed: bool


bodies = st.binary(max_size=40) | st.sampled_from([b"", b"\r\n\r\n", b"0\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"])
fields = st.lists(
    st.sampled_from(
        [
            "X-A: 1",
            "x-a:  2 ",
            "Cookie: a=b",
            "Connection: keep-alive, X-A",
            "TE: trailers",
            "Trailer: X-Checksum",
            "Expect: 100-continue",
        ]
    ),
    max_size=3,
    unique=True,
).map(sorted)
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
TRAILER = b"3;ext=1\r\nabc\r\n0\r\nX-Checksum: 1\r\nContent-Length: 9\r\nX-Unsaid: 1\r\n\r\n"
UPGRADE = ("Upgrade: foo", "Connection: upgrade")
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: foo\r\nConnection: Upgrade\r\n\r\n"
BROKEN_BODIES = (
    b"3\r\nabc\r\nx\r\n",
    b"3\r\nabcd\r\n",
    b"3;\r\n",
    b"3\r\nabc\r\n0\r\nA : 1\r\n\r\n",
    b"3\nabc",
)
BROKEN_HEADS = (
    b"HTTP/1.1 200 OK\r\nA : 1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA: 1\nB: 2\r\n\r\n",
    b"HTTP/1.1 2000 OK\r\n\r\n",
    b"ICY 200 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: bar\r\nConnection: Upgrade\r\n\r\n",
)


@st.composite
def pairs(draw: st.DrawFn) -> Asked:
    """A request of HTTP/1.1 and its response."""
    extra = draw(fields)
    body = draw(bodies)
    asked = draw(
        st.sampled_from(
            [
                request("GET /a?b", *extra),
                request("HEAD /", *extra),
                request("POST /%2F", *extra, f"Content-Length: {len(body)}", body=body),
                request(
                    "PUT /", "Transfer-Encoding: chunked", *extra, body=chunked(*filter(None, [body, b"x"]))
                ),
                request("POST /", "Transfer-Encoding: chunked", *extra, body=TRAILER),
                b"\r\n" + request("BREW /"),
                request("GET /", "Upgrade: foo", *extra),
                request("GET http://localhost:8080/a", *extra),
            ]
        )
    )
    if asked.startswith(b"HEAD"):
        return Asked(asked, ok(b"", "Content-Length: 77", length=False))
    answers = [
        ok(body),
        ok(body, "Connection: close", "X-B: 1"),
        ok(chunked(*filter(None, [body, b"y" * 20])), "Transfer-Encoding: chunked", length=False),
        ok(TRAILER, "Transfer-Encoding: chunked", length=False),
        ok(b"", status="204 No Content", length=False),
        ok(b"", "Content-Length: 9", status="304 Not Modified", length=False),
        ok(body, status="500 "),
    ]
    return Asked(asked, draw(st.sampled_from([b"", HINTS, HINTS * 2])) + draw(st.sampled_from(answers)))


@st.composite
def last_pairs(draw: st.DrawFn) -> Asked:
    """A request after which the connection ends, also of HTTP/1.0."""
    body = draw(bodies)
    asked = draw(
        st.sampled_from(
            [
                request("GET /", version="1.0"),
                request(
                    "POST /", "Content-Length: 5", "Connection: Keep-Alive", version="1.0", body=b"abcde"
                ),
            ]
        )
    )
    answers = [
        Asked(asked, ok(body)),
        Asked(asked, ok(chunked(*filter(None, [body, b"z"])), "Transfer-Encoding: chunked", length=False)),
        Asked(asked, ok(body, length=False), ends=True),
        Asked(request("GET /", "Connection: close"), ok(body)),
        Asked(request("GET /", *UPGRADE), SWITCHED + body, early=draw(bodies)),
        Asked(request("GET /"), ok(draw(st.sampled_from(BROKEN_BODIES)), CHUNKED, length=False)),
        Asked(request("GET /"), draw(st.sampled_from([b"", HINTS])) + draw(st.sampled_from(BROKEN_HEADS))),
    ]
    return draw(st.sampled_from(answers))


CHUNKED = "Transfer-Encoding: chunked"
REFUSED = st.sampled_from(
    [
        b"",
        b"",
        b"no request\r\n\r\n",
        b"GET / HTTP/3.0\r\nHost: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        request("GET http://elsewhere/"),
        request("POST /", CHUNKED, "Content-Length: 3", body=b"abc"),
        b"\r\n" * 17 + request(),
        *[request("POST /", CHUNKED, body=body) for body in BROKEN_BODIES],
    ]
)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """`data` in pieces that end at `places`, taken modulo its length."""
    ends = sorted({place % (len(data) + 1) for place in places} | {len(data)})
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False) if end > start]


def run(
    pairs: list[Asked],
    refused: bytes = b"",
    client_cuts: list[int] | None = None,
    endpoint_cuts: list[int] | None = None,
    turns: list[bool] | None = None,
    whole: Seen | None = None,
) -> Seen:
    """One client's conversation, its bytes and the endpoints' cut at the given places.

    refused: what follows the requests and is none.
    turns: whether the client goes on before the next piece of a response, where it could.
    whole: what the unsplit run saw: it tells when a request has come completely; None makes that run.
    """
    proxy = Proxy()
    client = proxy.client()
    to_send = cut(b"".join(pair.request + pair.early for pair in pairs) + refused, client_cuts or [])
    turns = list(turns or [])
    requests: list[bytes] = []
    for number, pair in enumerate(pairs):
        size = 1 if whole is None else len(whole.requests[number]) - len(pair.early)
        so_far = b""
        while True:
            if proxy.connecting:
                proxy.accept()
            so_far += b"".join(endpoint.taken() for endpoint in proxy.busy)
            if len(so_far) >= size:
                break
            client.feed(to_send.pop(0))
        requests.append(so_far)
        endpoint = proxy.busy[0]
        for piece in cut(pair.response, endpoint_cuts or []):
            if to_send and turns and turns.pop():
                client.feed(to_send.pop(0))
            if not endpoint.closing:
                endpoint.feed(piece)
        if pair.early:
            client.feed(*to_send)
            to_send.clear()
            requests[-1] += endpoint.taken()
        if pair.ends:
            endpoint.lose()
    for piece in to_send:
        client.feed(piece)
    seen = Seen(client.data, requests, proxy.counted, client.closing or client.eof_written)
    # What is wrong in a body shows when an exchange has begun, or before, as the bytes were cut.
    proxy.refusals = len(pairs) + bool(refused) - proxy.begun
    proxy.finish()
    return seen


@settings(deadline=None, max_examples=150)
@given(
    first=st.lists(pairs(), max_size=4),
    last=st.lists(last_pairs(), max_size=1),
    refused=REFUSED,
    client_cuts=st.lists(st.integers(0, 2000), max_size=30),
    endpoint_cuts=st.lists(st.integers(0, 300), max_size=10),
    turns=st.lists(st.booleans(), max_size=20),
)
def test_any_split_gives_the_same_bytes(
    first: list[Asked],
    last: list[Asked],
    refused: bytes,
    client_cuts: list[int],
    endpoint_cuts: list[int],
    turns: list[bool],
) -> None:
    pairs = first + last
    if last:
        refused = b""  # nobody would look at it
    whole = run(pairs, refused)

    assert run(pairs, refused, client_cuts, endpoint_cuts, turns, whole) == whole
    assert whole.closed or not refused
    assert sum(count for *_, count in whole.counted) == len(pairs) + bool(refused)


def test_every_single_byte_alone_gives_the_same_bytes() -> None:
    """The extreme, always."""
    pairs = [
        Asked(request("GET /", "X-A: 1"), HINTS + ok(b"hello")),
        Asked(
            request("POST /", "Transfer-Encoding: chunked", body=TRAILER),
            ok(TRAILER, "Transfer-Encoding: chunked", length=False),
        ),
        Asked(request("POST /", "Content-Length: 3", body=b"abc"), ok(b"", "Connection: close")),
        Asked(
            request("GET /", version="1.0"),
            ok(chunked(b"ab", b"c"), "Transfer-Encoding: chunked", length=False),
        ),
    ]
    every = list(range(2000))
    whole = run(pairs)
    assert run(pairs, b"", every, every, [], whole) == whole


def early(
    request_so_far: bytes, answer: bytes, cuts: list[int], rest: bytes, ends: bool
) -> tuple[object, ...]:
    """What a client gets whose request is answered before its end, and what it is then told of what follows."""
    proxy = Proxy()
    client = proxy.client(request_so_far)
    endpoint = proxy.accept()
    for piece in cut(answer, cuts):
        if not endpoint.closing:
            endpoint.feed(piece)
    if ends and not endpoint.closing:
        endpoint.feed_eof()
    answered = client.data
    client.feed(rest)
    proxy.settle()
    proxy.refusals = sum(proxy.cluster.stats.requests) - 1
    seen = (
        answered,
        client.data,
        client.closing,
        client.eof_written,
        client.aborted,
        endpoint.closing,
        proxy.counted,
    )
    proxy.finish()
    return seen


@settings(deadline=None, max_examples=150)
@given(
    asked=st.sampled_from(
        [
            request("POST /", "Content-Length: 5", body=b"a"),
            request("POST /", "Content-Length: 5", "Expect: 100-continue"),
            request("POST /", "Content-Length: 100000", body=b"a"),
            request("POST /", CHUNKED, body=b"1\r\na\r\n"),
            request("POST /", "Content-Length: 5", "Connection: close", body=b"a"),
        ]
    ),
    answer=st.sampled_from(
        [
            ok(b"no", status="401 Unauthorized"),
            ok(b"yes"),
            ok(chunked(b"ab", b"c"), CHUNKED, length=False),
            HINTS + ok(b"", status="204 No Content", length=False),
            ok(b"2\r\nokx", CHUNKED, length=False),
            ok(b"more") + b"POISON",
        ]
    ),
    cuts=st.lists(st.integers(0, 300), max_size=10),
    rest=st.sampled_from([b"bcde", b"bcdeGET / HTTP/1.1\r\n", b"b"]),
    ends=st.booleans(),
)
def test_any_split_of_an_early_answer_gives_the_same(
    asked: bytes, answer: bytes, cuts: list[int], rest: bytes, ends: bool
) -> None:
    assert early(asked, answer, cuts, rest, ends) == early(asked, answer, [], rest, ends)
