"""Traces end to end: what endpoints and a collector hear of the same requests."""

from pathlib import Path

from support.access_log import lines_of
from support.collector import CollectedSpan, Collector
from support.endpoints import Conversation, ScriptedEndpoint
from support.http import HttpClient
from support.ports import free_port
from support.proxy import Sidecar, configuration
from support.traced import CALLER, SAMPLED, TRACE, Traced, answering
from support.waiting import wait_until


def attempts_of(spans: list[CollectedSpan], asked: CollectedSpan) -> list[CollectedSpan]:
    """The spans beneath a request's, in the order of their beginning."""
    return sorted((one for one in spans if one.parent_id == asked.span_id), key=lambda one: one.start)


def test_a_retry_is_a_request_with_two_attempts(tmp_path: Path) -> None:
    with (
        Collector() as collector,
        Traced(
            tmp_path,
            collector.url,
            answering("503 Service Unavailable"),
            answering(),
            policy="strategy: round_robin, retry_on: [503]",
            more="service: shop, token_env: TOKEN",
            environ={"TOKEN": "secret"},
        ) as traced,
    ):
        for _ in range(4):  # whichever comes first, the other one has its turn
            assert traced.client.request("GET", "/a?b=c", SAMPLED).status == 200
        spans = collector.wait_for(4 + sum(len(one.requests) for one in traced.endpoints))
    requests = [span for span in spans if span.parent_id == CALLER]
    assert len(requests) == 4
    assert {span.trace_id for span in spans} == {TRACE}
    assert len({span.span_id for span in spans}) == len(spans)
    assert {span.kind for span in spans} == {"CLIENT"}
    assert {span.state for span in spans} == {"a=1"}
    told: dict[int, list[str]] = {endpoint.port: [] for endpoint in traced.endpoints}
    for asked in requests:
        attempts = attempts_of(spans, asked)
        assert asked.remote_parent
        assert (asked.name, asked.attributes["url.path"], asked.failed) == ("GET", "/a", False)
        assert asked.attributes["url.full"] == f"http://api:{traced.listen}/a"
        for number, attempt in enumerate(attempts):
            told[attempt.attributes["server.port"]].append(attempt.span_id)
            assert attempt.attributes.get("http.request.resend_count", 0) == number
            assert asked.start <= attempt.start <= attempt.end <= asked.end + 1e-6
            assert not attempt.remote_parent
        assert attempts[-1].attributes["http.response.status_code"] == 200
        assert [attempt.attributes["http.response.status_code"] for attempt in attempts[:-1]] in ([], [503])
    assert told == traced.parents(), "what the endpoints saw"
    assert len(told[traced.endpoints[0].port]) > 0, "somebody was asked in vain"
    assert collector.tokens == {"Bearer secret"}
    assert spans[0].resource["service.name"] == "shop"


def test_the_slower_one_of_two(tmp_path: Path) -> None:
    def hangs(conversation: Conversation) -> None:
        conversation.read_request()
        conversation.hang()

    policy = "strategy: round_robin, hedge_after: 50ms, timeout: 5s"
    with (
        Collector() as collector,
        Traced(tmp_path, collector.url, hangs, answering(), policy=policy) as traced,
    ):
        while not traced.endpoints[0].requests:
            assert traced.client.request("GET", "/", SAMPLED).status == 200
        outrun, quick = wait_until(lambda: _hedged(collector.spans), "the spans of a request asked twice")
    assert (outrun.attributes["sidecar.attempt.outcome"], outrun.failed) == ("outrun", True)
    assert (quick.attributes["sidecar.attempt.outcome"], quick.failed) == ("success", False)
    seen = traced.parents()
    assert seen[traced.endpoints[0].port] == [outrun.span_id]
    assert quick.span_id in seen[traced.endpoints[1].port]
    assert quick.attributes["http.request.resend_count"] == 1


def _hedged(spans: list[CollectedSpan]) -> list[CollectedSpan]:
    for asked in [span for span in spans if span.parent_id == CALLER]:
        found = attempts_of(spans, asked)
        if len(found) == 2:
            return found
    return []


def test_the_end_sends_what_waits(tmp_path: Path) -> None:
    with (
        Collector() as collector,
        Traced(tmp_path, collector.url, answering(), more="sample: 1") as traced,
    ):
        for _ in range(10):
            assert traced.client.request("GET", "/").status == 200
        assert traced.sidecar.end() == 0
        assert len(collector.spans) == 20
    assert len({span.trace_id for span in collector.spans}) == 10


def test_the_access_log_names_the_trace_that_the_endpoint_got(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    not_sampled = [("traceparent", f"00-{TRACE}-{CALLER}-00")]
    with (
        Collector() as collector,
        Traced(
            tmp_path,
            collector.url,
            answering(),
            more="sample: 0",
            own=f"drain_timeout: 1s, request_id: true, access_log: {log}",
        ) as traced,
    ):
        for fields in ([], not_sampled, not_sampled * 2, SAMPLED):
            assert traced.client.request("GET", "/", fields).status == 200
        assert traced.sidecar.end() == 0
    received = traced.endpoints[0].requests
    got = [(str(one.header("traceparent")).split("-")[1], one.header("x-request-id")) for one in received]
    assert [(line["trace_id"], line["request_id"]) for line in lines_of(log)] == got
    assert [trace == TRACE for trace, _ in got] == [False, True, False, True]
    assert {span.trace_id for span in collector.spans} == {TRACE}


def test_off_means_untouched(tmp_path: Path) -> None:
    listen = free_port()
    names = ["TraceParent", "tracestate", "traceparent", "X-Request-Id", "x-request-id"]
    fields = [(name, f",,{number} A=") for number, name in enumerate(names)]
    with ScriptedEndpoint(answering()) as endpoint:
        text = configuration(listen, [endpoint.port], sidecar="drain_timeout: 1s")
        with Sidecar(tmp_path, text), HttpClient(listen) as client:
            assert client.request("GET", "/", fields).status == 200
        sent = endpoint.requests[0].headers[1:]
    assert sent == [f"{name}: {value}" for name, value in fields]


def test_requests_get_a_name(tmp_path: Path) -> None:
    listen = free_port()
    with ScriptedEndpoint(answering()) as endpoint:
        own = "drain_timeout: 1s, request_id: true"
        with (
            Sidecar(tmp_path, configuration(listen, [endpoint.port], sidecar=own)),
            HttpClient(listen) as client,
        ):
            client.request("GET", "/")
            client.request("GET", "/", [("X-Request-Id", "mine")])
        made, kept = (received.header("x-request-id") for received in endpoint.requests)
    assert made is not None
    assert (len(made), kept) == (36, "mine")
