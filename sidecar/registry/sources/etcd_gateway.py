"""etcd over HTTP: its JSON gateway, with members, tokens, and refusals that say whether another member may do better.

https://etcd.io/docs/v3.5/dev-guide/api_grpc_gateway/: bytes are base64, 64-bit integers are texts, a field that is
zero is left out, and the body of an error has gRPC's code (https://grpc.io/docs/guides/status-codes/).
"""

from __future__ import annotations

import asyncio
import json
import socket
from base64 import b64decode, b64encode
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Self

import aiohttp

from sidecar.config.secrets import SecretError, read_secret
from sidecar.errors import SourceError
from sidecar.registry.sources.http import base_urls, open_session, read_json, tls_context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from sidecar.config.settings import RegistrySettings
    from sidecar.registry.sources.source import Surroundings

__all__ = [
    "NOT_FOUND",
    "Gateway",
    "GatewayError",
    "from_base64",
    "number",
    "prefix_end",
    "to_base64",
    "together",
]

USUAL_PORT = 2379  # for clients, as IANA has it
# Seconds for an answer to one question, and for a stream to begin. A member without a leader says so after 7 of its
# own (5, and twice the time of an election); waiting for the words gains nothing.
ANSWER_TIMEOUT = 5.0
MAX_REFUSAL = 4096  # bytes that are read of one; they have about a hundred
SHOWN = 160  # characters of a refusal that a message repeats
# Of a connection that may be silent for hours: seconds until the kernel asks the other side, between two questions,
# and unanswered ones until the connection counts as broken. 15 s in all.
KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_PROBES = 5, 5, 2

NOT_FOUND, FAILED_PRECONDITION = 5, 9  # gRPC's
# Invalid argument, not found, permission denied, failed precondition, unimplemented, unauthenticated: what one member
# says so, all say.
_SAME_AT_ALL = (3, 5, 7, 9, 12, 16)
# https://github.com/etcd-io/etcd/blob/main/api/v3rpc/rpctypes/error.go: a token ends with its time, with the member
# that gave it, and with any change of users; the second is said where it was given before users were asked for.
_TOKEN_OVER = ("invalid auth token", "user name is empty", "revision of auth store is old")


class GatewayError(SourceError):
    """A member's refusal, or that there is no answer of it. code: gRPC's; 0 where no member has spoken."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code

    @property
    def same_at_all(self) -> bool:
        """Whether asking another member is of no use."""
        return self.code in _SAME_AT_ALL

    @property
    def token_over(self) -> bool:
        """Whether a new token may help."""
        return any(words in str(self) for words in _TOKEN_OVER)


def together(errors: Iterable[SourceError]) -> SourceError:
    """What to raise when all members have failed so, the same words once."""
    different = list(dict.fromkeys(map(str, errors)))
    return SourceError("; ".join(different))


def to_base64(text: str) -> str:
    """UTF-8 bytes as the gateway has them."""
    return b64encode(text.encode("utf-8", "surrogateescape")).decode("ascii")


def from_base64(text: object) -> bytes:
    """The bytes of a field, none where it is left out. Raises SourceError."""
    try:
        return b64decode(text or "", validate=True)  # type: ignore[arg-type] # what else it may be raises
    except (TypeError, ValueError):
        raise SourceError("etcd: a key or a value is no base64") from None


def prefix_end(prefix: str) -> str:
    """Behind the last key that begins with `prefix`, whose last character is below U+007F."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


def number(fields: Any, name: str) -> int:
    """A 64-bit integer of an answer, 0 where it is left out. Raises SourceError."""
    value = fields.get(name, 0) if isinstance(fields, dict) else None
    try:
        return int(value)  # type: ignore[arg-type] # what else it may be raises
    except (TypeError, ValueError):
        raise SourceError(f"etcd: {name} in an answer is no number") from None


