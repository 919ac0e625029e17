"""Five clients and five servers that people use: through the proxy everything is as it is without it.

Each test makes its requests twice, with a fresh session of the client, on the origin itself and on the proxy.
Answers must be equal byte for byte: status, header lines with their case, order and duplicates, body as it was
compressed; and so must be what the origin saw of every request. Only what belongs to one hop or to one moment is
left out: Connection, Keep-Alive, the value of Date, and the port in Host.
"""

import gzip
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest
from support.clients import WITHOUT_COOKIES, Answer, Client, Request, Talk, running_clients
from support.http import HttpClient
from support.origins import ETAG, LARGE, LONG_VALUE, ORIGINS, SMALL, TEXT, Origin, Seen, plain
from support.ports import free_port
from support.processes import find_program
from support.proxy import Sidecar

PROGRAMS = ("curl", "nginx", "node")  # the others are Python packages
ONE_HOP = ("connection", "keep-alive")
UPLOAD = LARGE[: 1024 * 1024]


@dataclass(frozen=True, slots=True)
class Site:
    """An origin, and the proxy's port before it."""

    origin: Origin
    listen: int


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Site]]:
    """Every origin that this machine has, and one sidecar with an upstream for each."""
    directory = tmp_path_factory.mktemp("sites")
    with ExitStack() as stack:
        found = {
            name: Site(stack.enter_context(kind(directory / name)), free_port())
            for name, kind in ORIGINS.items()
            if name not in PROGRAMS or find_program(name)
        }
        upstreams = "".join(
            f'  {name}: {{hosts: ["127.0.0.1:{site.origin.port}"], scheme: http, host_header: preserve}}\n'
            for name, site in found.items()
        )
        ports = ", ".join(f"{site.listen}: {name}" for name, site in found.items())
        text = f"""load_balancers:
{upstreams}
sidecar:
  bind: [127.0.0.1]
  ports: {{{ports}}}
  admin: 127.0.0.1:ADMIN
  metrics: 127.0.0.1:METRICS
"""
        stack.enter_context(Sidecar(directory, text))
        yield found


class Pair:
    """One client and one origin. keeps_cookies: whether the client does."""

    def __init__(self, client: Client, site: Site, directory: Path, *, keeps_cookies: bool) -> None:
        self.keeps_cookies = keeps_cookies
        self._client = client
        self._site = site
        self._directory = directory

    def same(self, *requests: Request) -> list[Answer]:
        """Make the requests both ways; what the origin saw and answered must be the same. The answers."""
        return self.both_ways(*requests)[0].answers

    def both_ways(self, *requests: Request) -> tuple[Talk, list[Seen]]:
        """The same, and what the origin saw through the proxy."""
        direct, seen_direct = self._talk(self._site.origin.port, requests)
        # The client's word for how many connections it opened is good: the origin has seen as many.
        assert direct.connections == len({seen.peer for seen in seen_direct})
        talk, seen = self._talk(self._site.listen, requests)
        assert [_request(one, self._site.listen) for one in seen] == [
            _request(one, self._site.origin.port) for one in seen_direct
        ]
        assert [_answer(one, self._site.listen) for one in talk.answers] == [
            _answer(one, self._site.origin.port) for one in direct.answers
        ]
        # With or without a proxy, aiohttp leaves a redirect's connection when its body has not all come yet.
        if not any(request.follow for request in requests):
            assert talk.connections == direct.connections
        return talk, seen

    def _talk(self, port: int, requests: tuple[Request, ...]) -> tuple[Talk, list[Seen]]:
        origin = self._site.origin
        origin.forget()
        talk = self._client(port, requests, self._directory)
        assert len(talk.answers) == len(requests)
        return talk, origin.seen(len(requests) + sum(request.follow for request in requests))


def _request(seen: Seen, port: int) -> tuple[object, ...]:
    """What of a request must be the same both ways; its Host must be what the client called."""
    assert seen.header("host") == f"127.0.0.1:{port}"
    headers = [pair for pair in seen.headers if plain(pair[0]) not in ("host", *ONE_HOP)]
    return seen.method, seen.target, headers, seen.digest


