"""What sources have in common that ask over HTTP: sessions, TLS, and answers that are bounded before they are read."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp.abc import AbstractResolver

from sidecar.config.files import reason
from sidecar.errors import SourceError
from sidecar.version import __version__

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from aiohttp.abc import ResolveResult

    from sidecar.config.settings import RegistrySettings, TlsSettings
    from sidecar.health.connection import Resolve

__all__ = [
    "AT_A_TIME",
    "MAX_ANSWER",
    "base_urls",
    "lines",
    "open_session",
    "read_body",
    "read_json",
    "read_list",
    "tls_context",
]

CONNECT_TIMEOUT = 3.0  # seconds, with TLS: registries are near, and another member may be asked
MAX_ANSWER = (
    64 * 1024 * 1024
)  # bytes of one answer, or of one line of a stream: ten thousand endpoints have some ten
# Entries of an answer that are read until the loop has a turn: some milliseconds for Consul's, which are the longest.
AT_A_TIME = 250
SHOWN = 120  # characters of a refusal that a message repeats


def base_urls(settings: RegistrySettings, usual_port: int) -> list[str]:
    """`http://host:port` or `https://...` of each host, without a slash at its end."""
    scheme = "https" if settings.tls.enabled else "http"
    return [
        f"{scheme}://{f'[{host.host}]' if ':' in host.host else host.host}:{host.port or usual_port}"
        for host in settings.hosts
    ]


def tls_context(tls: TlsSettings) -> ssl.SSLContext | None:
    """The context of its files as they are now; None without TLS. Raises SourceError."""
    if not tls.enabled:
        return None
    try:
        # One that names its own is not to trust the whole world too; nor to load it, which takes 15 ms each time.
        context = ssl.create_default_context(cafile=tls.ca or None)
    except (OSError, ssl.SSLError) as error:
        raise SourceError(f"{tls.ca} (tls.ca): {reason(error)}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    try:
        if tls.cert:
            # A password, which is wrong: a key that needs one is an error then, and no prompt at the terminal.
            context.load_cert_chain(tls.cert, tls.key or None, password="")
    except (OSError, ssl.SSLError) as error:
        raise SourceError(f"{tls.cert} (tls.cert): {reason(error)}") from None
    return context


def open_session(resolve: Resolve, tls: ssl.SSLContext | None) -> aiohttp.ClientSession:
    """A session for one source, which has to close it.

    Timeouts of reading are each request's own, and so is `server_hostname`, where `tls.server_name` is set.
    """
    connector = aiohttp.TCPConnector(
        resolver=_Resolver(resolve),
        ssl=tls if tls is not None else True,
        use_dns_cache=False,
    )
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, connect=CONNECT_TIMEOUT),
        headers={"User-Agent": f"sidecar/{__version__}"},
        cookie_jar=aiohttp.DummyCookieJar(),
    )


class _Resolver(AbstractResolver):
    """aiohttp's own asks in threads that the end of the process waits for."""

    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Addresses as aiohttp has them. Raises OSError."""
        return [
            {
                "hostname": host,
                "host": address[0],
                "port": port,
                "family": kind,
                "proto": protocol,
                "flags": socket.AI_NUMERICHOST,
            }
            for kind, _, protocol, _, address in await self._resolve(host, port)
            if family in (socket.AF_UNSPEC, kind)
        ]

    async def close(self) -> None:
        """There is nothing to close."""


async def read_json(response: aiohttp.ClientResponse) -> Any:
    """The whole body as JSON, of a status of 2xx. Raises SourceError, which tells the status and the reason given."""
    body = await read_body(response)
    try:
        return json.loads(body)
    except (ValueError, RecursionError):  # the latter for what is nested thousands of levels deep
        raise _no_json(response) from None


async def read_list(response: aiohttp.ClientResponse, take: Callable[[Any], None]) -> None:
    """`read_json` of a list, of which `take` gets one entry after the other; the loop has its turns between them.

    Of thousands of entries that are large all at once would hold up the loop, as would the collection of garbage that
    comes to walk through them.
    """
    body = await read_body(response)
    try:
        text = body.decode()
        at = _after_space(text, 0)
        if text[at : at + 1] != "[":
            json.loads(text)
            raise SourceError(f"{_where(response)}: the answer is no list")
        await _take_entries(text, at, take)
    except (ValueError, RecursionError):
        raise _no_json(response) from None


async def _take_entries(text: str, at: int, take: Callable[[Any], None]) -> None:
    """Those of the list that begins at `at`, which is all of the text. Raises ValueError, RecursionError."""
    taken = 0
    at = _after_space(text, at + 1)
    more = text[at : at + 1] != "]"
    while more:
        entry, at = _DECODER.raw_decode(text, at)
        take(entry)
        taken += 1
        at = _after_space(text, at)
        more = text[at : at + 1] == ","
        if more:
            at = _after_space(text, at + 1)
            if not taken % AT_A_TIME:
                await asyncio.sleep(0)
    if text[at : at + 1] != "]" or _after_space(text, at + 1) != len(text):
        raise ValueError


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None  # it may be empty
    return found.end()


_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]*")


def _where(response: aiohttp.ClientResponse) -> str:
    return f"{response.method} {response.url.path} at {response.url.authority}"


def _no_json(response: aiohttp.ClientResponse) -> SourceError:
    return SourceError(f"{_where(response)}: the answer is no JSON")


async def read_body(response: aiohttp.ClientResponse) -> bytes:
    """The whole body, of a status of 2xx. Raises SourceError as `read_json` does."""
    body = bytearray()
    async for part in response.content.iter_any():
        body += part
        if len(body) > MAX_ANSWER:
            raise SourceError(f"{_where(response)}: the answer is longer than {MAX_ANSWER} bytes")
    if not 200 <= response.status <= 299:
        said = " ".join(body[:SHOWN].decode("utf-8", "replace").split())
        raise SourceError(f"{_where(response)}: status {response.status}{f': {said}' if said else ''}")
    return bytes(body)


async def lines(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    """The lines of a body that has no end, without their line breaks; whoever stops before it closes it (`aclosing`).

    Raises SourceError for a line that has no end.
    """
    held = bytearray()
    async for part in response.content.iter_any():
        begin = len(held)
        held += part
        while (end := held.find(b"\n", begin)) >= 0:
            line = bytes(held[:end])
            del held[: end + 1]
            begin = 0
            if line.strip():
                yield line
        if len(held) > MAX_ANSWER:
            raise SourceError(
                f"{response.url.path} at {response.url.authority}: a line is longer than {MAX_ANSWER} bytes"
            )
    if held.strip():
        yield bytes(held)
