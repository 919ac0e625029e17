"""`sidecar run --register` with a Consul agent: a local service is there while it is well, and gone before the sidecar.

The agent is `support.consul`'s; what a registration has in common with any other registry is in `test_registration`.
"""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.background import Background
from support.consul import ConsulAgent, Token
from support.http import get
from support.ports import free_port
from support.proxy import Sidecar
from support.registrations import announcing, registrations, shown
from support.servers import Nginx, answers
from support.waiting import wait_until

pytestmark = pytest.mark.server("nginx")


class Consul:
    """An agent in a thread of its own."""

    def __init__(self, background: Background) -> None:
        self.agent = ConsulAgent()
        self.agent.node_address = "127.0.0.1"
        self._background = background
        background.enter(self.agent)

    def known(self) -> dict[str, dict[str, Any]]:
        """The passing instances, by identity."""
        return self._background.call(
            lambda: {name: one.service for name, one in self.agent.instances.items() if one.passing}
        )

    def forget(self) -> None:
        """Lose all that is registered."""
        self._background.call(lambda: [self.agent.remove(name) for name in list(self.agent.instances)])

    def allow(self, **tokens: Token) -> None:
        """Know these tokens, and no others."""

        def change() -> None:
            self.agent.tokens = tokens

        self._background.call(change)

    def stop(self) -> None:
        self._background.run(self.agent.stop())

    def start(self) -> None:
        self._background.run(self.agent.start())


@pytest.fixture
def consul() -> Iterator[Consul]:
    with Background() as background:
        yield Consul(background)


def configured(
    consul: Consul, listen: int = 0, *, register: str = "", workers: int = 1, extra: str = ""
) -> str:
    where = f'host: "127.0.0.1:{consul.agent.port}"{extra}'
    return announcing(where, "consul", listen, register=register, workers=workers)


def checked(port: int, ttl: float = 3) -> str:
    """A registration that follows its service at once."""
    check = "{type: tcp, interval: 0.1, rise: 1, fall: 2}"
    return f"{{name: web, host: 127.0.0.1, port: {port}, ttl: {ttl:g}, weight: 7, health_check: {check}}}"


def count(running: Sidecar, result: str) -> float:
    return registrations(running, "consul", result)


@pytest.mark.parametrize("workers", [1, 2])
def test_who_announces_is_found_by_others_until_it_drains(
    consul: Consul, web: Nginx, tmp_path: Path, workers: int
) -> None:
    own, others = free_port(), free_port()
    (tmp_path / "own").mkdir()
    (tmp_path / "others").mkdir()
    flag = ("--register", f"web={web.port}")
    with (
        Sidecar(tmp_path / "others", configured(consul, others)) as other,
        Sidecar(tmp_path / "own", configured(consul, own, workers=workers), arguments=flag) as one,
    ):
        wait_until(consul.known, "the service is announced")
        known = consul.known()
        assert list(known) == [f"web-{web.port}"], "workers announce nothing"
        assert (known[f"web-{web.port}"]["Address"], known[f"web-{web.port}"]["Port"]) == ("", web.port)
        wait_until(lambda: other.upstream("web")["endpoints"], "the other sidecar has heard of it")
        assert get(others, "/").text == "a\n"
        assert (shown(one)["state"], shown(one)["address"]) == ("announced", f":{web.port}")

        one.send(signal.SIGTERM)
        wait_until(lambda: not consul.known(), "the service is withdrawn")
        assert answers(own), "the listener is there yet"
        wait_until(lambda: not other.upstream("web")["endpoints"], "the other sidecar has heard of that")
        assert one.process.wait() == 0
        assert consul.agent.instances == {}


def test_it_follows_its_service_and_is_renewed(consul: Consul, web: Nginx, tmp_path: Path) -> None:
    with Sidecar(tmp_path, configured(consul, register=checked(web.port))) as one:
        wait_until(consul.known, "the service is announced")
        wait_until(lambda: count(one, "renewed") >= 4, "longer than its ttl has passed")
        assert (count(one, "announced"), count(one, "error")) == (1, 0)
        web.stop()
        wait_until(lambda: not consul.known(), "the service is withdrawn")
        web.start()
        wait_until(consul.known, "the service is announced again")
        (service,) = consul.known().values()
        assert service["Meta"] == {"weight": "7"}


def test_what_the_agent_has_forgotten_is_announced_again(consul: Consul, web: Nginx, tmp_path: Path) -> None:
    with Sidecar(tmp_path, configured(consul, register=checked(web.port))) as one:
        wait_until(consul.known, "the service is announced")
        consul.forget()
        assert not consul.known()
        wait_until(consul.known, "it is announced again")
        consul.stop()
        wait_until(lambda: shown(one)["state"] == "failing", "that is shown")
        assert "connection refused" in shown(one)["error"]
        consul.agent.instances.clear()  # it has ended, and comes back without its data
        consul.start()
        wait_until(consul.known, "it is announced once more")
        wait_until(lambda: shown(one)["state"] == "announced", "that is shown, too")
        assert one.process.stderr.count("cannot be announced") == 1


def test_a_token_that_has_expired_is_replaced_in_its_file(consul: Consul, web: Nginx, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first-secret")
    consul.allow(**{"first-secret": Token()})
    text = configured(consul, register=checked(web.port), extra=f", token_file: {token}")
    with Sidecar(tmp_path, text) as one:
        wait_until(consul.known, "the service is announced")
        consul.allow(**{"second-secret": Token()})
        wait_until(lambda: shown(one)["state"] == "failing", "that is shown")
        assert "status 403: ACL not found; give `token_env` or `token_file`" in shown(one)["error"]
        token.write_text("second-secret")
        wait_until(lambda: shown(one)["state"] == "announced", "it is announced again")
        assert consul.known()
    assert consul.agent.instances == {}
    said = one.process.stderr
    assert "secret" not in said


def test_an_agent_that_is_gone_holds_up_neither_start_nor_end(
    consul: Consul, web: Nginx, tmp_path: Path
) -> None:
    consul.stop()
    with Sidecar(tmp_path, configured(consul, register=checked(web.port))) as one:
        wait_until(lambda: shown(one)["state"] == "failing", "it is told")
        consul.start()
        wait_until(consul.known, "it is announced once the agent is there")
        consul.stop()
        one.send(signal.SIGTERM)
        assert one.process.wait(8.0) == 0
