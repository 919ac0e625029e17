"""One port before several upstreams, and copies for another: real sidecar, real sockets."""

import json
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from support.endpoints import Conversation, ScriptedEndpoint, hang, ok, respond
from support.http import HttpClient, get
from support.load import Load
from support.ports import free_port
from support.proxy import Sidecar
from support.waiting import wait_until

REQUESTS = 1000


def routed(front: int, routes: str, *upstreams: str, more: str = "watch: false") -> str:
    """A configuration of one router, `front`. upstreams: `NAME: {...}`, which listen nowhere themselves."""
    return (
        "load_balancers:\n"
        + "".join(f"  {line}\n" for line in upstreams)
        + f"routers:\n  front: {{routes: [{routes}]}}\n"
        + f'sidecar: {{bind: [127.0.0.1], ports: {{{front}: front}}, admin: "127.0.0.1:ADMIN", '
        + f'metrics: "127.0.0.1:METRICS", {more}}}\n'
    )


def one(name: str, endpoint: ScriptedEndpoint, policy: str = "") -> str:
    return f'{name}: {{hosts: ["127.0.0.1:{endpoint.port}"], {policy}}}'


def rewritten(running: Sidecar, text: str) -> None:
    """The file is `text` from now on, and the sidecar goes by it."""
    running.path.write_text(
        text.replace("ADMIN", str(running.admin)).replace("METRICS", str(running.metrics_port))
    )
    answer = running.reload()
    assert answer.status == 200, answer.text


def counted(running: Sidecar, route: int, upstream: str) -> float:
    labels = f'{{route="{route}",router="front",upstream="{upstream}"}}'
    return running.metrics()[f"sidecar_routed_requests_total{labels}"]


def mirrored(running: Sidecar, upstream: str, result: str) -> float:
    labels = f'{{result="{result}",upstream="{upstream}"}}'
    return running.metrics()[f"sidecar_mirrored_requests_total{labels}"]


def test_a_connection_is_served_by_several_upstreams(tmp_path: Path) -> None:
    front = free_port()
    log = tmp_path / "access.jsonl"
    with (
        ScriptedEndpoint(respond(ok(b"api"))) as api,
        ScriptedEndpoint(respond(ok(b"web"))) as web,
        Sidecar(
            tmp_path,
            routed(
                front,
                "{host: api.example, path: /v1/, to: api}, {path: /web, methods: [GET], to: web}",
                one("api", api),
                one("web", web),
                more=f"watch: false, access_log: {log.name}",
            ),
        ) as running,
        HttpClient(front) as client,
    ):
        client.authority = "API.example:80"
        assert client.request("GET", "/v1/a?b").text == "api"
        assert client.request("GET", "/web").text == "web"
        assert client.request("POST", "/v1", body=b"abc").text == "api"
        client.authority = "other.example"
        answer = client.request("GET", "/v1")
        assert (answer.status, answer.error, answer.json["upstream"]) == (404, "no_route", "front")
        assert client.request("POST", "/web", body=b"").status == 404
        assert client.request("GET", "/web/").text == "web"
        assert [request.line for request in api.requests] == ["GET /v1/a?b HTTP/1.1", "POST /v1 HTTP/1.1"]
        assert (api.connections, web.connections) == (1, 1)

        assert counted(running, 0, "api") == counted(running, 1, "web") == 2
        view = running.upstream("front")
        assert view["endpoints"] == []
        assert view["requests"]["by_reason"] == {"no_route": 2}
        assert [route["to"] for route in view["routes"]] == [
            [{"upstream": "api", "weight": 1, "requests": 2}],
            [{"upstream": "web", "weight": 1, "requests": 2}],
        ]
        assert not [name for name in running.metrics() if "sidecar_endpoints" in name and "front" in name]

        def lines() -> list[dict[str, object]]:
            return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

        wait_until(lambda: len(lines()) == 6, "six lines of the access log")
        assert [(line["upstream"], line["status"]) for line in lines()] == [
            ("api", 200),
            ("web", 200),
            ("api", 200),
            ("front", 404),
            ("front", 404),
            ("web", 200),
        ]


def test_a_canary_grows_under_load_and_takes_over(tmp_path: Path) -> None:
    """5 %, half, all; then the old one is gone from the file. Nobody notices."""
    front = free_port()
    with ExitStack() as stack:
        old = stack.enter_context(ScriptedEndpoint(respond(ok(b"old"))))
        new = stack.enter_context(ScriptedEndpoint(respond(ok(b"new"))))
        both = (one("web", old), one("canary", new))
        running = stack.enter_context(Sidecar(tmp_path, routed(front, "{to: {web: 95, canary: 5}}", *both)))
        quiet = stack.enter_context(HttpClient(front))
        assert quiet.request().status == 200
        shares = []
        with Load(front, 4) as load:
            for routes, upstreams in (
                ("{to: {web: 95, canary: 5}}", both),
                ("{to: {web: 1, canary: 1}}", both),
                ("{to: {web: 0, canary: 1}}", both),
                ("{to: canary}", both[1:]),
            ):
                rewritten(running, routed(front, routes, *upstreams))
                load.wait_for_more(8)  # those that were under way
                before = Counter(load.bodies)
                load.wait_for_more(REQUESTS)
                found = load.bodies - before
                shares.append(found["new"] / found.total())
        assert load.errors == []
        assert set(load.statuses) == {200}
        assert load.reconnects == 0
        assert quiet.request().text == "new"  # an upstream that went took no idle connection along
        # Six times the spread of a share among so many: 0.007 of 5 %, 0.016 of a half.
        assert 0.008 < shares[0] < 0.092
        assert 0.4 < shares[1] < 0.6
        assert shares[2:] == [1.0, 1.0]


