"""One check of one endpoint: of the kind that is configured, bounded in time, and what came of it in words."""

from __future__ import annotations

import asyncio
import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from sidecar.errors import OWN_SHORTAGES
from sidecar.health.connection import CannotAskError, UnwellError
from sidecar.health.http_probe import HttpProbe
from sidecar.health.redis_probe import RedisProbe
from sidecar.health.tcp_probe import TcpProbe
from sidecar.net.proxy_header import LOCAL

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sidecar.config.settings import HealthSettings
    from sidecar.health.connection import Resolve
    from sidecar.tls.client import ClientTls

__all__ = ["Finding", "Probe", "examine", "probe_of"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of one check.

    ok: None when it could not be made, which says nothing of the endpoint. seconds: it took.
    error: one line that says why it is not ok, empty when it is. answered: there was an answer, be it a wrong one.
    """

    ok: bool | None
    seconds: float
    error: str = ""
    answered: bool = True


class Probe(Protocol):
    """How one kind of check asks. question: what, for people."""

    @property
    def question(self) -> str: ...

    async def ask(self, host: str, port: int, resolve: Resolve, tls: ClientTls | None = None) -> None:
        """Return if the endpoint is well. tls: how it is spoken to; None in the clear.

        Raises UnwellError for an answer that a healthy one does not give, OSError where there is none,
        CannotAskError when it cannot be asked.
        """


def probe_of(
    settings: HealthSettings,
    host_header: str,
    environ: Mapping[str, str] = os.environ,
    *,
    proxy_protocol: int = 0,
) -> Probe:
    """The probe for an upstream's endpoints. host_header: as in `UpstreamPolicy`. environ: has `password_env`.

    proxy_protocol: as in `PolicySettings`; the header says that nobody's request follows.
    """
    greeting = LOCAL[proxy_protocol]
    if settings.kind == "http":
        return HttpProbe(settings, host_header, greeting)
    if settings.kind == "redis":
        return RedisProbe(settings, environ, greeting)
    return TcpProbe(greeting)


async def examine(
    probe: Probe,
    host: str,
    port: int,
    within: float,
    resolve: Resolve,
    monotonic: Callable[[], float],
    tls: ClientTls | None = None,
) -> Finding:
    """Ask once, for `within` seconds at most. What goes wrong with the endpoint is a finding and no exception."""
    began = monotonic()
    ok: bool | None = False
    answered = True
    looking_up = False

    async def watched(host: str, port: int) -> list[Any]:
        nonlocal looking_up
        looking_up = True
        found = await resolve(host, port)
        looking_up = False
        return found

    try:
        async with asyncio.timeout(within):
            await probe.ask(host, port, watched, tls)
    except UnwellError as error:
        said = str(error)
    except CannotAskError as error:
        ok, answered, said = None, False, str(error)
    except TimeoutError as error:
        answered = False
        if error.errno is not None:  # a connection's own (ETIMEDOUT) is the same to whoever waits
            said = _words(error)
        elif looking_up:  # the endpoint has not heard of it yet
            ok, said = None, f"the name {host} has not been looked up within {within:g} s"
        else:
            said = f"no answer within {within:g} s"
    except OSError as error:
        answered, said = False, _words(error)
        if error.errno in OWN_SHORTAGES:
            ok = None
    else:
        ok, said = True, ""
    return Finding(ok, monotonic() - began, said, answered)


def _words(error: OSError) -> str:
    """The system's words for it, without addresses and numbers."""
    if isinstance(error.errno, int) and error.errno in errno.errorcode:
        return os.strerror(error.errno).lower()
    return (error.strerror or str(error) or type(error).__name__).lower()