def _answer(answer: Answer, port: int) -> tuple[object, ...]:
    """What of an answer must be the same both ways. Megabytes are compared by their digest."""
    here = f"http://127.0.0.1:{port}"
    assert answer.url.startswith(here)
    headers = [
        (name, "some time" if name.lower() == "date" else value)
        for name, value in answer.headers
        if name.lower() not in ONE_HOP
    ]
    body = f"{len(answer.body)} bytes, SHA-256 {sha256(answer.body).hexdigest()}"
    return answer.url.removeprefix(here), answer.status, headers, body


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Client]]:
    """Every client that this machine has."""
    with running_clients(tmp_path_factory.mktemp("clients")) as found:
        yield found


def _params(*names: str) -> list[object]:
    return [
        pytest.param(name, marks=[pytest.mark.server(name)] if name in PROGRAMS else []) for name in names
    ]


@pytest.fixture(params=_params("nginx", "uvicorn", "aiohttp", "gunicorn", "node"))
def site(request: pytest.FixtureRequest, sites: dict[str, Site]) -> Site:
    return sites[request.param]


@pytest.fixture(params=_params("curl", "aiohttp", "requests", "httpx", "node"))
def pair(request: pytest.FixtureRequest, clients: dict[str, Client], site: Site, tmp_path: Path) -> Pair:
    name = request.param
    return Pair(clients[name], site, tmp_path, keeps_cookies=name not in WITHOUT_COOKIES)


def get(target: str, *headers: tuple[str, str]) -> Request:
    return Request("GET", target, headers)


# Downloads


def test_a_small_page(pair: Pair) -> None:
    (answer,) = pair.same(get("/small"))
    assert (answer.status, answer.body) == (200, SMALL)


def test_three_megabytes_with_a_length(pair: Pair) -> None:
    (answer,) = pair.same(get("/large"))
    assert answer.all("Content-Length") == [str(len(LARGE))]
    assert answer.body == LARGE


def test_three_megabytes_in_chunks(pair: Pair) -> None:
    (answer,) = pair.same(get("/stream"))
    assert (answer.all("Transfer-Encoding"), answer.all("Content-Length")) == (["chunked"], [])
    assert answer.body == LARGE


def test_what_is_compressed_stays_as_it_is(pair: Pair) -> None:
    (packed,) = pair.same(get("/text", ("Accept-Encoding", "gzip")))
    assert packed.all("Content-Encoding") == ["gzip"]
    assert gzip.decompress(packed.body) == TEXT
    assert len(packed.body) < len(TEXT) / 4
    (plain_text,) = pair.same(get("/text", ("Accept-Encoding", "identity")))
    assert not plain_text.all("Content-Encoding")
    assert plain_text.body == TEXT


# Uploads


def upload(pair: Pair, *, chunked: bool) -> list[Seen]:
    """PUT a megabyte, and ask for something on the same connection."""
    put = Request("PUT", "/upload/file", (("Content-Type", "application/octet-stream"),), UPLOAD, chunked)
    talk, seen = pair.both_ways(put, get("/small"))
    assert [answer.status for answer in talk.answers] == [201, 200]
    assert seen[0].digest == sha256(UPLOAD).hexdigest()
    return seen


def test_an_upload_with_a_length(pair: Pair) -> None:
    seen = upload(pair, chunked=False)
    assert seen[0].header("Content-Length") == str(len(UPLOAD))
    assert not seen[0].header("Transfer-Encoding")


def test_an_upload_in_chunks(pair: Pair) -> None:
    seen = upload(pair, chunked=True)
    assert not seen[0].header("Content-Length")
    assert seen[0].header("Transfer-Encoding") == "chunked"


