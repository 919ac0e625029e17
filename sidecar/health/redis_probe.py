"""A Redis check: AUTH where there is a password, PING, and ROLE where one is expected.

Requests are arrays of bulk strings, replies are read as far as is needed: https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from __future__ import annotations

from asyncio import IncompleteReadError, LimitOverrunError
from typing import TYPE_CHECKING

from sidecar.config.secrets import SecretError, read_secret
from sidecar.health.connection import CannotAskError, UnwellError, conversation

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter
    from collections.abc import Mapping

    from sidecar.config.settings import HealthSettings
    from sidecar.health.connection import Resolve
    from sidecar.tls.client import ClientTls

__all__ = ["RedisProbe"]

SHOWN = 80  # characters of a reply that a message repeats
_ROLES = {b"master": "master", b"slave": "replica"}  # Redis has kept its old word on the wire


class RedisProbe:
    """PING expects PONG.

    environ: where `password_env` is looked up. Variable and file are read for each check, so that a secret may be
    changed while the process runs.
    """

    __slots__ = ("_environ", "_greeting", "_settings")

    def __init__(self, settings: HealthSettings, environ: Mapping[str, str], greeting: bytes = b"") -> None:
        self._greeting = greeting
        self._settings = settings
        self._environ = environ

    @property
    def question(self) -> str:
        """What it asks, for people."""
        role = self._settings.role
        return f"PING, role {role}" if role else "PING"

    async def ask(self, host: str, port: int, resolve: Resolve, tls: ClientTls | None = None) -> None:
        """Raises UnwellError, CannotAskError, OSError; see `probes.Probe`."""
        secret = self._secret()
        async with conversation(host, port, resolve, self._greeting, tls) as (reader, writer):
            try:
                if secret:
                    user = self._settings.username.encode()
                    _send(writer, b"AUTH", *([user] if user else []), secret)
                    await _expect(reader, "AUTH", b"+OK")
                _send(writer, b"PING")
                await _expect(reader, "PING", b"+PONG")
                if self._settings.role:
                    _send(writer, b"ROLE")
                    await self._expect_role(reader)
            except IncompleteReadError:
                raise UnwellError("closed before it had answered") from None
            except LimitOverrunError:
                raise UnwellError("no Redis: a line without end") from None

    async def _expect_role(self, reader: StreamReader) -> None:
        """An array whose first item is a bulk string with the role; what follows it is not read."""
        line = await _line(reader, "ROLE")
        if line[:1] == b"*":
            await _line(reader, "ROLE")  # the length of what comes
            line = await _line(reader, "ROLE")
        role = _ROLES.get(line, _shown(line))
        if role != self._settings.role:
            raise UnwellError(f"its role is {role}, not {self._settings.role}")

    def _secret(self) -> bytes:
        """The password; empty where none is configured. Raises CannotAskError."""
        settings = self._settings
        try:
            return read_secret("password", settings.password_env, settings.password_file, self._environ)
        except SecretError as error:
            raise CannotAskError(str(error)) from None


def _send(writer: StreamWriter, *words: bytes) -> None:
    """One command."""
    writer.write(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words))


async def _expect(reader: StreamReader, command: str, expected: bytes) -> None:
    line = await _line(reader, command)
    if line != expected:
        raise UnwellError(f"{command} is answered {_said(command, line)}")


async def _line(reader: StreamReader, command: str) -> bytes:
    """One line without its end. Raises UnwellError for an error of the server's."""
    line = (await reader.readuntil(b"\r\n"))[:-2]
    if line[:1] == b"-":
        advice = "; set password_env or password_file" if line.startswith(b"-NOAUTH") else ""
        raise UnwellError(f"{command} is answered {_said(command, line)}{advice}")
    return line


def _said(command: str, line: bytes) -> str:
    """A reply in words; of one to AUTH its kind alone, as the rest may repeat what it was given.

    A server without AUTH does: `ERR unknown command 'AUTH', with args beginning with: ...`.
    """
    if command != "AUTH":
        return _shown(line)
    kind = line.partition(b" ")[0].lstrip(b"+-")
    return _shown(kind) if kind.isalpha() and kind.isupper() else "something else"


def _shown(line: bytes) -> str:
    """A reply in words: one printable line that is not long."""
    text = line[:SHOWN].decode("utf-8", "replace").lstrip("+-$").rstrip(".")
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text) or "nothing"
