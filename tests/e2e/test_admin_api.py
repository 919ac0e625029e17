"""The admin API of a running sidecar: as it describes itself, by its token alone, and without any secret."""

import asyncio
import json
import re
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from jsonschema import Draft202012Validator
from support.collector import Collector
from support.endpoints import ScriptedEndpoint, ok, respond
from support.http import HttpClient, Response, get
from support.ports import free_port
from support.proxy import ROOT, Sidecar, clean_environment, command, configuration
from support.streams import EventStream
from support.waiting import wait_until

from sidecar.admin.server import MAX_CLIENTS

# Stands wherever a secret does: whoever shows it has shown one.
MARKER = "do-not-tell"
TOKEN = f"{MARKER}-admin"

# Where applications have theirs.
WITH_SECRETS = [
    ("Authorization", f"Bearer {MARKER}"),
    ("Proxy-Authorization", f"Basic {MARKER}"),
    ("Cookie", f"session={MARKER}"),
    ("Referer", f"http://me:{MARKER}@a.example/?key={MARKER}"),
    ("X-Api-Key", MARKER),
    ("X-Request-Id", "told"),
    ("Traceparent", f"00-{MARKER}"),
]


def ask(
    sidecar: Sidecar, path: str, method: str = "GET", *fields: tuple[str, str], token: str = TOKEN
) -> Response:
    """One call with the token; a POST as whoever may sends it."""
    sent = [("Connection", "close"), *fields]
    if token:
        sent.append(("Authorization", f"Bearer {token}"))
    if method == "POST":
        sent.append(("X-Sidecar-Control", "1"))
    with HttpClient(sidecar.admin, timeout=30.0) as client:
        return client.request(method, path, sent)


def everything(
    directory: Path, listen: tuple[int, int, int], alive: int, dead: int, collector: str, token: str
) -> str:
    """A configuration with every kind of thing that has a secret, or is shown. dead: a port where nobody listens.

    collector, token: of spans: its URL, and the key that says where its token is.
    """
    for name in ("admin", "consul", "etcd", "redis", "otlp"):
        (directory / f"{name}.secret").write_text(f"{MARKER}-{name}\n")
    (directory / "endpoints.yml").write_text(f'near: ["127.0.0.1:{alive}"]\n')
    http, redis, near = listen
    return f"""services:
  redis: {{host: 127.0.0.1, port: {dead}, scheme: redis,
    health_check: {{password_file: redis.secret, username: me, interval: 0.2, timeout: 0.2}}}}
  near: {{source: file}}
load_balancers:
  api: {{hosts: ["127.0.0.1:{alive}", "127.0.0.1:{dead}"], circuit_breaker_threshold: 1,
    health_check: {{interval: 0.2}}}}
external_registry:
  - {{type: file, path: endpoints.yml}}
  - {{type: consul, host: "127.0.0.1:{dead}", token_file: consul.secret}}
  - {{type: etcd, host: "127.0.0.1:{dead}", username: me, password_env: ETCD_PASSWORD}}
defaults: {{source: static}}
register: [{{name: web, port: {alive}, registry: consul, host: web.example}}]
sidecar:
  {{bind: [127.0.0.1], ports: {{{http}: api, {redis}: redis, {near}: near}}, admin: "127.0.0.1:ADMIN",
    metrics: "127.0.0.1:METRICS", access_log: access.jsonl, request_id: true,
    tracing: {{endpoint: "{collector}", sample: 1, {token}}}, admin_token_file: admin.secret,
    workers: WORKERS, drain_timeout: 1, registry_wait: 0}}
"""