def test_a_form(pair: Pair) -> None:
    form = Request("POST", "/form", (("Content-Type", "application/x-www-form-urlencoded"),), b"a=1&b=%20")
    talk, seen = pair.both_ways(form)
    assert talk.answers[0].status == 201
    assert seen[0].method == "POST"
    assert seen[0].header("Content-Length") == "9"


# Answers without a body, and of every kind


def test_head_announces_and_sends_nothing(pair: Pair) -> None:
    large, after = pair.same(Request("HEAD", "/large"), get("/small"))
    assert (large.status, large.all("Content-Length"), large.body) == (200, [str(len(LARGE))], b"")
    assert after.body == SMALL


def test_head_of_what_has_no_length_sends_nothing_either(pair: Pair) -> None:
    """Some clients use the connection no more then, with or without a proxy."""
    stream, after = pair.same(Request("HEAD", "/stream"), get("/small"))
    assert (stream.status, stream.all("Content-Length"), stream.body) == (200, [], b"")
    assert after.body == SMALL


def test_nothing_to_say_and_nothing_new(pair: Pair) -> None:
    empty, same, after = pair.same(get("/empty"), get("/small", ("If-None-Match", ETAG)), get("/small"))
    assert (empty.status, empty.body) == (204, b"")
    assert (same.status, same.all("ETag"), same.body) == (304, [ETAG], b"")
    assert (after.status, after.body) == (200, SMALL)


def test_a_redirect_leads_to_the_proxy_again(pair: Pair) -> None:
    (told,) = pair.same(get("/redirect"))
    assert (told.status, told.all("Location")) == (302, ["/small"])
    talk, seen = pair.both_ways(Request("GET", "/redirect", follow=True))
    (followed,) = talk.answers
    assert followed.url.endswith("/small")
    assert (followed.status, followed.body) == (200, SMALL)
    assert [one.target for one in seen] == ["/redirect", "/small"]


def test_errors_of_the_origin_are_its_own(pair: Pair) -> None:
    missing, broken, after = pair.same(get("/missing?page=1"), get("/broken"), get("/small"))
    assert (missing.status, missing.body) == (404, b"no such page\n")
    assert (broken.status, broken.body) == (500, SMALL)
    assert after.status == 200


# Headers


def test_a_long_request_header(pair: Pair) -> None:
    talk, seen = pair.both_ways(get("/small", ("X-Long", LONG_VALUE)))
    assert talk.answers[0].status == 200
    assert seen[0].header("X-Long") == LONG_VALUE


def test_a_long_response_header(pair: Pair) -> None:
    (answer,) = pair.same(get("/long-header"))
    assert answer.all("X-Long") == [LONG_VALUE]


def test_cookies_stay_apart_and_come_back(pair: Pair) -> None:
    talk, seen = pair.both_ways(get("/cookies"), get("/small"))
    cookies = talk.answers[0].all("Set-Cookie")
    assert [value.partition(";")[0] for value in cookies] == ["one=1", "two=2"]
    sent = (seen[1].header("Cookie") or "").split("; ")
    assert sorted(sent) == (["one=1", "two=2"] if pair.keeps_cookies else [""])  # curl has its own order


# Connections


def test_one_connection_on_each_side_serves_a_session(pair: Pair) -> None:
    put = Request("PUT", "/upload/file", (), b"a=1")  # not /form: nginx answers that before the body has come
    requests = [get("/small"), put, get("/text"), Request("HEAD", "/large"), get("/missing")] * 4
    talk, seen = pair.both_ways(*requests)
    assert talk.connections == 1
    assert len({one.peer for one in seen}) == 1


@pytest.mark.server("nginx")
def test_an_answer_before_a_short_body_does_not_end_the_clients_connection(sites: dict[str, Site]) -> None:
    """requests and httpx send head and body one after the other, and nginx's `return` waits for no body."""
    site = sites["nginx"]
    for port in (site.origin.port, site.listen):
        with HttpClient(port) as client:
            client.send_head("POST", "/form", [("Content-Length", "3")])
            assert client.read_response("POST").status == 201
            client.send(b"a=1")
            assert client.request(target="/small").body == SMALL
