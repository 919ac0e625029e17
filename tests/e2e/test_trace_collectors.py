"""Collectors of spans that are ill, and traces of several workers."""

import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.collector import Answer, Collector, taken
from support.endpoints import ScriptedEndpoint
from support.http import HttpClient
from support.ports import free_port
from support.proxy import Sidecar, configuration
from support.traced import Traced, answering
from support.waiting import wait_until


@pytest.mark.parametrize(
    "answer", ["gone", "silent", (503, "text/plain", b""), (200, "text/html", b"<html>")]
)
def test_an_ill_collector_costs_spans_and_no_request(tmp_path: Path, answer: Any) -> None:
    go_on = threading.Event()

    def answered() -> Answer:
        if answer != "silent":
            return answer  # type: ignore[no-any-return]
        go_on.wait(30)
        return taken()

    with ExitStack() as stack:
        collector = stack.enter_context(Collector(answered))
        stack.callback(go_on.set)
        url = f"http://127.0.0.1:{free_port()}" if answer == "gone" else collector.url
        traced = stack.enter_context(Traced(tmp_path, url, answering(), more="sample: 1, queue: 64"))
        for _ in range(100):
            assert traced.client.request("GET", "/").status == 200
        process = traced.sidecar.process
        if answer == "silent":
            wait_until(lambda: collector.requests, "a batch on its way")
        else:
            wait_until(lambda: f"spans are not exported: {url}: " in process.stderr, "a line of the log")
        assert traced.client.request("GET", "/").status == 200
        assert traced.sidecar.end(seconds=6.0) == 0, "drained for 1 s, and the spans have 2.5"
        lines = process.stderr.splitlines()
        assert sum("spans are not exported" in line for line in lines) == (answer != "silent")
        assert not [line for line in lines if "opentelemetry" in line]


def test_each_worker_traces(tmp_path: Path) -> None:
    with (
        Collector() as collector,
        Traced(
            tmp_path, collector.url, answering(), more="sample: 1", own="drain_timeout: 1s, workers: 2"
        ) as traced,
    ):

        def instances() -> list[str]:
            with HttpClient(traced.listen) as client:  # whose worker it is, the kernel says
                client.request("GET", "/")
            found = {span.resource["service.instance.id"] for span in collector.spans}
            return sorted(found) if len(found) == 2 else []

        wait_until(instances, "spans of both workers", 20.0)
        assert traced.sidecar.end() == 0
    asked = [span for span in collector.spans if not span.parent_id]
    assert len(asked) == len(traced.endpoints[0].requests)
    assert len({span.trace_id for span in asked}) == len(asked), "no two of a kind from two processes"
    assert len(collector.spans) == 2 * len(asked)


def test_a_reload_begins_and_ends_it(tmp_path: Path) -> None:
    with Collector() as collector, ScriptedEndpoint(answering()) as endpoint:
        listen = free_port()
        plain = configuration(listen, [endpoint.port], sidecar="drain_timeout: 1s")
        with Sidecar(tmp_path, plain) as sidecar, HttpClient(listen) as client:
            off = sidecar.path.read_text()

            def ask(tracing: str) -> str | None:
                sidecar.path.write_text(off.replace("drain_timeout: 1s", f"drain_timeout: 1s, {tracing}"))
                answer = sidecar.reload()
                assert (answer.status == 200) is ("NOPE" not in tracing), answer.text
                assert client.request("GET", "/").status == 200, "on a connection that was there before"
                return endpoint.requests[-1].header("traceparent")

            assert ask("") is None
            assert ask(f'tracing: {{endpoint: "{collector.url}", sample: 1}}') is not None
            collector.wait_for(2)
            with_token = f'tracing: {{endpoint: "{collector.url}", sample: 1, token_env: NOPE}}'
            assert ask(with_token) is not None, "refused, and it goes on"
            collector.wait_for(4)
            assert ask("") is None
    assert len(collector.spans) == 4
