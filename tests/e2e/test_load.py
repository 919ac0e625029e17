"""A thousand clients, and an end under load: nothing that was asked for is lost."""

import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.endpoints import Conversation, ScriptedEndpoint, hang, ok
from support.http import HttpClient, get
from support.load import Load
from support.ports import free_port
from support.proxy import Sidecar, configuration
from support.requirements import lacking
from support.servers import Nginx
from support.waiting import wait_until

CLIENTS = 1000


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Room for the clients of this process; the sidecar inherits it, with two descriptors for each client."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * CLIENTS
    if hard != resource.RLIM_INFINITY and hard < wanted:
        lacking(f"this machine allows {hard} descriptors, the test needs {wanted}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.server("nginx")
@pytest.mark.usefixtures("many_descriptors")
def test_a_thousand_keep_alive_clients(tmp_path: Path, nginx: Nginx) -> None:
    listen, requests = free_port(), 5
    # What watches the file opens its descriptors some time after the start.
    with Sidecar(tmp_path, configuration(listen, nginx.ports, sidecar="watch: false")) as sidecar:
        at_rest = sidecar.descriptors()
        with Load(listen, CLIENTS, requests=requests) as load:
            load.wait_for(lambda seen: seen.answered == CLIENTS * requests, "every client's answers")
        assert not load.errors
        assert load.statuses == {200: CLIENTS * requests}
        assert load.connected == CLIENTS  # nobody had to connect again
        # Round robin over connections that wait for each other: even, but for retries of none.
        assert max(load.bodies.values()) - min(load.bodies.values()) <= 1
        metrics = sidecar.metrics()
        counted = 'sidecar_requests_total{code_class="2xx",method="GET",reason="none",upstream="api"}'
        assert metrics[counted] == CLIENTS * requests
        wait_until(lambda: sidecar.metrics()["sidecar_clients"] == 0, "the clients' connections to be let go")
        assert sidecar.metrics()['sidecar_requests_in_flight{upstream="api"}'] == 0
        # Idle connections to endpoints go after 3 s; one descriptor is this question's own.
        wait_until(lambda: sidecar.descriptors() <= at_rest + 1, "every descriptor to be closed again")


@pytest.mark.server("nginx")
def test_sigterm_under_load_loses_no_request(tmp_path: Path, nginx: Nginx) -> None:
    listen = free_port()
    with Sidecar(tmp_path, configuration(listen, nginx.ports)) as sidecar:
        with Load(listen, clients=50) as load:
            load.wait_for_more(1000)
            sidecar.send(signal.SIGTERM)
            # It drains: not ready, but the application, which still lives, is served; each response now asks
            # for a new connection.
            wait_until(lambda: get(sidecar.metrics_port, "/ready").status == 503, "the drain to begin")
            load.wait_for_more(2000)
            assert sidecar.process.running
            assert load.reconnects > 0
        assert sidecar.process.wait(10.0) == 0  # the application is quiet, so there is nothing to wait for
    assert not load.errors
    assert load.statuses == {200: load.sent}


def test_sigterm_lets_a_long_response_finish(tmp_path: Path) -> None:
    listen = free_port()

    def slow(conversation: Conversation) -> None:
        conversation.read_request()
        conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfirst")
        conversation.endpoint.released.wait(20.0)
        conversation.send(b"last")

    with (
        ScriptedEndpoint(slow) as endpoint,
        Sidecar(tmp_path, configuration(listen, [endpoint.port])) as sidecar,
        HttpClient(listen) as client,
    ):
        client.send_head("GET", "/")
        client.read_head()
        sidecar.send(signal.SIGTERM)
        wait_until(lambda: get(sidecar.metrics_port, "/ready").status == 503, "the drain to begin")
        endpoint.released.set()
        assert client.read_end() == b"firstlast"
        assert sidecar.process.wait(10.0) == 0


def test_sigterm_with_idle_clients_ends_soon(tmp_path: Path) -> None:
    listen = free_port()
    with (
        ScriptedEndpoint() as endpoint,
        Sidecar(tmp_path, configuration(listen, [endpoint.port])) as sidecar,
        HttpClient(listen) as client,
    ):
        assert client.request().status == 200
        assert sidecar.end(signal.SIGTERM, 5.0) == 0  # far below the drain time of 30 s
        assert client.read_end() == b""


def test_the_drain_time_ends_what_never_would(tmp_path: Path) -> None:
    listen = free_port()
    with (
        ScriptedEndpoint(hang) as endpoint,
        Sidecar(tmp_path, configuration(listen, [endpoint.port], sidecar="drain_timeout: 500ms")) as sidecar,
        HttpClient(listen) as client,
    ):
        client.send_head("GET", "/")
        endpoint.wait_for(lambda seen: seen.received, "the request")
        assert sidecar.end(signal.SIGTERM, 5.0) == 0


def test_sigint_twice_ends_at_once(tmp_path: Path) -> None:
    listen = free_port()
    with (
        ScriptedEndpoint(hang) as endpoint,
        Sidecar(tmp_path, configuration(listen, [endpoint.port])) as sidecar,
        HttpClient(listen) as client,
    ):
        client.send_head("GET", "/")
        endpoint.wait_for(lambda seen: seen.received, "the request")
        sidecar.send(signal.SIGINT)
        wait_until(lambda: sidecar.metrics()["sidecar_draining"] == 1, "the drain to begin")
        assert sidecar.process.running  # a request is in flight
        assert sidecar.end(signal.SIGINT, 2.0) == 0


def test_an_early_signal_is_no_traceback(tmp_path: Path) -> None:
    """Ctrl-C right after the start, whatever it is doing then."""
    listen = free_port()
    with ScriptedEndpoint(lambda conversation: conversation.send(ok())) as endpoint:
        sidecar = Sidecar(tmp_path, configuration(listen, [endpoint.port]))
        with sidecar:
            assert sidecar.end(signal.SIGINT, 5.0) == 0
        assert "Traceback" not in sidecar.process.stderr
