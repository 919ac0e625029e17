"""Asking a sidecar that has a token, or does not do what it is asked for."""

import io
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.cli import run
from sidecar.config.secrets import SecretError
from sidecar.console.asking import AdminAddress, NoAnswerError, RefusedError, ask
from sidecar.console.control import act
from sidecar.console.reload import reload

MARKER = "do-not-tell-9f2"


class Canned:
    """A server that gives one answer to each connection. asked: the heads that came."""

    def __init__(self, status: int, document: dict[str, Any] | bytes) -> None:
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        self._answer = b"HTTP/1.1 %d Whatever\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.asked: list[bytes] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            connection = self._listener.accept()[0]
            with connection:
                connection.settimeout(5)
                head = b""
                while b"\r\n\r\n" not in head:
                    piece = connection.recv(4096)
                    if not piece:
                        return  # `stop`
                    head += piece
                self.asked.append(head)
                connection.sendall(self._answer)

    def stop(self) -> None:
        host, _, port = self.address.rpartition(":")
        socket.create_connection((host, int(port))).close()
        self._thread.join()
        self._listener.close()


Serve = Callable[[int, dict[str, Any] | bytes], Canned]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts such servers."""
    started: list[Canned] = []

    def serve(status: int, document: dict[str, Any] | bytes) -> Canned:
        started.append(Canned(status, document))
        return started[-1]

    yield serve
    for one in started:
        one.stop()


def test_the_token_is_sent_and_shown_to_nobody(serve: Serve) -> None:
    server = serve(200, {})
    address = AdminAddress(server.address, MARKER.encode())
    ask(address, "/v1/upstreams")
    ask(server.address, "/v1/upstreams")
    first, second = server.asked
    assert f"\r\nAuthorization: Bearer {MARKER}\r\n".encode() in first
    assert b"Authorization" not in second
    assert address == server.address
    assert MARKER not in f"{address} {address!r}"


def test_it_comes_from_a_file_or_else_from_the_variable(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("from-file\n")
    environ = {"SIDECAR_ADMIN_TOKEN": "from-variable"}
    assert AdminAddress.of("a:1", str(file), environ).token == b"from-file"
    assert AdminAddress.of("a:1", None, environ).token == b"from-variable"
    assert AdminAddress.of("a:1", None, {"SIDECAR_ADMIN_TOKEN": ""}).token == b""
    assert AdminAddress.of("a:1", None, {}).token == b""


def test_a_file_that_cannot_be_read_is_an_error_of_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SIDECAR_ADMIN_TOKEN", raising=False)
    for command in (["status"], ["explain", "api"], ["drain", "api"], ["reload"]):
        assert run([*command, "--admin-token-file", str(tmp_path / "none")]) == 2
        said = capsys.readouterr()
        assert said.err == f"sidecar: {tmp_path}/none (admin_token_file): no such file or directory\n"


@pytest.mark.parametrize("bad", [f"{MARKER} x", f"{MARKER}\r\nX-Other: 1", f"{MARKER}\tx", f"\x00{MARKER}"])
def test_what_no_field_can_hold_is_not_sent_and_not_repeated(tmp_path: Path, bad: str) -> None:
    file = tmp_path / "token"
    file.write_bytes(bad.encode())
    for arguments in ((str(file), {}), (None, {"SIDECAR_ADMIN_TOKEN": bad})):
        with pytest.raises(SecretError, match="no part of a token") as raised:
            AdminAddress.of("a:1", *arguments)
        assert MARKER not in str(raised.value)


@pytest.mark.parametrize("bad", ["caf\xe9", "\udcff"])
def test_a_token_may_have_other_letters(serve: Serve, bad: str) -> None:
    server = serve(200, {})
    ask(AdminAddress.of(server.address, None, {"SIDECAR_ADMIN_TOKEN": bad}), "/v1/upstreams")
    assert b"Bearer " + bad.encode("utf-8", "surrogateescape") in server.asked[0]


def test_no_token_and_another_one_are_explained(serve: Serve) -> None:
    server = serve(401, {"error": "send the field", "status": 401})
    with pytest.raises(RefusedError) as raised:
        ask(server.address, "/v1/upstreams")
    assert str(raised.value) == (
        f"the sidecar at {server.address} asks for its token; give --admin-token-file FILE, or set SIDECAR_ADMIN_TOKEN"
    )
    with pytest.raises(RefusedError, match=re.escape("has another token")) as raised:
        ask(AdminAddress(server.address, MARKER.encode()), "/v1/upstreams")
    assert MARKER not in str(raised.value)


@pytest.mark.parametrize("status", [403, 503])
def test_a_refusal_is_told_as_it_was_given(serve: Serve, status: int) -> None:
    server = serve(status, {"error": "this sidecar is only to be looked at", "status": status})
    said = f"sidecar: the sidecar at {server.address} refuses: this sidecar is only to be looked at\n"
    for command in (act, reload):
        errors = io.StringIO()
        arguments = ("drain", "api", None) if command is act else ()
        assert command(*arguments, server.address, io.StringIO(), errors) == 1  # type: ignore[arg-type,operator] # of two kinds
        assert errors.getvalue() == said


@pytest.mark.parametrize("status", [403, 404])
def test_what_answers_there_has_no_say_over_the_terminal(serve: Serve, status: int) -> None:
    server = serve(status, {"error": "red \x1b[31m\nsecond line \u202e", "status": status})
    errors = io.StringIO()
    assert act("drain", "api", None, server.address, io.StringIO(), errors) == 1
    assert errors.getvalue().endswith("red \\x1b[31m\\nsecond line \\u202e\n")


@pytest.mark.parametrize(
    ("action", "said"), [("drain", "drained until `sidecar enable`"), ("enable", "enabled")]
)
def test_draining_says_what_holds_now(serve: Serve, action: str, said: str) -> None:
    server = serve(200, {"upstream": "my api", "action": action, "endpoints": ["a:1"]})
    output = io.StringIO()
    assert act(action, "my api", "a:1", server.address, output, io.StringIO()) == 0
    assert output.getvalue() == f"my api: a:1 is {said}\n"
    assert server.asked[0].startswith(
        b"POST /v1/upstreams/my%20api/" + action.encode() + b"?endpoint=a%3A1 HTTP/1.1"
    )


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b"\xff\xfe", b'{"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}"]
)
def test_what_is_no_object_is_no_sidecars(serve: Serve, body: bytes) -> None:
    with pytest.raises(NoAnswerError, match="is no sidecar's admin address"):
        ask(serve(200, body).address, "/v1/upstreams")