@pytest.mark.parametrize(
    ("workers", "token"), [(1, "token_file: otlp.secret"), (2, "token_env: OTLP_TOKEN")], ids=["1", "2"]
)
def test_every_answer_is_as_described_and_holds_no_secret(tmp_path: Path, workers: int, token: str) -> None:
    listen = (free_port(), free_port(), free_port())
    environ = {
        "ETCD_PASSWORD": f"{MARKER}-etcd",
        "OTHER_SECRET": f"{MARKER}-other",
        "OTLP_TOKEN": f"{MARKER}-otlp",
        "AUTOBOT_LOG_LEVEL": "DEBUG",
    }
    with socket.socket() as bound, ScriptedEndpoint(respond(ok())) as alive, Collector() as collector:
        bound.bind(("127.0.0.1", 0))
        text = everything(tmp_path, listen, alive.port, bound.getsockname()[1], collector.url, token)
        text = text.replace("WORKERS", str(workers))
        with Sidecar(tmp_path, text, environ=environ) as sidecar:
            for port in (listen[0], listen[0], listen[0], listen[2]):
                with HttpClient(port) as client:
                    answer = client.request("GET", f"/path?key={MARKER}", WITH_SECRETS)
                    assert answer.status in (200, 503)
            with socket.create_connection(("127.0.0.1", listen[1]), 5) as session:
                session.settimeout(5)
                assert _is_over(session)

            def failed() -> bool:
                view = ask(sidecar, "/v1/upstreams").json
                by_name = {one["name"]: one for one in view["upstreams"]}
                checked = [one["check"] for one in by_name["api"]["endpoints"]]
                return bool(
                    all(checked)
                    and by_name["redis"]["endpoints"][0]["check"]
                    and by_name["near"]["endpoints"]
                    and view["registrations"][0]["state"] == "failing"
                )

            wait_until(failed, "checks, a snapshot and a failing registration")
            answers = _validated(sidecar, alive.port)
            spans = collector.wait_for(4)
            assert collector.tokens == {f"Bearer {MARKER}-otlp"}
            (tmp_path / "endpoints.yml").write_text("near: [\n")
            metrics = get(sidecar.metrics_port, "/metrics").text
            assert 'sidecar_admin_requests_total{code_class="2xx"}' in metrics
            checked = _command(sidecar, "check", "--config", str(sidecar.path))
            assert checked.returncode == 0
            shown = [*answers, metrics, checked.stdout, checked.stderr]
        shown += [sidecar.process.stdout, sidecar.process.stderr]
    written = (tmp_path / "access.jsonl").read_text()
    assert written.count('"path":"/path"') == written.count('"request_id":"told"') == 4
    shown += [written, repr([(span.name, span.state, span.attributes, span.resource) for span in spans])]
    for text in shown:
        assert MARKER not in text, text[max(0, text.index(MARKER) - 300) : text.index(MARKER) + 50]
    log = sidecar.process.stderr
    assert "api: drain, asked for by 127.0.0.1:" in log
    assert "reload, asked for by 127.0.0.1:" in log
    assert "refused to 127.0.0.1:" in log


def _is_over(session: socket.socket) -> bool:
    try:
        return session.recv(1) == b""
    except ConnectionResetError:
        return True


def _validated(sidecar: Sidecar, alive: int) -> list[str]:
    """The text of every answer, each of which is as /openapi.json says."""
    described = ask(sidecar, "/openapi.json", token="")
    assert described.status == 200
    document = described.json
    assert document["security"] == [{"token": []}]
    bad = sidecar.path.read_text() + "nonsense: 1\n"
    good = sidecar.path.read_text()
    endpoint = f"127.0.0.1:{alive}"
    act = "/v1/upstreams/{name}/{action}"
    asked = [
        (200, "GET", "/v1/upstreams", "/v1/upstreams"),
        (200, "GET", "/upstreams", "/upstreams"),
        *[(200, "GET", f"/v1/upstreams/{name}", "/v1/upstreams/{name}") for name in ("api", "redis", "near")],
        (404, "GET", "/v1/upstreams/nobody", "/v1/upstreams/{name}"),
        *[(200, "GET", f"/v1/explain/{name}", "/v1/explain/{name}") for name in ("api", "redis", "near")],
        (404, "GET", "/v1/explain/nobody", "/v1/explain/{name}"),
        (200, "GET", "/v1/config", "/v1/config"),
        (200, "GET", "/v1/history", "/v1/history"),
        *[
            (200, "POST", f"/v1/upstreams/api/{action}?endpoint={endpoint}", act)
            for action in ("drain", "enable", "trip", "reset")
        ],
        (200, "POST", "/v1/upstreams/redis/drain", act),
        (404, "POST", "/v1/upstreams/api/drain?endpoint=a:1", act),
        (400, "POST", "/v1/upstreams/api/drain?endpint=a:1", act),
        (200, "POST", "/v1/reload", "/v1/reload"),
        (200, "GET", "/v1/upstreams", "/v1/upstreams"),
        (200, "GET", "/v1/explain/redis", "/v1/explain/{name}"),
    ]
    texts = [described.text, asyncio.run(_told(document, sidecar.admin))]
    for status, method, path, template in asked:
        texts.append(_valid(document, ask(sidecar, path, method), status, method, template))
    sidecar.path.write_text(bad)
    texts.append(_valid(document, ask(sidecar, "/v1/reload", "POST"), 422, "POST", "/v1/reload"))
    sidecar.path.write_text(good)
    for token in ("", f"{MARKER}-guess"):
        for _, method, path, template in asked:
            texts.append(_valid(document, ask(sidecar, path, method, token=token), 401, method, template))
    foreign = ask(sidecar, "/v1/upstreams", "GET", ("Origin", "http://evil.example"))
    texts.append(_valid(document, foreign, 403, "GET", "/v1/upstreams"))
    return texts


def _valid(document: dict[str, Any], answer: Response, status: int, method: str, template: str) -> str:
    assert answer.status == status, answer.text
    assert answer.header("Cache-Control") == "no-store"
    assert answer.header("X-Content-Type-Options") == "nosniff"
    described = document["paths"][template][method.lower()]["responses"][str(status)]
    schema = described["content"]["application/json"]["schema"]
    shape = {**schema, "components": document["components"]}
    Draft202012Validator(shape, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(answer.json)
    return answer.text


async def _told(document: dict[str, Any], port: int) -> str:
    """What is told until a second has passed, which is as described."""
    media = document["paths"]["/v1/events"]["get"]["responses"]["200"]["content"]["text/event-stream"]
    sent = {"Authorization": f"Bearer {TOKEN}"}
    found = {}
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/v1/events", headers=sent) as response,
    ):
        stream = EventStream(response)
        while found.keys() != media["x-event-data"].keys():
            event = await stream.next()
            shape = {**media["x-event-data"][event.name], "components": document["components"]}
            Draft202012Validator(shape).validate(event.data)
            found[event.name] = event.data
    assert found["state"]["order"] == list(found["history"]["upstreams"])
    return json.dumps(found)


