"""What passes through an exchange: requests to endpoints, responses back, byte for byte but for our own hop."""

from collections.abc import Callable

import pytest
from unit.proxy.harness import Proxy, chunked, ok, request

MakeProxy = Callable[..., Proxy]


def sent(proxy: Proxy, asked: bytes, answer: bytes = ok()) -> bytes:
    """What an endpoint is sent for `asked`."""
    proxy.exchange(asked, answer)
    return proxy.upstreams[-1].data


def test_a_request_and_its_response_pass(proxy: Proxy) -> None:
    got = proxy.exchange(request("GET /a?b=c", "Accept: */*"), ok(b"hello", "X-Own: 1"))

    assert proxy.upstreams[0].data == b"GET /a?b=c HTTP/1.1\r\nHost: 10.0.0.1:80\r\nAccept: */*\r\n\r\n"
    assert got == ok(b"hello", "X-Own: 1")
    assert proxy.counted == [("GET", "2xx", "none", 1)]
    assert proxy.cluster.stats.in_flight == 0


def test_one_write_in_each_direction(proxy: Proxy) -> None:
    client = proxy.client(request("POST /", "Content-Length: 3", body=b"abc"))
    endpoint = proxy.accept()
    endpoint.feed(ok(b"x" * 1000))

    assert (len(endpoint.writes), len(client.writes)) == (1, 1)


def test_connections_are_kept_on_both_sides(proxy: Proxy) -> None:
    client = proxy.client(request("GET /1"))
    endpoint = proxy.accept()
    endpoint.feed(ok(b"1"))
    assert client.taken() == ok(b"1")
    endpoint.taken()

    client.feed(request("GET /2"))
    assert proxy.connecting == []
    assert endpoint.data.startswith(b"GET /2 ")
    endpoint.feed(ok(b"2"))

    assert client.data == ok(b"2")
    assert not client.closing
    assert proxy.states[0].pool.open == 1
    assert proxy.cluster.stats.connects == [1, 0, 0, 0]


# Bodies


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        (["Content-Length: 10"], b"0123456789"),
        (["Transfer-Encoding: chunked"], chunked(b"01234", b"56789")),
        (["Trailer: x-checksum", "Transfer-Encoding: chunked"], b"5\r\nabcde\r\n0\r\nX-Checksum: 1\r\n\r\n"),
    ],
    ids=["length", "chunked", "trailer"],
)
def test_request_bodies_pass_as_they_are_framed(proxy: Proxy, fields: list[str], body: bytes) -> None:
    asked = request("POST /", *fields, body=body)
    client = proxy.client(asked[:-9])
    endpoint = proxy.accept()
    client.feed(*(asked[at : at + 1] for at in range(len(asked) - 9, len(asked))))
    endpoint.feed(ok())

    assert endpoint.data == asked.replace(b"localhost:8080", b"10.0.0.1:80")
    assert client.data == ok()
    assert not client.closing


@pytest.mark.parametrize(
    "answer",
    [
        ok(b"0123456789"),
        ok(chunked(b"01234", b"56789"), "Transfer-Encoding: chunked", length=False),
        ok(
            b"5\r\nabcde\r\n0\r\nX-Checksum: 1\r\n\r\n",
            "Trailer: X-Checksum",
            "Transfer-Encoding: chunked",
            length=False,
        ),
    ],
    ids=["length", "chunked", "trailer"],
)
@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_response_bodies_pass_as_they_are_framed(proxy: Proxy, answer: bytes, piece: int) -> None:
    client = proxy.client(request())
    endpoint = proxy.accept()
    endpoint.feed(*(answer[at : at + piece] for at in range(0, len(answer), piece)))

    assert client.data == answer
    assert proxy.counted == [("GET", "2xx", "none", 1)]
    assert proxy.states[0].pool.idle == [endpoint.protocol]


def test_a_request_body_is_streamed_before_it_is_complete(proxy: Proxy) -> None:
    client = proxy.client(request("POST /", "Content-Length: 6", body=b"ab"))
    endpoint = proxy.accept()
    assert endpoint.taken().endswith(b"\r\n\r\nab")
    client.feed(b"cd")
    assert endpoint.taken() == b"cd"
    client.feed(b"ef")
    assert endpoint.taken() == b"ef"


