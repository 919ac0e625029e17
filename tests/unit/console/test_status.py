"""`sidecar status`, against canned answers on a real socket and canned views."""

import errno
import http.client
import io
import json
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.screens import Terminal

from sidecar.console import asking, status
from sidecar.console.asking import NoAnswerError
from sidecar.console.control import act
from sidecar.console.reload import reload
from sidecar.console.status import fetch, show_status

Serve = Callable[[bytes], str]


def _endpoint(state: str = "closed") -> dict[str, Any]:
    return {
        "address": "127.0.0.1:80",
        "in_flight": 0,
        "attempts": {"success": 5},
        "connections": {"open": 1, "idle": 1},
        "breaker": {"state": state, "retry_in": 1.0 if state == "open" else None},
    }


def _view(*states: str) -> dict[str, Any]:
    return {"upstreams": [{"name": "api", "endpoints": [_endpoint(state) for state in states]}]}


def _answer(body: bytes, status_line: str = "200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status_line.encode(), len(body), body)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Answers one connection with the given bytes and closes; gives host:port."""
    threads: list[threading.Thread] = []

    def serve(answer: bytes) -> str:
        listener = socket.create_server(("127.0.0.1", 0))

        def run() -> None:
            with listener, listener.accept()[0] as connection:
                connection.settimeout(5)
                while b"\r\n\r\n" not in connection.recv(4096):
                    pass
                connection.sendall(answer)

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        return f"127.0.0.1:{listener.getsockname()[1]}"

    yield serve
    for thread in threads:
        thread.join()


@pytest.fixture
def refused() -> Iterator[str]:
    """An address where nothing listens and nothing can begin to."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


def _show(
    monkeypatch: pytest.MonkeyPatch, view: dict[str, Any] | Exception, **options: Any
) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of `show_status` when the sidecar answers `view`."""

    def answer(_address: str) -> dict[str, Any]:
        if isinstance(view, Exception):
            raise view
        return view

    monkeypatch.setattr(status, "fetch", answer)
    options = {"json": False, "watch": False, "output": io.StringIO(), **options}
    errors = io.StringIO()
    code = show_status("127.0.0.1:9901", errors=errors, **options)
    return code, options["output"].getvalue(), errors.getvalue()


def _interrupted_after(turns: int, seen: list[float]) -> Callable[[float], None]:
    """A pause in which, at last, Ctrl-C is pressed."""

    def pause(seconds: float) -> None:
        seen.append(seconds)
        if len(seen) >= turns:
            raise KeyboardInterrupt

    return pause


def test_fetch_gives_the_document(serve: Serve) -> None:
    assert fetch(serve(_answer(json.dumps(_view("open")).encode()))) == _view("open")


def test_fetch_says_when_nothing_listens(refused: str) -> None:
    with pytest.raises(NoAnswerError) as raised:
        fetch(refused)
    assert str(raised.value) == (
        f"nothing answers at {refused} (connection refused); is `sidecar run` running, "
        "or is sidecar.admin another address? Give --admin HOST:PORT"
    )


def test_fetch_gives_up_on_what_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "TIMEOUT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(NoAnswerError, match=re.escape("(no answer within 0.05 s)")):
            fetch(address)


@pytest.mark.parametrize("answer", [b"", b"220 smtp.example ESMTP\r\n"])
def test_fetch_tells_another_protocol(serve: Serve, answer: bytes) -> None:
    with pytest.raises(NoAnswerError, match="nothing answers at"):
        fetch(serve(answer))


def test_fetch_passes_on_what_the_system_says(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_options: object) -> None:
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    monkeypatch.setattr(http.client.HTTPConnection, "request", fail)
    with pytest.raises(NoAnswerError, match=re.escape("at 10.0.0.1:80 (network is unreachable);")):
        fetch("10.0.0.1:80")


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (_answer(b"{}"), 200),
        (_answer(b"[]"), 200),
        (_answer(b"<html>"), 200),
        (_answer(b'{"upstreams": []}', "404 Not Found"), 404),
    ],
)
def test_fetch_tells_another_server(serve: Serve, answer: bytes, code: int) -> None:
    address = serve(answer)
    with pytest.raises(NoAnswerError) as raised:
        fetch(address)
    assert str(raised.value) == (
        f"what answers at {address} is no sidecar's admin address (status {code}); give --admin HOST:PORT"
    )


