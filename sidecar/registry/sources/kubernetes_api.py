"""Asking a Kubernetes API server: whichever member answers, with the token as it is now, and what its refusals mean.

https://kubernetes.io/docs/reference/using-api/api-concepts/.
"""

from __future__ import annotations

import json
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp

from sidecar.config.findings import escaped
from sidecar.errors import SourceError
from sidecar.registry.sources.http import CONNECT_TIMEOUT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from sidecar.registry.sources.kubeconfig import Access

__all__ = ["GoneError", "KubernetesApi"]

MAX_REFUSAL = 16 * 1024  # bytes of a refusal that are read: a Status object has a few hundred
SHOWN = 200  # characters of its reason that a message repeats: they name the user, the verb and the namespace
KEEPALIVE = 30  # seconds of silence before TCP asks: less than what NAT gateways and balancers forget after
_ADVICE = {
    401: "check that the token or client certificate is of this cluster and has not expired",
    403: "its user needs the verbs list and watch for endpointslices of the API group discovery.k8s.io"
    " in that namespace: give it a Role and a RoleBinding",
    404: "EndpointSlices are there from Kubernetes 1.21 on; check the path of the server's URL too",
}


class GoneError(SourceError):
    """410: what was to be continued is not kept any more. List again."""


class KubernetesApi:
    """The members of one API server, over one session. They know the same versions: any of them goes on for another."""

    def __init__(self, session: aiohttp.ClientSession, access: Access, environ: Mapping[str, str]) -> None:
        self._session = session
        self._access = access
        self._environ = environ
        self._member = 0  # that answered last

    @asynccontextmanager
    async def get(
        self, path: str, query: Mapping[str, str], seconds: float
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The response to a GET with status 200, whose body may be read while the context lasts.

        seconds: for all of it. Raises GoneError for 410, SourceError for other refusals, and where no member answers
        OSError, TimeoutError or aiohttp.ClientError.
        """
        response = await self._first_answer(path, query, seconds)
        try:
            if response.status != 200:
                raise await self._refusal(response)
            yield response
        finally:
            response.close()

    async def _first_answer(
        self, path: str, query: Mapping[str, str], seconds: float
    ) -> aiohttp.ClientResponse:
        """Of the members in turn, the one that answered last first; one that is overloaded or ill is passed over."""
        members = len(self._access.urls)
        failure: Exception | None = None
        for turn in range(members):
            member = (self._member + turn) % members
            try:
                response = await self._authorized(self._access.urls[member] + path, query, seconds)
            except (OSError, aiohttp.ClientError) as error:  # TimeoutError is one of them
                failure = error
                continue
            if response.status == 429 or response.status >= 500:
                try:
                    failure = await self._refusal(response)
                finally:
                    response.close()
                continue
            self._member = member
            return response
        assert failure is not None
        raise failure

    async def _authorized(self, url: str, query: Mapping[str, str], seconds: float) -> aiohttp.ClientResponse:
        """One member's answer. The token is read each time, and once more where it has been changed meanwhile."""
        response = await self._ask(url, query, seconds)
        if response.status == 401 and not self._access.token.lasts:
            response.close()
            response = await self._ask(url, query, seconds)
        return response

    async def _ask(self, url: str, query: Mapping[str, str], seconds: float) -> aiohttp.ClientResponse:
        token = self._access.token.read(self._environ)
        try:
            response = await self._session.get(
                url,
                params=query,
                headers={"Accept": "application/json"}
                | ({"Authorization": f"Bearer {token}"} if token else {}),
                allow_redirects=False,  # whoever it leads to is not to have the token
                timeout=aiohttp.ClientTimeout(seconds, CONNECT_TIMEOUT, sock_connect=CONNECT_TIMEOUT),
                server_hostname=self._access.server_name or None,
            )
        except TimeoutError as error:
            raise TimeoutError(f"GET {url}: {str(error) or f'no answer within {seconds:g} s'}") from None
        _keep_alive(response)
        return response

    async def _refusal(self, response: aiohttp.ClientResponse) -> SourceError:
        """What a status other than 200 means, and what to do about it."""
        status = response.status
        text = f"GET {response.url.path} at {response.host}: status {status}"
        reason = await _reason(response)
        if reason:
            text += f": {reason}"
        if status == 410:
            return GoneError(text)
        after = response.headers.get("Retry-After", "")
        if status == 401 and self._access.token.origin:
            text += f"; the token is from {self._access.token.origin}"
        if after.isascii() and after.isdecimal():
            text += f"; it asks to be left alone for {after[:6]} s"
        return SourceError(f"{text}; {_ADVICE[status]}" if status in _ADVICE else text)


async def _reason(response: aiohttp.ClientResponse) -> str:
    """The message of the Status object that a refusal is, or how whatever else it is begins; in one line."""
    body = bytearray()
    try:
        async for part in response.content.iter_any():
            body += part
            if len(body) > MAX_REFUSAL:
                break
    except (OSError, aiohttp.ClientError):
        pass  # the status is known, and says most
    text = body.decode("utf-8", "replace")
    try:
        status = json.loads(body)
    except (ValueError, RecursionError):  # the latter for what is nested thousands of levels deep
        pass
    else:
        if isinstance(status, dict) and isinstance(status.get("message"), str):
            text = status["message"]
    return escaped(" ".join(text.split())[:SHOWN])


def _keep_alive(response: aiohttp.ClientResponse) -> None:
    """Let TCP ask whether the other side is still there: a watch may be silent for a minute."""
    transport = response.connection.transport if response.connection is not None else None
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE)
