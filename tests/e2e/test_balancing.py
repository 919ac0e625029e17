"""Each balancing policy as its users get it: a sidecar of a configuration file, before real endpoints."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Thread

import pytest
from support.endpoints import Conversation, Script, ScriptedEndpoint, ok, respond
from support.http import HttpClient
from support.ports import free_port
from support.proxy import Sidecar, configuration


def named(name: str) -> Script:
    return respond(ok(name.encode()))


def slow(seconds: float) -> Script:
    """Answers late."""

    def script(conversation: Conversation) -> None:
        while conversation.read_request() is not None:
            conversation.endpoint.stopping.wait(seconds)
            conversation.send(ok(b"slow"))

    return script


@contextmanager
def balanced(
    tmp_path: Path, scripts: dict[str, Script], policy: str, sidecar: str = "", hosts: str = ""
) -> Iterator[tuple[Sidecar, int]]:
    """A sidecar and its port. hosts: the list of them, where `{NAME}` stands for an endpoint's port."""
    port = free_port()
    with ExitStack() as stack:
        found = {name: stack.enter_context(ScriptedEndpoint(script)) for name, script in scripts.items()}
        text = configuration(port, [one.port for one in found.values()], policy=policy, sidecar=sidecar)
        if hosts:
            start = text.index("hosts: [")
            listed = hosts.format(**{name: one.port for name, one in found.items()})
            text = text[:start] + listed + text[text.index("]", start) + 1 :]
        yield stack.enter_context(Sidecar(tmp_path, text)), port


def ask(port: int, count: int, *fields: tuple[str, str]) -> Counter[str]:
    """Who has answered, over one connection."""
    found: Counter[str] = Counter()
    with HttpClient(port) as client:
        for _ in range(count):
            client.send_head("GET", "/", fields)
            found[client.read_response().text] += 1
    return found


@pytest.mark.parametrize("strategy", ["round_robin", "least_request", "random", "peak_ewma"])
def test_all_endpoints_have_their_share(tmp_path: Path, strategy: str) -> None:
    scripts = {name: named(name) for name in "abc"}
    with balanced(tmp_path, scripts, f"strategy: {strategy}") as (sidecar, port):
        found = ask(port, 90)
        assert sum(found.values()) == 90
        assert set(found) == set("abc")
        if strategy == "round_robin":
            assert set(found.values()) == {30}
        assert sidecar.upstream("api")["strategy"] == strategy


@pytest.mark.parametrize("strategy", ["least_request", "peak_ewma"])
def test_a_slow_endpoint_gets_less(tmp_path: Path, strategy: str) -> None:
    """With round robin it would be a third of all, and everybody would wait for it in turn."""
    scripts = {"a": named("a"), "b": named("b"), "slow": slow(0.2)}
    with balanced(tmp_path, scripts, f"strategy: {strategy}") as (_, port):
        found: Counter[str] = Counter()
        until = time.monotonic() + 2.0

        def load() -> None:
            while time.monotonic() < until:
                found.update(ask(port, 5))

        threads = [Thread(target=load) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found["slow"] < 0.15 * sum(found.values())
        assert min(found["a"], found["b"]) > 0.25 * sum(found.values())


def test_ring_hash_keeps_a_user_at_one_endpoint(tmp_path: Path) -> None:
    scripts = {name: named(name) for name in "abcd"}
    with balanced(tmp_path, scripts, "strategy: ring_hash, hash_on: 'header:X-User'") as (_, port):
        homes = {}
        for user in range(12):
            (homes[user],) = ask(port, 5, ("X-User", str(user)))
        assert len(set(homes.values())) > 1
        for user, home in homes.items():
            assert ask(port, 2, ("x-user", str(user))) == {home: 2}


def test_the_own_zone_first_and_the_other_when_it_has_gone(tmp_path: Path) -> None:
    hosts = (
        "hosts: [{{host: 127.0.0.1, port: {near}, zone: a}}, {{host: 127.0.0.1, port: {far}, zone: b}},"
        " {{host: 127.0.0.1, port: {gone}, zone: a}}]"
    )

    def refuse(conversation: Conversation) -> None:
        conversation.reset()

    scripts = {"near": named("near"), "far": named("far"), "gone": refuse}
    policy = "circuit_breaker_threshold: 1, circuit_breaker_timeout: 60"
    with balanced(tmp_path, scripts, policy, "zone: a", hosts) as (sidecar, port):
        found = ask(port, 40)
        assert sum(found.values()) == 40, "what was reset was tried elsewhere"
        # One of two is left in the own zone: 70 of 100 stay there, once its breaker is open.
        assert 26 <= found["near"] <= 30
        assert [one["zone"] for one in sidecar.upstream("api")["endpoints"]] == ["a", "b", "a"]