@pytest.mark.parametrize(
    "address",
    [
        "",
        "9901",
        ":9901",
        "localhost",
        "localhost:",
        "localhost:0",
        "a:65536",
        "a:x",
        "a:²",
        "::1:9901",
        "a b:1",
        "a\nb:1",
        "a..b:1",
    ],
)
def test_what_is_no_address_is_a_usage_error(address: str) -> None:
    output, errors = io.StringIO(), io.StringIO()
    assert show_status(address, json=False, watch=False, output=output, errors=errors) == 2
    assert errors.getvalue() == (
        f"sidecar: {address!r} is no admin address; give --admin HOST:PORT, such as 127.0.0.1:9901\n"
    )


def test_ipv6_addresses_are_in_brackets() -> None:
    assert asking._split("[::1]:9901") == ("::1", 9901)


@pytest.mark.parametrize(
    ("states", "code"), [(["closed"], 0), (["open", "closed"], 0), (["open"], 1), (["half_open"], 1), ([], 1)]
)
def test_the_exit_code_says_whether_every_upstream_is_served(
    monkeypatch: pytest.MonkeyPatch, states: list[str], code: int
) -> None:
    assert _show(monkeypatch, _view(*states))[0] == code


def test_one_upstream_that_is_not_served_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    view = {"upstreams": [*_view("closed")["upstreams"], *_view("open")["upstreams"]]}
    assert _show(monkeypatch, view)[0] == 1


def test_a_table_without_colours_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    _, output, errors = _show(monkeypatch, _view("closed"))
    assert output.startswith("sidecar, mode unknown\n\nupstream  state ")
    assert "\x1b" not in output
    assert errors == ""


def test_a_stale_registry_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    view = _view("closed")
    feed = {"source": "etcd", "endpoints": 1, "age": 7.0, "stale": True, "saved": False, "error": "refused"}
    view["upstreams"][0]["registries"] = [feed]
    code, output, _ = _show(monkeypatch, view)
    assert code == 0
    assert output.endswith("\netcd is stale for 1 of 1 upstream, last heard of 7 s ago: refused\n")


def test_json_is_the_document(monkeypatch: pytest.MonkeyPatch) -> None:
    code, output, _ = _show(monkeypatch, _view("open"), json=True)
    assert code == 1
    assert json.loads(output) == _view("open")
    assert output.startswith("{\n  ")


def test_no_answer_is_one_line_on_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _show(monkeypatch, NoAnswerError("nothing there")) == (1, "", "sidecar: nothing there\n")


def test_watching_repeats_until_interrupted_and_gives_the_last_code(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    code, output, _ = _show(monkeypatch, _view("open"), watch=True, pause=_interrupted_after(3, seen))
    assert code == 1
    assert seen == [1.0, 1.0, 1.0]
    assert output.count("upstream") == 3
    assert output.count("not well") == 3


def test_watching_as_json_gives_a_line_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"watch": True, "json": True, "pause": _interrupted_after(2, [])}
    code, output, _ = _show(monkeypatch, _view("closed"), **options)
    assert code == 0
    assert [json.loads(line) for line in output.splitlines()] == [_view("closed")] * 2


def test_watching_goes_on_while_the_sidecar_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"watch": True, "pause": _interrupted_after(2, [])}
    assert _show(monkeypatch, NoAnswerError("away"), **options) == (1, "", "sidecar: away\n" * 2)


def test_watching_on_a_terminal_draws_over_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    threads = threading.active_count()
    options = {"watch": True, "output": Terminal(), "pause": _interrupted_after(2, [])}
    code, output, errors = _show(monkeypatch, _view("closed"), **options)
    assert code == 0
    assert threading.active_count() == threads
    assert "\x1b[2K" in output  # a line of the first picture is erased
    assert output.endswith("\x1b[?25h")  # and the cursor is back
    assert errors == ""


def test_on_a_terminal_no_answer_takes_the_table_s_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    options = {"watch": True, "output": Terminal(), "pause": _interrupted_after(1, [])}
    code, output, errors = _show(monkeypatch, NoAnswerError("nothing there"), **options)
    assert code == 1
    assert "nothing there" in output
    assert errors == ""


def test_a_reader_that_has_seen_enough_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "w") as output:
        monkeypatch.setattr(status, "fetch", lambda _address: _view("closed"))
        assert show_status("127.0.0.1:9901", json=True, watch=False, output=output, errors=io.StringIO()) == 0
        # What the interpreter flushes when it exits goes nowhere, quietly.
        print("more", file=output, flush=True)


