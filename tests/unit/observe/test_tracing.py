"""What a tracer makes of requests: the headers that go on, and the spans of what came of it."""

import itertools
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.clock import FakeClock
from support.proxy import clean_environment
from unit.proxy.harness import Proxy, error_of, ok, request

from sidecar.config.settings import TracingSettings
from sidecar.errors import StartError
from sidecar.http1.scan import scan_request
from sidecar.http1.trace_context import TraceParent, read_traceparent
from sidecar.model import Endpoint, RecordingCounts, Snapshot
from sidecar.observe.recorder import ExchangeRecorder
from sidecar.observe.request_ids import RequestIds
from sidecar.observe.spans import MAX_ATTEMPTS, MAX_PATH, Span, url_of
from sidecar.observe.tracing import MAX_STATE, Tracer
from sidecar.proxy.front import Front
from sidecar.proxy.header_rules import Edits, FieldRules

CALLER = TraceParent(b"0af7651916cd43dd8448eb211c80319c", b"b7ad6b7169203331", 3)
SAMPLED = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03"
UNSAMPLED = SAMPLED[:-2] + "00"


class Kept:
    """In the place of the export: spans, and their offsets."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.offsets: set[float] = set()

    def put(self, span: Span, offset: float) -> None:
        self.spans.append(span)
        self.offsets.add(round(offset, 6))


class Traced:
    """A proxy whose requests are traced. spans: those that ended, the request's before its attempts'."""

    def __init__(self, proxy: Proxy, sample: float) -> None:
        self.proxy = proxy
        self.counts = RecordingCounts()
        chance = random.Random(7)
        clock: Any = proxy.clock
        clock.uniform = chance.random
        tracer = Tracer(TracingSettings("http://collector", sample=sample), clock, self.counts, {}, "local")
        self.kept: Any = Kept()
        tracer._export = self.kept
        proxy.context.recorder = ExchangeRecorder(None, tracer, None)

    @property
    def spans(self) -> list[Span]:
        return self.kept.spans


class Chance(FakeClock):
    """A clock whose chances a test may replace."""

    uniform: Any


MakeTraced = Callable[..., Traced]


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeTraced]:
    monkeypatch.setattr("unit.proxy.harness.FakeClock", Chance)
    made: list[Proxy] = []

    def make(sample: float = 1.0, **options: Any) -> Traced:
        proxy = Proxy(**options)
        made.append(proxy)
        return Traced(proxy, sample)

    yield make
    for proxy in made:
        proxy.finish()


def context_of(data: bytes) -> TraceParent:
    """The one traceparent of a head."""
    head = scan_request(data)
    assert head is not None
    lines = head.unpacked()
    (value,) = lines.values(lines.places(b"traceparent"))
    found = read_traceparent(value)
    assert found is not None
    return found


def states_of(data: bytes) -> list[bytes]:
    """The values of tracestate in a head."""
    head = scan_request(data)
    assert head is not None
    lines = head.unpacked()
    return lines.values(lines.places(b"tracestate"))


# Whose trace it is


def test_a_caller_is_the_parent(traced: MakeTraced) -> None:
    one = traced(sample=0.0)
    one.proxy.client(request("GET /a?b=c", SAMPLED, "tracestate: x=1,y=2"))
    endpoint = one.proxy.accept()
    endpoint.feed(ok())
    asked, attempt = one.spans
    assert (asked.trace_id, asked.parent_id, asked.remote) == (CALLER.trace_id, CALLER.parent_id, True)
    assert (attempt.trace_id, attempt.parent_id, attempt.remote) == (CALLER.trace_id, asked.span_id, False)
    assert context_of(endpoint.data) == TraceParent(CALLER.trace_id, attempt.span_id, 3)
    assert states_of(endpoint.data) == [b"x=1,y=2"]
    assert asked.state == attempt.state == b"x=1,y=2"
    assert len({CALLER.parent_id, asked.span_id, attempt.span_id}) == 3


def test_a_caller_that_is_not_sampled_is_followed_too(traced: MakeTraced) -> None:
    one = traced(sample=1.0)
    one.proxy.client(request("GET /", UNSAMPLED, "tracestate: x=1"))
    endpoint = one.proxy.accept()
    endpoint.feed(ok())
    found = context_of(endpoint.data)
    assert (found.trace_id, found.flags) == (CALLER.trace_id, 0)
    assert found.parent_id != CALLER.parent_id
    assert states_of(endpoint.data) == [b"x=1"]
    assert one.spans == []


@pytest.mark.parametrize(
    "fields",
    [
        (),
        ("traceparent:",),
        ("traceparent: 00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",),
        ("traceparent: ff" + SAMPLED[15:],),
        (SAMPLED, SAMPLED),
        (SAMPLED, "x: y", SAMPLED.replace("traceparent", "TraceParent")),
    ],
)
def test_anything_else_begins_a_trace(traced: MakeTraced, fields: tuple[str, ...]) -> None:
    one = traced()
    one.proxy.client(request("GET /", "tracestate: a=1", "z: 1", *fields, "tracestate: b=2"))
    endpoint = one.proxy.accept()
    endpoint.feed(ok())
    asked, attempt = one.spans
    assert (asked.parent_id, asked.state) == (b"", b"")
    assert asked.trace_id == attempt.trace_id != CALLER.trace_id
    assert context_of(endpoint.data) == TraceParent(asked.trace_id, attempt.span_id, 3)
    assert states_of(endpoint.data) == []
    assert endpoint.data.startswith(b"GET / HTTP/1.1\r\nHost: 10.0.0.1:80\r\nz: 1\r\n")


def test_a_new_trace_is_sampled_by_chance(traced: MakeTraced) -> None:
    one = traced(sample=0.25)
    flags = []
    client = one.proxy.client()
    for _ in range(400):
        client.feed(request())
        endpoint = one.proxy.accept() if one.proxy.connecting else one.proxy.busy[-1]
        flags.append(context_of(endpoint.taken()).flags)
        endpoint.feed(ok())
    assert set(flags) == {2, 3}, "the ids are random, and the flag says so"
    assert 70 <= flags.count(3) <= 130
    assert len(one.spans) == 2 * flags.count(3)
    assert len({span.span_id for span in one.spans}) == len(one.spans)
    assert len({span.trace_id for span in one.spans}) == flags.count(3)


def test_a_long_tracestate_goes_on_and_is_not_exported(traced: MakeTraced) -> None:
    one = traced()
    long = "x=" + "y" * MAX_STATE
    one.proxy.client(request("GET /", SAMPLED, f"tracestate: {long}"))
    endpoint = one.proxy.accept()
    endpoint.feed(ok())
    assert states_of(endpoint.data) == [long.encode()]
    assert one.spans[0].state == b""


def test_without_a_tracer_both_pass_as_they_are(traced: MakeTraced) -> None:
    proxy = traced().proxy
    proxy.context.recorder = None
    fields = ("traceparent: nonsense", "TraceState: ,,A=", SAMPLED)
    proxy.client(request("GET /", *fields))
    endpoint = proxy.accept()
    endpoint.feed(ok())
    assert endpoint.data == request("GET /", *fields).replace(b"localhost:8080", b"10.0.0.1:80")


# What is told


def test_a_request_that_goes_well(traced: MakeTraced) -> None:
    one = traced()
    proxy = one.proxy
    proxy.client(request("POST /a%20b?secret=1", SAMPLED, "Content-Length: 0"))
    proxy.clock.advance(0.01)
    endpoint = proxy.accept()
    proxy.clock.advance(0.02)
    endpoint.feed(ok()[:-1])
    proxy.clock.advance(0.03)
    endpoint.feed(ok()[-1:])
    asked, attempt = one.spans
    assert asked.name == attempt.name == "POST"
    assert asked.attributes == {
        "http.request.method": "POST",
        "url.scheme": "http",
        "url.path": "/a%20b",
        "http.response.status_code": 200,
        "server.address": "api",
        "server.port": 8080,
        "sidecar.upstream": "api",
        "sidecar.reason": "none",
    }
    assert attempt.attributes == {
        "http.request.method": "POST",
        "url.scheme": "http",
        "url.path": "/a%20b",
        "http.response.status_code": 200,
        "server.address": "10.0.0.1",
        "server.port": 80,
        "network.peer.address": "10.0.0.1",
        "network.peer.port": 80,
        "sidecar.upstream": "api",
        "sidecar.attempt.outcome": "success",
    }
    assert (asked.error, attempt.error) == ("", "")
    times = [(name, round(at - attempt.start, 3)) for name, at in attempt.events]
    assert times == [("sidecar.connected", 0.01), ("sidecar.first_byte", 0.03)]
    assert round(attempt.end - attempt.start, 3) == round(asked.end - asked.start, 3) == 0.06
    assert one.kept.offsets == {proxy.clock.epoch}


def test_a_request_that_becomes_a_tunnel_was_answered(traced: MakeTraced) -> None:
    one = traced()
    one.proxy.client(request("GET /chat", "Connection: upgrade", "Upgrade: websocket"))
    one.proxy.accept().feed(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    )
    assert [span.attributes["http.response.status_code"] for span in one.spans] == [101, 101]
    assert [name for name, _ in one.spans[1].events] == ["sidecar.connected", "sidecar.first_byte"]


@pytest.mark.parametrize(
    ("host", "port", "path", "url"),
    [
        ("api", 8080, "/a%20b", "http://api:8080/a%20b"),
        ("2001:db8::1", 80, "/", "http://[2001:db8::1]:80/"),
        ("10.0.0.1", 80, "*", "http://10.0.0.1:80"),
        ("api", 0, "/", "http://api/"),
    ],
)
def test_the_url_of_a_span(host: str, port: int, path: str, url: str) -> None:
    said = {"url.scheme": "http", "server.address": host, "server.port": port, "url.path": path}
    assert url_of(said) == url


def test_a_reused_connection_was_not_connected(traced: MakeTraced) -> None:
    one = traced()
    for _ in range(2):
        one.proxy.exchange(request(), ok())
    assert [name for name, _ in one.spans[3].events] == ["sidecar.first_byte"]


def test_an_endpoint_that_is_a_name_has_a_peer_address(traced: MakeTraced) -> None:
    one = traced()
    proxy = one.proxy
    proxy.cluster.apply(Snapshot("api", (Endpoint("web.example", 80),), "static"))
    tracer: Any = proxy.context.recorder
    exchange, connection = _exchange_at(proxy, "web.example", ("192.0.2.1", 80))
    tracer.sending(exchange, connection)
    assert exchange.trace.under_way[0].peer == "192.0.2.1"
    exchange, connection = _exchange_at(proxy, "web.example", None)
    tracer.sending(exchange, connection)
    assert exchange.trace.under_way[0].peer == ""


def test_a_retry_is_one_request_with_two_attempts(traced: MakeTraced) -> None:
    one = traced(endpoints=2, retries=1, retry_statuses=frozenset({503}))
    one.proxy.client(request("GET /", SAMPLED))
    first = one.proxy.accept()
    first.feed(ok(status="503 Service Unavailable"))
    second = one.proxy.accept()
    second.feed(ok())
    asked, one_, two = one.spans
    assert context_of(first.data) == TraceParent(CALLER.trace_id, one_.span_id, 3)
    assert context_of(second.data) == TraceParent(CALLER.trace_id, two.span_id, 3)
    assert one_.parent_id == two.parent_id == asked.span_id
    assert (one_.attributes["http.response.status_code"], one_.error) == (503, "503")
    assert one_.attributes["sidecar.attempt.outcome"] == "failure_status"
    assert "http.request.resend_count" not in one_.attributes
    assert (two.attributes["http.request.resend_count"], two.error) == (1, "")
    assert (asked.attributes["http.response.status_code"], asked.error) == (200, "")


def test_attempts_that_never_got_a_connection(traced: MakeTraced) -> None:
    one = traced(endpoints=2, retries=1)
    client = one.proxy.client(request("GET /", SAMPLED))
    for _ in range(3):
        one.proxy.refuse()
    assert error_of(client.data) == (503, "connect_refused")
    asked, *attempts = one.spans
    assert [attempt.error for attempt in attempts] == ["connect_refused"] * 3
    assert [attempt.attributes.get("http.request.resend_count", 0) for attempt in attempts] == [0, 1, 2]
    assert all("network.peer.address" not in attempt.attributes for attempt in attempts)
    assert asked.error == "connect_refused"
    assert asked.attributes["http.response.status_code"] == error_of(client.data)[0]


def test_a_refused_attempt_has_no_status_of_the_one_before(traced: MakeTraced) -> None:
    one = traced(endpoints=2, retries=2, retry_statuses=frozenset({503}))
    one.proxy.client(request("GET /", SAMPLED))
    endpoint = one.proxy.accept()
    endpoint.feed(ok(status="503 Service Unavailable"))
    one.proxy.refuse()
    endpoint.feed(ok())  # asked again, nobody else being there
    assert [span.error for span in one.spans] == ["", "503", "connect_refused", ""]
    assert "http.response.status_code" not in one.spans[2].attributes
    assert one.spans[2].events == []


def test_nobody_to_ask(traced: MakeTraced) -> None:
    one = traced(endpoints=0)
    one.proxy.client(request("GET /", SAMPLED))
    (asked,) = one.spans
    assert (asked.error, asked.attributes["sidecar.reason"]) == ("no_endpoints", "no_endpoints")
    assert asked.attributes["http.response.status_code"] == 503


def test_the_one_that_is_outrun(traced: MakeTraced) -> None:
    one = traced(endpoints=2, hedge_after=0.05, timeout=5.0, retries=1)
    one.proxy.client(request("GET /", SAMPLED))
    first = one.proxy.accept()
    one.proxy.clock.advance(0.05)
    one.proxy.run_timers()
    second = one.proxy.accept()
    second.feed(ok())
    asked, slow, quick = one.spans
    assert context_of(first.data).parent_id == slow.span_id
    assert context_of(second.data).parent_id == quick.span_id
    assert (slow.attributes["server.address"], slow.error) == ("10.0.0.1", "outrun")
    assert "http.response.status_code" not in slow.attributes
    assert [name for name, _ in slow.events] == ["sidecar.connected"]
    assert slow.events[0][1] < quick.start
    assert (quick.attributes["server.address"], quick.error) == ("10.0.0.2", "")
    assert quick.attributes["http.request.resend_count"] == 1
    assert slow.parent_id == quick.parent_id == asked.span_id


def test_the_one_that_was_asked_in_vain(traced: MakeTraced) -> None:
    one = traced(endpoints=2, hedge_after=0.05, timeout=5.0, retries=1)
    one.proxy.client(request("GET /", SAMPLED))
    first = one.proxy.accept()
    one.proxy.clock.advance(0.05)
    one.proxy.run_timers()
    second = one.proxy.accept()
    first.feed(ok())
    _, idle, quick = one.spans
    assert context_of(second.data).parent_id == idle.span_id
    assert context_of(first.data).parent_id == quick.span_id
    assert (idle.attributes["sidecar.attempt.outcome"], idle.error) == ("cancelled", "")
    assert idle.attributes["server.address"] == "10.0.0.2"
    assert "http.response.status_code" not in idle.attributes


def test_an_idle_connection_beside_one_that_was_opened(traced: MakeTraced) -> None:
    one = traced(endpoints=2, hedge_after=0.05, timeout=5.0, retries=1)
    for _ in range(2):
        one.proxy.exchange(request("GET /", SAMPLED), ok())
    one.proxy.upstreams[0].lose()
    one.kept.spans.clear()
    one.proxy.client(request("GET /", SAMPLED))
    one.proxy.accept()
    one.proxy.clock.advance(0.05)
    one.proxy.run_timers()
    one.proxy.upstreams[1].feed(ok())
    _, slow, quick = one.spans
    assert [name for name, _ in slow.events] == ["sidecar.connected"]
    assert [name for name, _ in quick.events] == ["sidecar.first_byte"]


def test_an_attempt_without_an_answer_has_no_status_of_the_one_before(traced: MakeTraced) -> None:
    one = traced(endpoints=2, retries=1, retry_statuses=frozenset({503}))
    one.proxy.client(request("GET /", SAMPLED))
    one.proxy.accept().feed(ok(status="503 Service Unavailable"))
    one.proxy.accept().lose()
    assert [span.error for span in one.spans] == ["reset_before_headers", "503", "reset"]
    assert "http.response.status_code" not in one.spans[2].attributes


def test_a_client_that_leaves_is_no_error(traced: MakeTraced) -> None:
    one = traced()
    client = one.proxy.client(request("GET /", SAMPLED))
    one.proxy.accept()
    client.lose()
    asked, attempt = one.spans
    assert (asked.error, asked.attributes["sidecar.reason"]) == ("", "client_gone")
    assert "http.response.status_code" not in asked.attributes
    assert (attempt.error, attempt.attributes["sidecar.attempt.outcome"]) == ("", "cancelled")


@pytest.mark.parametrize(
    ("status", "error"),
    [("404 Not Found", ""), ("429 Slow Down", ""), ("500 Oh", "500"), ("504 Late", "504")],
)
def test_what_a_status_says(traced: MakeTraced, status: str, error: str) -> None:
    one = traced(retries=0)
    one.proxy.exchange(request("GET /", SAMPLED), ok(status=status))
    assert [span.error for span in one.spans] == [error, error]


def test_an_answer_that_breaks_off(traced: MakeTraced) -> None:
    one = traced()
    one.proxy.client(request("GET /", SAMPLED))
    endpoint = one.proxy.accept()
    endpoint.feed(ok()[:-1])
    endpoint.lose()
    asked, attempt = one.spans
    assert (
        asked.attributes["http.response.status_code"]
        == attempt.attributes["http.response.status_code"]
        == 200
    )
    assert (asked.error, attempt.error) == ("reset_after_headers", "reset")


def test_a_body_that_is_no_http_is_its_clients_failure(traced: MakeTraced) -> None:
    one = traced()
    client = one.proxy.client(request("POST /", SAMPLED, "Transfer-Encoding: chunked"))
    one.proxy.accept()
    client.feed(b"nonsense\r\n")
    assert [span.error for span in one.spans] == ["", ""]
    assert one.spans[0].attributes["http.response.status_code"] == 400


def test_strange_methods_and_targets(traced: MakeTraced) -> None:
    one = traced()
    long = "/" + "x" * MAX_PATH
    one.proxy.exchange(request("BREW " + long, SAMPLED), ok())
    one.proxy.exchange(request("GET /\xff", SAMPLED), ok())
    brewed, strange = one.spans[0], one.spans[2]
    assert (brewed.name, brewed.attributes["http.request.method"]) == ("HTTP", "_OTHER")
    assert brewed.attributes["url.path"] == long[:MAX_PATH]
    assert strange.attributes["url.path"] == "/\\xff"


def test_where_thousands_refuse_some_are_told(traced: MakeTraced) -> None:
    one = traced(endpoints=MAX_ATTEMPTS + 10, retries=0)
    one.proxy.client(request("GET /", SAMPLED))
    while one.proxy.connecting:
        one.proxy.refuse()
    assert len(one.spans) == 1 + MAX_ATTEMPTS
    assert one.counts.spans_dropped == 10


def test_the_next_request_begins_anew(traced: MakeTraced) -> None:
    one = traced()
    client = one.proxy.client(request("GET /", SAMPLED))
    endpoint = one.proxy.accept()
    endpoint.feed(ok())
    client.feed(request("GET /", UNSAMPLED))
    endpoint.feed(ok())
    client.feed(request("GET /"))
    endpoint.feed(ok())
    assert client.protocol.exchange.trace is None, "whoever records without tracing would take it for its own"
    assert [span.trace_id == CALLER.trace_id for span in one.spans] == [True, True, False, False]


# Starting


def test_packages_that_are_not_there_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "sidecar.observe.span_export", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(StartError) as caught:
        _tracer(TracingSettings("http://collector"))
    text = str(caught.value)
    assert "pip install 'sidecar-proxy[otel]'" in text
    assert "opentelemetry" in text
    assert "\n" not in text


def test_nobody_loads_what_is_off() -> None:
    heavy = {"google", "opentelemetry", "requests", "urllib3"}
    program = (
        "import sys, sidecar.app, sidecar.observe.recorder, sidecar.observe.tracing;"
        f"print(sorted({heavy} & {{name.partition('.')[0] for name in sys.modules}}))"
    )
    arguments = [sys.executable, "-P", "-c", program]
    loaded = subprocess.check_output(arguments, env=clean_environment(), text=True, timeout=30)
    assert loaded == "[]\n"


def test_a_token_that_cannot_be_read() -> None:
    with pytest.raises(StartError, match=r"^sidecar\.tracing: the variable TOKEN .* is not set$"):
        _tracer(TracingSettings("http://collector", token_env="TOKEN"))
    with pytest.raises(StartError, match="what no header can carry") as caught:
        _tracer(TracingSettings("http://collector", token_env="TOKEN"), {"TOKEN": "se\ncret"})
    assert "cret" not in str(caught.value).replace("secret", "")


# Beside request ids


def test_ids_and_traces_do_not_disturb_each_other(traced: MakeTraced) -> None:
    one = traced()
    recorder: Any = one.proxy.context.recorder
    clock: Any = one.proxy.clock
    one.proxy.context.recorder = ExchangeRecorder(None, recorder.tracer, RequestIds(clock))
    combinations = itertools.product(
        [(), ("x-request-id: a",), ("x-request-id: a", "x-request-id: b")],
        [(), (SAMPLED,), (UNSAMPLED,), (SAMPLED, SAMPLED)],
        [(), ("tracestate: a=1",)],
    )
    for ids, parents, states in combinations:
        for order in itertools.permutations([ids, parents, states]):
            fields = itertools.chain(*order)
            one.proxy.exchange(request("GET /", *fields), ok(b""))
            data = one.proxy.upstreams[0].taken()
            context_of(data)
            assert data.count(b"x-request-id: ") == 1
            assert data.count(b"Host: 10.0.0.1:80\r\n") == 1
            assert bool(states_of(data)) == bool(states and len(parents) == 1)


def _tracer(settings: TracingSettings, environ: dict[str, str] | None = None) -> Tracer:
    clock: Any = FakeClock()
    return Tracer(settings, clock, RecordingCounts(), environ or {}, "local")


def _exchange_at(proxy: Proxy, host: str, peer: tuple[str, int] | None) -> tuple[Any, Any]:
    """As much of an exchange and a connection as an attempt that is about to be sent needs."""
    from types import SimpleNamespace

    from support.transports import MemoryTransport

    recorder: Any = proxy.context.recorder
    head = scan_request(request("GET /", SAMPLED))
    exchange = SimpleNamespace(trace=None, connected=0.0)
    exchange.head = recorder.tracer.identify(exchange, head)
    state = proxy.cluster.endpoints[host, 80]
    transport = MemoryTransport(peername=peer)
    return exchange, SimpleNamespace(endpoint=state, served=1, transport=transport)


def test_header_rules_may_take_the_context_out_and_move_it(traced: MakeTraced) -> None:
    for rules, passes in ((Edits(removed=("traceparent",)), False), (Edits(removed=("z",)), True)):
        one = traced(sample=1.0)
        one.proxy.cluster.front = Front(None, FieldRules(rules, Edits()))
        client = one.proxy.client(request("GET /", "z: 1", SAMPLED))
        endpoint = one.proxy.accept()
        assert (b"\r\ntraceparent: " in endpoint.data) is passes
        endpoint.feed(ok())
        assert client.data == ok()
        assert len(one.spans) == 2, "it is traced all the same"