class Gateway:
    """A session with the members of one registry, and the tokens they have given. Used as a context manager.

    members: their base URLs, in the order of the configuration. Whatever goes wrong with one raises GatewayError with
    its URL, or SourceError for an answer that cannot be used.
    """

    def __init__(self, settings: RegistrySettings, surroundings: Surroundings) -> None:
        self.members = tuple(base_urls(settings, USUAL_PORT))
        if not self.members:
            raise SourceError(f"{settings.name}: it has no hosts; name those of etcd")
        self._settings = settings
        self._environ = surroundings.environ
        self._session = open_session(surroundings.resolve, tls_context(settings.tls))
        self._server_name = (settings.tls.server_name or None) if settings.tls.enabled else None
        self._tokens: dict[str, str] = {}  # by member; empty for one that asks for none
        self._authenticating = asyncio.Lock()  # passwords are slow to check, by design: once for all who wait

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def call(self, member: str, path: str, message: dict[str, Any]) -> dict[str, Any]:
        """What `member` answers to one question."""
        body = json.dumps(message).encode()
        limits = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT * 6, sock_read=ANSWER_TIMEOUT)
        with _Told(member, path):
            async with await self._post(member, path, body, limits) as response:
                return plain_answer(await read_json(response), member, path)

    async def ask(self, path: str, message: dict[str, Any], within: float) -> dict[str, Any]:
        """What the first member answers that can; each is asked once at most. Those that cannot come last then.

        within: seconds that each has as long as there is another, with everything that it takes to ask it.
        """
        failures: list[SourceError] = []
        last = self.members[-1]
        for member in self.members:
            try:
                async with asyncio.timeout(within if member != last else None):
                    return await self.call(member, path, message)
            except TimeoutError:
                failures.append(GatewayError(f"{member}{path}: no answer within {within:g} s"))
            except SourceError as error:
                if isinstance(error, GatewayError) and error.same_at_all:
                    raise
                failures.append(error)
            except asyncio.CancelledError:  # nobody waits for it any longer, nor shall the next question
                self._put_last(member)
                raise
            self._put_last(member)
        raise together(failures)

    def _put_last(self, member: str) -> None:
        self.members = (*(one for one in self.members if one != member), member)

    @asynccontextmanager
    async def stream(self, member: str, path: str, body: bytes) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer that has no end, as soon as it begins; its connection is closed with the context.

        All of the request is sent before: where the gateway is asked by HTTP/1.1 it answers nothing until then.
        """
        with _Told(member, path):
            async with asyncio.timeout(ANSWER_TIMEOUT):
                response = await self._post(member, path, body, aiohttp.ClientTimeout(total=None))
            try:
                _keep_alive(response)
                yield response
            finally:
                response.close()

    async def _post(
        self, member: str, path: str, body: bytes, limits: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        token = await self._token(member)
        try:
            return await self._send(member, path, body, limits, token)
        except GatewayError as error:
            if not self._settings.username or not error.token_over:
                raise
        if self._tokens.get(member) == token:
            del self._tokens[member]
        return await self._send(member, path, body, limits, await self._token(member))

    async def _send(
        self, member: str, path: str, body: bytes, limits: aiohttp.ClientTimeout, token: str
    ) -> aiohttp.ClientResponse:
        """The response of a status of 2xx, of which nothing has been read."""
        headers = {"Content-Type": "application/json"} | ({"Authorization": token} if token else {})
        for again in (True, False):
            try:
                response = await self._session.post(
                    member + path,
                    data=body,
                    headers=headers,
                    timeout=limits,
                    server_hostname=self._server_name,
                    allow_redirects=False,
                )
                break
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
                # A connection that was kept may have been closed meanwhile. Whatever is asked here may be asked twice:
                # a lease that is granted in vain ends by itself.
                if not again or isinstance(error, aiohttp.ClientConnectorError):
                    raise
        if 200 <= response.status <= 299:
            return response
        try:
            raise await _refusal(response, member, path)
        finally:
            response.close()

    async def _token(self, member: str) -> str:
        """The member's token, a new one if there is none; empty where there are no users."""
        if not self._settings.username:
            return ""
        async with self._authenticating:
            if member not in self._tokens:
                self._tokens[member] = await self._authenticate(member)
            return self._tokens[member]

    async def _authenticate(self, member: str) -> str:
        settings, path = self._settings, "/v3/auth/authenticate"
        try:
            secret = read_secret("password", settings.password_env, settings.password_file, self._environ)
        except SecretError as error:
            raise SourceError(f"etcd: {error}") from None
        question = {"name": settings.username, "password": secret.decode("utf-8", "surrogateescape")}
        limits = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT)
        try:
            async with await self._send(member, path, json.dumps(question).encode(), limits, "") as response:
                answer = plain_answer(await read_json(response), member, path)
        except GatewayError as error:
            if error.code == FAILED_PRECONDITION:  # authentication is not enabled: there is nothing to prove
                return ""
            raise
        token = answer.get("token")
        # It becomes a header: a line break in it would become another.
        if not isinstance(token, str) or not token.isascii() or not token.isprintable() or not token:
            raise SourceError(f"{member}{path}: the answer has no token")
        return token