def test_stdout_and_stderr_are_the_usual_places(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(status, "fetch", lambda _address: _view("closed"))
    assert show_status("127.0.0.1:9901", json=False, watch=False) == 0
    assert "well" in capsys.readouterr().out


# Actions


def acted(action: str, address: str, endpoint: str | None = None) -> tuple[int, str, str]:
    output, errors = io.StringIO(), io.StringIO()
    code = act(action, "my api", endpoint, address, output, errors)
    return code, output.getvalue(), errors.getvalue()


def test_what_was_done_is_said_endpoint_by_endpoint(serve: Serve) -> None:
    done = json.dumps({"upstream": "my api", "action": "trip", "endpoints": ["a:1", "b:2"]}).encode()
    assert acted("trip", serve(_answer(done)), "a:1") == (
        0,
        "my api: a:1 is out of rotation until `sidecar reset`\nmy api: b:2 is out of rotation until `sidecar reset`\n",
        "",
    )


def test_an_action_on_nobody_is_not_fine(serve: Serve) -> None:
    answer = _answer(b'{"error": "no upstream is called \'my api\'", "status": 404}', "404 Not Found")
    assert acted("reset", serve(answer)) == (1, "", "sidecar: no upstream is called 'my api'\n")


@pytest.mark.parametrize("answer", [_answer(b"{}"), _answer(b'{"endpoints": []}', "403 Forbidden")])
def test_who_does_not_act_is_no_sidecar(serve: Serve, answer: bytes) -> None:
    code, output, errors = acted("trip", serve(answer))
    assert (code, output, "is no sidecar's admin address" in errors) == (1, "", True)


def test_acting_needs_an_address_and_an_answer(refused: str) -> None:
    assert acted("trip", "nowhere")[0] == 2
    assert acted("trip", refused)[0] == 1


# Reloads


def reloaded(address: str) -> tuple[int, str, str]:
    output, errors = io.StringIO(), io.StringIO()
    return reload(address, output, errors), output.getvalue(), errors.getvalue()


def test_what_a_reload_has_changed_is_said(serve: Serve) -> None:
    done = json.dumps({"result": "reloaded", "changes": ["api: added", "web: timeout"]}).encode()
    assert reloaded(serve(_answer(done))) == (0, "api: added\nweb: timeout\nreloaded\n", "")
    done = json.dumps({"result": "unchanged", "changes": []}).encode()
    assert reloaded(serve(_answer(done))) == (0, "unchanged\n", "")


@pytest.mark.parametrize("status_line", ["422 Unprocessable Entity", "409 Conflict"])
def test_why_a_reload_is_refused_is_said(serve: Serve, status_line: str) -> None:
    document = {"error": "not reloaded", "status": 422, "findings": ["a.yml:1: wrong", "a.yml:2: wrong"]}
    assert reloaded(serve(_answer(json.dumps(document).encode(), status_line))) == (
        1,
        "",
        "sidecar: a.yml:1: wrong\nsidecar: a.yml:2: wrong\nsidecar: not reloaded\n",
    )


@pytest.mark.parametrize(
    "answer", [_answer(b"{}"), _answer(b"{}", "422 Unprocessable Entity"), _answer(b"{}", "404 Not Found")]
)
def test_who_does_not_reload_is_no_sidecar(serve: Serve, answer: bytes) -> None:
    code, output, errors = reloaded(serve(answer))
    assert (code, output, "is no sidecar's admin address" in errors) == (1, "", True)


def test_reloading_needs_an_address_and_an_answer(refused: str) -> None:
    assert reloaded("nowhere")[0] == 2
    assert reloaded(refused)[0] == 1


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ("trip", "is out of rotation until `sidecar reset`"),
        ("reset", "is back in rotation"),
        ("drain", "is drained until `sidecar enable`"),
        ("enable", "is enabled"),
    ],
)
def test_each_action_says_what_is_true_now(serve: Serve, action: str, said: str) -> None:
    done = json.dumps({"endpoints": ["[::1]:1\x1b[31m"]}).encode()
    assert acted(action, serve(_answer(done))) == (0, f"my api: [::1]:1\ufffd[31m {said}\n", "")


def test_an_action_on_an_upstream_without_endpoints_says_that(serve: Serve) -> None:
    assert acted("drain", serve(_answer(b'{"endpoints": []}'))) == (0, "my api has no endpoints\n", "")
