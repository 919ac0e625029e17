"""Asking Consul's agents: the token as it is now, and the next host at once where one fails.

https://developer.hashicorp.com/consul/api-docs/api-structure
"""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import aiohttp
from yarl import URL

from sidecar.config.secrets import SecretError, read_secret
from sidecar.errors import SourceError
from sidecar.registry.sources.consul_answers import Instances
from sidecar.registry.sources.http import CONNECT_TIMEOUT, base_urls, open_session, read_list, tls_context

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable

    from sidecar.config.settings import RegistrySettings
    from sidecar.registry.sources.source import Surroundings, Wanted

__all__ = ["ANSWER_TIMEOUT", "Agents", "Conversation", "Health", "RefusedError", "UnknownIdError"]

T = TypeVar("T")

# Seconds for an answer that the agent has nothing to wait for, and beyond what it waits. An agent without a leader
# keeps a question for 7 s before it says so (`performance.rpc_hold_timeout`).
ANSWER_TIMEOUT = 10.0
# The usual ports; HTTPS has none by default, and this one in Consul's documentation.
HTTP_PORT, HTTPS_PORT = 8500, 8501
MAX_REFUSAL = 4096  # bytes that are read of a refusal: Consul's are one line
SHOWN = (
    160  # characters of it that a message repeats: as long as Consul's longest, of an ACL with its accessor
)

# What agents say to an id that they do not know: newer ones with 404, older ones with 500.
_UNKNOWN = ("Unknown check", "Unknown service", "does not have associated TTL")
# What a status asks of whoever reads of it.
_ADVICE = {
    403: "give `token_env` or `token_file` a token that may",
    404: "is this Consul's HTTP port?",
    429: "raise the agent's `limits.http_max_conns_per_client`, or its rate limits",
}


class RefusedError(SourceError):
    """An answer to this question alone: another may be answered well."""


class UnknownIdError(SourceError):
    """The agent knows no service or check of that id."""


@dataclass(frozen=True, slots=True)
class Health:
    """What /v1/health/service says. at: the host's position. index: X-Consul-Index. instances: all that it names.

    filtered: the token may not see all of it (X-Consul-Results-Filtered-By-ACLs).
    """

    at: int
    index: int
    instances: Instances
    filtered: bool


class Agents:
    """The hosts of one registry, in the order of preference."""

    def __init__(self, settings: RegistrySettings, surroundings: Surroundings) -> None:
        self._settings = settings
        self._surroundings = surroundings
        self._tls: ssl.SSLContext | None = None
        self._tls_files: object = None  # as they were when it was made
        self.urls = base_urls(settings, HTTPS_PORT if settings.tls.enabled else HTTP_PORT)
        self.preferred = 0  # the position of the one that answered last

    @asynccontextmanager
    async def conversation(self) -> AsyncIterator[Conversation]:
        """A session, closed at the end. Raises SourceError where TLS's files cannot be used."""
        session = open_session(self._surroundings.resolve, self._context())
        async with session:
            yield Conversation(self, session, self._settings.tls.server_name or None)

    def token(self) -> str:
        """The token as it is now; empty without one. Raises SourceError."""
        settings = self._settings
        try:
            token = read_secret(
                "token", settings.token_env, settings.token_file, self._surroundings.environ
            ).decode("latin-1")
        except SecretError as error:
            raise SourceError(str(error)) from None
        if not all("!" <= letter <= "~" for letter in token):
            raise SourceError(
                f"the token of {settings.token_env or settings.token_file} has a space, a line break or a letter"
                " that no token has; write the token alone"
            )
        return token

    def _context(self) -> ssl.SSLContext | None:
        """One context for all streams while its files stay as they are: making one takes 16 ms."""
        tls = self._settings.tls
        files = [_stamp(file) for file in (tls.ca, tls.cert, tls.key) if file]
        if self._tls_files != files:
            self._tls = tls_context(tls)
            self._tls_files = files
        return self._tls