def plain_answer(answer: Any, member: str, path: str) -> dict[str, Any]:
    """An object that is no error. Raises GatewayError for an error, which a stream has in place of a result."""
    if not isinstance(answer, dict):
        raise SourceError(f"{member}{path}: the answer is no object")
    if answer.get("error"):
        raise _spoken(answer, member, path, "")
    return answer


async def _refusal(response: aiohttp.ClientResponse, member: str, path: str) -> GatewayError:
    """What a status other than 2xx stands for."""
    body = b""
    with suppress(aiohttp.ClientError, TimeoutError, OSError):  # the status is enough
        async with asyncio.timeout(ANSWER_TIMEOUT):
            body = await response.content.read(MAX_REFUSAL)
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        said = None
    if isinstance(said, dict) and (said.get("error") or said.get("message")):
        return _spoken(said, member, path, f"status {response.status}")
    words = _one_line(body.decode("utf-8", "replace"))
    if response.status == 404:
        words += " (it takes etcd 3.4 or later, with its gRPC gateway enabled)"
    return GatewayError(f"{member}{path}: status {response.status}{f': {words}' if words else ''}")


def _spoken(said: dict[str, Any], member: str, path: str, otherwise: str) -> GatewayError:
    """The error of a refusal (a text, with `code` beside it) or of a stream (an object).

    etcd 3.4 and 3.5 have grpc-gateway 1: `error` and `message` are the same text, and a stream says `grpc_code`. 3.6
    has grpc-gateway 2: `message` alone, and `code` in both.
    """
    error = said.get("error") or said.get("message")
    if isinstance(error, dict):
        words, code = error.get("message"), error.get("grpc_code", error.get("code"))
    else:
        words, code = error, said.get("code")
    shown = _one_line(words) if isinstance(words, str) else otherwise
    return GatewayError(f"{member}{path}: {shown or 'an error'}", code if isinstance(code, int) else 0)


def _one_line(text: str) -> str:
    return " ".join(text.split())[:SHOWN]


class _Told:
    """Turns what goes wrong on the way into a GatewayError that says where."""

    __slots__ = ("_where",)

    def __init__(self, member: str, path: str) -> None:
        self._where = member + path

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, TimeoutError):
            raise GatewayError(f"{self._where}: no answer within {ANSWER_TIMEOUT:g} s") from None
        if isinstance(error, aiohttp.ClientPayloadError):
            raise GatewayError(f"{self._where}: the answer has broken off") from None
        if isinstance(error, (OSError, aiohttp.ClientError)):
            raise GatewayError(f"{self._where}: {_one_line(str(error)) or type(error).__name__}") from None


def _keep_alive(response: aiohttp.ClientResponse) -> None:
    """Let the kernel find out where a connection leads nowhere any more; it waits two hours for that by itself."""
    transport = response.connection.transport if response.connection is not None else None
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is None:
        return
    with suppress(OSError, AttributeError):  # AttributeError: names that are Linux's
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