def _command(sidecar: Sidecar, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command(*arguments)],
        env=clean_environment(**environ),
        cwd=sidecar.directory,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_a_token_comes_and_goes_with_reloads_and_commands_send_it(tmp_path: Path) -> None:
    listen = free_port()
    with ScriptedEndpoint(respond(ok())) as one:
        text = configuration(listen, [one.port], sidecar="watch: false")
        with Sidecar(tmp_path, text) as sidecar:
            where = ("--admin", f"127.0.0.1:{sidecar.admin}")
            assert _command(sidecar, "status", *where).returncode == 0
            without = sidecar.path.read_text()
            sidecar.path.write_text(
                without.replace("watch: false", "admin_token_file: admin.token, watch: false")
            )
            assert sidecar.reload().json["changes"] == ["sidecar.admin_token_file"]
            assert ask(sidecar, "/v1/upstreams").status == 503, "there is no such file yet"
            (tmp_path / "admin.token").write_text(TOKEN)
            said = _command(sidecar, "drain", "api", *where)
            assert (said.returncode, said.stdout) == (1, "")
            assert said.stderr == (
                f"sidecar: the sidecar at 127.0.0.1:{sidecar.admin} asks for its token; "
                "give --admin-token-file FILE, or set SIDECAR_ADMIN_TOKEN\n"
            )
            said = _command(sidecar, "drain", "api", *where, "--admin-token-file", "admin.token")
            assert said.returncode == 0, said.stderr
            assert ask(sidecar, "/v1/upstreams/api").json["endpoints"][0]["drained"] is True
            with HttpClient(listen) as client:
                assert client.request().error == "draining"
            for arguments in (
                ("enable", "api"),
                ("status",),
                ("explain", "api"),
                ("trip", "api"),
                ("reset", "api"),
            ):
                said = _command(sidecar, *arguments, *where, SIDECAR_ADMIN_TOKEN=TOKEN)
                assert said.returncode == 0, said.stderr
            sidecar.path.write_text(without.replace("watch: false", "admin_read_only: true"))
            said = _command(sidecar, "reload", *where, SIDECAR_ADMIN_TOKEN=TOKEN)
            assert said.returncode == 0, said.stderr
            said = _command(sidecar, "drain", "api", *where)
            assert (said.returncode, "admin_read_only" in said.stderr) == (1, True)
            assert get(sidecar.admin, "/v1/upstreams").status == 200


def test_connections_beyond_the_most_are_closed_at_once(tmp_path: Path) -> None:
    with (
        ScriptedEndpoint(respond(ok())) as one,
        Sidecar(tmp_path, configuration(free_port(), [one.port])) as sidecar,
        ExitStack() as kept,
    ):
        for port in (sidecar.admin, sidecar.metrics_port):
            for _ in range(MAX_CLIENTS):
                kept.enter_context(socket.create_connection(("127.0.0.1", port), 5))
            for _ in range(3):
                with socket.create_connection(("127.0.0.1", port), 5) as more:
                    assert _is_over(more)
        kept.close()
        wait_until(lambda: _refused(sidecar) >= 6, "room for another one")


def _refused(sidecar: Sidecar) -> float:
    try:
        return sidecar.metrics()["sidecar_admin_clients_refused_total"]
    except ConnectionError:  # it has not seen all of them leave
        return 0.0


@pytest.mark.server("curl")
def test_what_the_readme_has_curl_ask_is_answered(tmp_path: Path) -> None:
    section = (ROOT / "sidecar/admin/README.md").read_text()
    asked = re.findall(r"^\$ (curl .*)$", section, re.MULTILINE)
    assert len(asked) == 3
    (tmp_path / "admin.token").write_text(TOKEN)
    with ScriptedEndpoint(respond(ok())) as one:
        address = f"127.0.0.1:{one.port}"
        text = configuration(free_port(), [one.port], sidecar="TOKEN")
        for line in asked:
            token = "admin_token_file: admin.token" if "Bearer" in line else "admin_read_only: false"
            with Sidecar(tmp_path, text.replace("TOKEN", token)) as sidecar:
                real = line.replace("api-01.autobot.prod:8001", address)
                real = re.sub(r"(localhost|sidecar\.example):9901", f"127.0.0.1:{sidecar.admin}", real)
                done = subprocess.run(
                    ["bash", "-c", real.replace("curl ", "curl -fsS --max-time 10 ", 1)],
                    capture_output=True,
                    text=True,
                    cwd=tmp_path,
                    timeout=20,
                    check=False,
                )
                assert done.returncode == 0, f"{real}: {done.stderr}"
                assert json.loads(done.stdout)