class Conversation:
    """One session with one host at a time. at: its position."""

    def __init__(self, agents: Agents, session: aiohttp.ClientSession, server_name: str | None) -> None:
        self.at = agents.preferred
        self._agents = agents
        self._session = session
        self._server_name = server_name

    async def first(self, ask: Callable[[int], Awaitable[T]]) -> T:
        """What `ask` gives for the first host that answers, each asked once at most, from `at` on.

        Raises SourceError, which tells of all; RefusedError where one of them has refused this question.
        """
        hosts = len(self._agents.urls)
        kind = SourceError
        refusals: dict[str, None] = {}  # each once, in order: a missing token is the same for all
        for step in range(hosts):
            at = (self.at + step) % hosts
            try:
                found = await ask(at)
            except SourceError as error:
                refusals[str(error)] = None
                kind = RefusedError if isinstance(error, RefusedError) else kind
                continue
            self.at = self._agents.preferred = at
            return found
        raise kind("; ".join(refusals) or "no host is configured")

    async def health(self, at: int, target: str, within: float, wanted: Wanted) -> Health:
        """GET of a target under /v1/health/service. within: seconds. Raises SourceError."""
        instances = Instances(wanted)
        async with self._exchange("GET", at, target, within) as (response, where):
            if response.status != 200:
                raise await _refusal(response, where, "read the service and its nodes")
            # A server that has lost its leader knows what was true a while ago, or nothing:
            # https://developer.hashicorp.com/consul/api-docs/features/consistency
            if response.headers.get("X-Consul-KnownLeader") == "false":
                raise SourceError(f"{where}: it knows no leader")
            index = response.headers.get("X-Consul-Index", "")
            if not _is_index(index):
                raise SourceError(f"{where}: no X-Consul-Index is in the answer; is this Consul's HTTP port?")
            filtered = response.headers.get("X-Consul-Results-Filtered-By-ACLs") == "true"
            await read_list(response, instances.take)
        return Health(at, int(index), instances, filtered)

    async def put(self, at: int, target: str, within: float, body: dict[str, Any] | None = None) -> None:
        """PUT of a target under /v1/agent. within: seconds. Raises SourceError, UnknownIdError."""
        async with self._exchange("PUT", at, target, within, body) as (response, where):
            if response.status != 200:
                raise await _refusal(response, where, "write the service")

    @asynccontextmanager
    async def _exchange(
        self, method: str, at: int, target: str, within: float, body: dict[str, Any] | None = None
    ) -> AsyncIterator[tuple[aiohttp.ClientResponse, str]]:
        """A response whose body is still to be read, and what was asked where. Whatever fails is a SourceError."""
        url = URL(self._agents.urls[at] + target, encoded=True)
        where = f"{method} {url.raw_path} at {url.authority}"
        token = self._agents.token()
        try:
            async with self._session.request(
                method,
                url,
                json=body,
                headers={"X-Consul-Token": token} if token else None,
                # aiohttp would carry the token to wherever a redirect leads; Consul's API has none.
                allow_redirects=False,
                server_hostname=self._server_name,
                timeout=aiohttp.ClientTimeout(
                    total=within, connect=CONNECT_TIMEOUT, sock_connect=CONNECT_TIMEOUT
                ),
            ) as response:
                yield response, where
        except SourceError as error:
            raise type(error)(_without(token, str(error))) from None
        except aiohttp.ConnectionTimeoutError:
            raise SourceError(f"{where}: no connection within {CONNECT_TIMEOUT:g} s") from None
        except TimeoutError:
            raise SourceError(f"{where}: no whole answer within {within:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise SourceError(f"{where}: {_without(token, _words(error))}") from None


async def _refusal(response: aiohttp.ClientResponse, where: str, right: str) -> SourceError:
    """What a status other than 200 means. right: what a token must be allowed to do."""
    body = bytearray()
    async for part in response.content.iter_any():
        body += part[: MAX_REFUSAL - len(body)]
        if len(body) >= MAX_REFUSAL:
            break
    said = _line(body.decode("utf-8", "replace"))
    status = response.status
    text = f"{where}: status {status}{f': {said}' if said else ''}"
    if status in (404, 500) and any(words in said for words in _UNKNOWN):
        return UnknownIdError(text)
    advice = f"{_ADVICE[status]} {right}" if status == 403 else _ADVICE.get(status)
    if said == "No path to datacenter":
        advice = "see `datacenter`"
    kind = RefusedError if status in (400, 403) or said == "No path to datacenter" else SourceError
    return kind(f"{text}; {advice}" if advice else text)


def _words(error: Exception) -> str:
    """One line of what aiohttp or the system says."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        reason = getattr(error.certificate_error, "verify_message", "") or error.certificate_error
        return f"its certificate is refused: {_line(str(reason))}; see `tls.ca` and `tls.server_name`"
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        reason = getattr(error.os_error, "reason", None) or str(error.os_error)
        return f"TLS fails: {_line(str(reason)).replace('_', ' ').lower()}; is this its HTTPS port?"
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno
        if number is not None and number > 0:  # the system's; a resolver's have words of their own
            return os.strerror(number).lower()
        return _line(error.os_error.strerror or str(error.os_error)).lower()
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "it closes the connection without an answer"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the answer breaks off"
    if isinstance(error, aiohttp.ClientResponseError):
        return "the answer is no HTTP that can be read"
    return _line(str(error) or type(error).__name__)


def _line(text: str) -> str:
    return " ".join(text[: 2 * SHOWN].split())[:SHOWN]


def _without(token: str, text: str) -> str:
    """`text`, whatever a server may have repeated in it."""
    return text.replace(token, "(token)") if token else text


def _is_index(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 20  # a uint64 has as many digits


def _stamp(file: str) -> tuple[int, int, int] | None:
    """What changes with a file's content; None where it cannot be seen."""
    try:
        seen = Path(file).stat()
    except OSError:
        return None
    return seen.st_ino, seen.st_mtime_ns, seen.st_size