def test_copies_reach_the_mirror_and_its_troubles_nobody(tmp_path: Path) -> None:
    front = free_port()
    log = tmp_path / "access.jsonl"

    def once(conversation: Conversation) -> None:
        if conversation.number == 0:
            conversation.read_request()
            conversation.send(ok(b"next"))
        hang(conversation)

    with (
        ScriptedEndpoint(respond(ok(b"web"))) as web,
        ScriptedEndpoint(once) as shadow,
        Sidecar(
            tmp_path,
            routed(
                front,
                "{to: web}",
                one("web", web, "mirror: {to: next, max_in_flight: 2}"),
                one("next", shadow, "timeout: 30"),
                more=f"watch: false, access_log: {log.name}",
            ),
        ) as running,
        HttpClient(front) as client,
    ):
        client.send(b"POST /a HTTP/1.1\r\nHost: localhost\r\nX-Id: 7\r\nContent-Length: 3\r\n\r\nabc")
        assert client.read_response().text == "web"
        wait_until(lambda: shadow.requests and shadow.requests[0].body, "a copy")
        copy = shadow.requests[0]
        assert (copy.line, copy.body, copy.header("x-id")) == ("POST /a HTTP/1.1", b"abc", "7")
        assert copy.header("x-sidecar-mirrored") == "1"
        assert copy.header("host") == f"127.0.0.1:{shadow.port}"
        assert web.requests[0].header("x-sidecar-mirrored") is None
        wait_until(lambda: log.exists() and log.read_text().count("\n") == 2, "two lines of the access log")
        logged = [json.loads(line) for line in log.read_text().splitlines()]
        assert {(line["upstream"], line["status"], line["path"]) for line in logged} == {
            ("web", 200, "/a"),
            ("next", 200, "/a"),
        }
        # From here on it takes requests and does not answer: two are under way, the others are not sent.
        wait_until(lambda: running.upstream("next")["in_flight"] == 0, "the end of the first copy")
        for _ in range(12):
            assert client.request().text == "web"
        wait_until(lambda: mirrored(running, "web", "dropped") >= 1, "copies that were not sent")
        counts = {result: mirrored(running, "web", result) for result in ("sent", "dropped", "skipped")}
        assert sum(counts.values()) == 13
        assert running.upstream("next")["in_flight"] <= 2
        assert running.upstream("web")["requests"]["by_reason"] == {"none": 13}
        # The end does not wait for copies: `Sidecar` would say so.
        assert running.end(seconds=8.0) == 0


def test_an_upstream_becomes_a_router_and_is_one_no_more(tmp_path: Path) -> None:
    """Under the same name and on the same port; clients stay connected."""
    front = free_port()
    with ExitStack() as stack:
        web = stack.enter_context(ScriptedEndpoint(respond(ok(b"web"))))
        new = stack.enter_context(ScriptedEndpoint(respond(ok(b"new"))))
        plain = routed(front, "", one("front", web), one("new", new)).replace(
            "routers:\n  front: {routes: []}\n", ""
        )
        running = stack.enter_context(Sidecar(tmp_path, plain))
        with Load(front, 2) as load:
            load.wait_for_more(100)
            rewritten(running, routed(front, "{to: new}", one("web", web), one("new", new)))
            load.wait_for(lambda load: load.bodies["new"] >= 100, "answers by the route")
            assert running.upstream("front")["endpoints"] == []
            rewritten(running, plain)
            before = load.bodies["web"]
            load.wait_for(lambda load: load.bodies["web"] >= before + 100, "answers without a route")
            assert "routes" not in running.upstream("front")
        assert load.errors == []
        assert set(load.statuses) == {200}
        assert load.reconnects == 0


def test_a_router_moves_to_another_port(tmp_path: Path) -> None:
    front = free_port()
    with (
        ScriptedEndpoint(respond(ok(b"web"))) as web,
        Sidecar(tmp_path, routed(front, "{to: web}", one("web", web))) as running,
    ):
        other = free_port()
        rewritten(running, routed(other, "{path: /only, to: web}", one("web", web)))
        assert get(other, "/only").text == "web"
        assert get(other, "/").status == 404