def test_a_response_body_is_streamed_before_it_is_complete(proxy: Proxy) -> None:
    client = proxy.client(request())
    endpoint = proxy.accept()
    endpoint.feed(ok(b"abcdef")[:-4])
    assert client.taken().endswith(b"\r\n\r\nab")
    endpoint.feed(b"cd")
    assert client.taken() == b"cd"
    assert proxy.cluster.stats.in_flight == 1


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("HEAD /", ok(b"", "Content-Length: 5000", length=False)),
        ("HEAD /", ok(b"", "Transfer-Encoding: chunked", length=False)),
        ("HEAD /", ok(b"", length=False)),
        ("GET /", ok(b"", status="204 No Content", length=False)),
        ("GET /", ok(b"", 'ETag: "1"', "Content-Length: 5000", status="304 Not Modified", length=False)),
    ],
)
def test_responses_that_have_no_body_whatever_they_say(proxy: Proxy, line: str, answer: bytes) -> None:
    client = proxy.client(request(line))
    endpoint = proxy.accept()
    endpoint.feed(answer)

    assert client.data == answer
    assert proxy.cluster.stats.in_flight == 0
    assert proxy.states[0].pool.idle == [endpoint.protocol]


# Framing that has to change


def test_a_body_that_lasts_until_close_is_framed_in_chunks(proxy: Proxy) -> None:
    client = proxy.client(request())
    endpoint = proxy.accept()
    endpoint.feed(ok(b"abc", length=False), b"defgh")
    endpoint.lose()

    assert client.data == ok(
        b"3\r\nabc\r\n5\r\ndefgh\r\n0\r\n\r\n", "Transfer-Encoding: chunked", length=False
    )
    assert not client.closing
    assert proxy.counted == [("GET", "2xx", "none", 1)]


def test_an_empty_body_that_lasts_until_close(proxy: Proxy) -> None:
    client = proxy.client(request())
    endpoint = proxy.accept()
    endpoint.feed(ok(b"", length=False))
    assert not endpoint.feed_eof()
    endpoint.lose()

    assert client.data == ok(b"0\r\n\r\n", "Transfer-Encoding: chunked", length=False)


@pytest.mark.parametrize("fields", [[], ["Connection: keep-alive"]])
def test_an_http_1_0_client_gets_a_body_that_lasts_until_close_as_it_is(
    proxy: Proxy, fields: list[str]
) -> None:
    client = proxy.client(request("GET /", *fields, version="1.0"))
    endpoint = proxy.accept()
    endpoint.feed(ok(b"abc", length=False))
    endpoint.lose()

    assert client.data == ok(b"abc", length=False)
    assert client.closing
    assert not client.aborted


def test_an_http_1_0_client_gets_a_chunked_body_decoded(proxy: Proxy) -> None:
    """RFC 9112 6.1: a chunked response must not go to a client of HTTP/1.0."""
    client = proxy.client(request("GET /", "Connection: keep-alive", version="1.0"))
    endpoint = proxy.accept()
    answer = ok(chunked(b"abc", b"defgh"), "X-A: 1", "Transfer-Encoding: chunked", length=False)
    endpoint.feed(*(answer[at : at + 5] for at in range(0, len(answer), 5)))

    assert client.data == ok(b"abcdefgh", "X-A: 1", length=False)
    assert client.closing, "the connection's end is the only end that HTTP/1.0 has here"
    assert not client.aborted
    assert proxy.states[0].pool.idle == [endpoint.protocol]


def test_a_response_of_http_1_0_goes_on_as_http_1_1(proxy: Proxy) -> None:
    client = proxy.client(request())
    endpoint = proxy.accept()
    endpoint.feed(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok")

    assert client.data == ok()
    assert not client.closing
    assert endpoint.closing, "HTTP/1.0 does not keep its connection unless it says so"


# Heads


def test_unknown_fields_pass_byte_for_byte(proxy: Proxy) -> None:
    fields = ["X-A: 1", "x-a:2", "X-a:   3  ", "COOKIE: a=b", "cookie: c=d", "X-Empty:", "X-High: \xe9\xff"]

    assert sent(proxy, request("GET /", *fields)) == request("GET /", *fields).replace(
        b"localhost:8080", b"10.0.0.1:80"
    )


@pytest.mark.parametrize("target", ["/a%2Fb//c/../d?x=%zz&&y", "*", "/\xe9", "/a;b=c|d{e}^`", "/??"])
def test_targets_are_never_touched(proxy: Proxy, target: str) -> None:
    line = f"OPTIONS {target}"
    assert sent(proxy, request(line)).startswith(f"{line} HTTP/1.1\r\n".encode("latin-1"))


def test_response_fields_pass_byte_for_byte(proxy: Proxy) -> None:
    answer = ok(
        b"", "SERVER: x", "set-cookie: a=1", "Set-Cookie: b=2", "x-odd:  \t v", "Date:", status="200 "
    )
    assert proxy.exchange(request(), answer) == answer


def test_fields_of_one_hop_are_taken_out_of_requests(proxy: Proxy) -> None:
    asked = request(
        "GET /",
        "X-A: 1",
        "Connection: keep-alive, X-Secret",
        "x-secret: 1",
        "Keep-Alive: timeout=5",
        "TE: gzip",
        "Upgrade: h2c",
        "Proxy-Connection: keep-alive",
        "X-B: 2",
    )
    assert sent(proxy, asked) == b"GET / HTTP/1.1\r\nHost: 10.0.0.1:80\r\nX-A: 1\r\nX-B: 2\r\n\r\n"


def test_fields_of_one_hop_are_taken_out_of_responses(proxy: Proxy) -> None:
    answer = ok(b"ok", "X-A: 1", "Connection: close, X-Hop", "X-Hop: 1", "Keep-Alive: timeout=5", "X-B: 2")
    client = proxy.client(request())
    endpoint = proxy.accept()
    endpoint.feed(answer)

    assert client.data == ok(b"ok", "X-A: 1", "X-B: 2")
    assert not client.closing, "the endpoint's wish to close is about its own connection"
    assert endpoint.closing
    assert proxy.states[0].pool.open == 0


@pytest.mark.parametrize(
    ("policy", "host"),
    [("endpoint", b"10.0.0.1:80"), ("preserve", b"localhost:8080"), ("api.example", b"api.example")],
)
def test_host_policies(make_proxy: MakeProxy, policy: str, host: bytes) -> None:
    """13: Host in its own place, with the value that the policy says."""
    proxy = make_proxy(host_header=policy)
    asked = b"GET / HTTP/1.1\r\nX-A: 1\r\nhOsT: localhost:8080\r\nX-B: 2\r\n\r\n"
    lines = sent(proxy, asked).split(b"\r\n")

    assert lines[2].lower() == b"host: " + host
    assert [lines[1], lines[3]] == [b"X-A: 1", b"X-B: 2"]


def test_an_http_1_0_request_without_host_goes_on_as_http_1_1_with_one(proxy: Proxy) -> None:
    data = sent(proxy, request("GET /x", "X-A: 1", version="1.0"))
    assert data == b"GET /x HTTP/1.1\r\nHost: 10.0.0.1:80\r\nX-A: 1\r\n\r\n"


# Interim and early responses


def test_interim_responses_are_relayed(proxy: Proxy) -> None:
    client = proxy.client(request())
    endpoint = proxy.accept()
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    endpoint.feed(hints)
    assert client.taken() == hints
    endpoint.feed(hints + ok())

    assert client.data == hints + ok()
    assert proxy.counted == [("GET", "2xx", "none", 1)]


def test_interim_responses_are_not_for_http_1_0(proxy: Proxy) -> None:
    """RFC 9110 15.2."""
    got = proxy.exchange(request(version="1.0"), b"HTTP/1.1 103 Early Hints\r\n\r\n" + ok())
    assert got == ok()


def test_expect_100_continue_passes_and_so_does_its_answer(proxy: Proxy) -> None:
    """11."""
    client = proxy.client(request("PUT /", "Expect: 100-continue", "Content-Length: 4"))
    endpoint = proxy.accept()
    assert b"\r\nExpect: 100-continue\r\n" in endpoint.taken()
    endpoint.feed(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert client.taken() == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.feed(b"body")
    assert endpoint.taken() == b"body"
    endpoint.feed(ok())

    assert client.data == ok()
    assert not client.closing


def test_a_long_early_response_may_be_outlived_by_the_body(proxy: Proxy) -> None:
    """Both directions stream at once, as an echo service does it."""
    client = proxy.client(request("POST /", "Content-Length: 6", body=b"ab"))
    endpoint = proxy.accept()
    endpoint.feed(ok(b"ABCDEF")[:-4])
    client.feed(b"cdef")
    assert endpoint.data.endswith(b"abcdef")
    endpoint.feed(b"CDEF")

    assert client.data == ok(b"ABCDEF")
    assert not client.closing
    assert proxy.states[0].pool.idle == [endpoint.protocol]


# Counting


def test_methods_outside_the_standard_nine_pass_and_count_as_other(proxy: Proxy) -> None:
    assert sent(proxy, request("BREW /pot")).startswith(b"BREW /pot ")
    assert proxy.counted == [("OTHER", "2xx", "none", 1)]


def test_duration_is_from_the_head_to_the_last_byte(proxy: Proxy) -> None:
    proxy.client(request())
    endpoint = proxy.accept()
    endpoint.feed(ok(b"abc")[:-1])
    proxy.clock.advance(2.0)
    endpoint.feed(b"c")

    stats = proxy.cluster.stats
    assert stats.duration_sums[2] == 2.0
    assert stats.duration_counts(2)[10] == 1  # above 1 s, up to 2.5 s


def test_endpoints_take_turns(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(endpoints=3)
    for _ in range(6):
        proxy.exchange(request(), ok())
    assert [state.attempts[0] for state in proxy.states] == [2, 2, 2]
    assert proxy.cluster.stats.connects[0] == 3


@pytest.mark.parametrize(
    ("line", "status"), [("HEAD /", "200 OK"), ("GET /", "304 Not Modified"), ("GET /", "200 OK")]
)
def test_http_1_0_is_told_no_transfer_coding(proxy: Proxy, line: str, status: str) -> None:
    """RFC 9112 6.1."""
    client = proxy.client(request(line, version="1.0"))
    endpoint = proxy.accept()
    endpoint.feed(ok(b"", "A: 1", "Transfer-Encoding: chunked", status=status, length=False))
    if status == "200 OK" and line == "GET /":
        endpoint.feed(b"2\r\nok\r\n0\r\n\r\n")
    assert client.data.startswith(f"HTTP/1.1 {status}\r\nA: 1\r\n\r\n".encode())


TRAILERS = b"2\r\nok\r\n0\r\nX-Said: 1\r\nX-Unsaid: 2\r\nAuthorization: 3\r\n\r\n"
ONLY_SAID = b"2\r\nok\r\n0\r\nX-Said: 1\r\n\r\n"
CHUNKED = "Transfer-Encoding: chunked"


@pytest.mark.parametrize("apart", [False, True])
def test_announced_trailers_of_a_request_pass_and_no_others(proxy: Proxy, apart: bool) -> None:
    head = request("POST /", "Trailer: X-Said, Authorization", CHUNKED)
    proxy.client(*([head, TRAILERS] if apart else [head + TRAILERS]))
    assert proxy.accept().data.partition(b"\r\n\r\n")[2] == ONLY_SAID


@pytest.mark.parametrize("apart", [False, True])
def test_announced_trailers_of_a_response_pass_and_no_others(proxy: Proxy, apart: bool) -> None:
    client = proxy.client(request())
    head = ok(b"", "Trailer: X-Said, Authorization", CHUNKED, length=False)
    proxy.accept().feed(*([head, TRAILERS] if apart else [head + TRAILERS]))
    assert client.data.partition(b"\r\n\r\n")[2] == ONLY_SAID


def test_a_client_that_takes_trailers_gets_them_unannounced_too(proxy: Proxy) -> None:
    client = proxy.client(request("GET /", "TE: trailers", "Connection: TE"))
    endpoint = proxy.accept()
    assert endpoint.data.endswith(b"TE: trailers\r\nConnection: TE\r\n\r\n")
    endpoint.feed(ok(TRAILERS, CHUNKED, length=False))
    assert client.data.endswith(b"X-Said: 1\r\nX-Unsaid: 2\r\n\r\n")
