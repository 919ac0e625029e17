"""What the log says of registries, and of upstreams that they change."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from sidecar.errors import SourceError

if TYPE_CHECKING:
    from sidecar.model import Snapshot
    from sidecar.registry.feeds import Stream

__all__ = ["about", "tell", "words"]

_log = logging.getLogger("sidecar.registry")


def about(stream: Stream) -> str:
    """Of whom a stream is, where it is of one."""
    return f" ({stream.wanted[0].upstream})" if len(stream.wanted) == 1 else ""


def words(error: Exception) -> str:
    """What went wrong, on one line."""
    said = " ".join(str(error).split())
    if isinstance(error, SourceError):
        return said
    if isinstance(error, TimeoutError) and not said:
        return "no answer in time"
    connecting = getattr(error, "os_error", None)  # of aiohttp, whose own text is made of Python's names
    if isinstance(connecting, OSError) and not hasattr(
        connecting, "reason"
    ):  # TLS has a reason, and no number
        number = connecting.errno or 0
        why = os.strerror(number) if number > 0 else connecting.strerror or str(connecting)
        return f"no connection to {getattr(error, 'host', '')}:{getattr(error, 'port', '')} ({why.lower()})"
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def tell(before: Snapshot | None, now: Snapshot) -> None:
    """How an upstream has changed, with the addresses where there are few."""
    was = before.endpoints if before else ()
    # Most are the same objects, which need not be spelt out: a thousand addresses take as long as applying them.
    stay = {id(endpoint) for endpoint in was} & {id(endpoint) for endpoint in now.endpoints}
    old = {endpoint.address for endpoint in was if id(endpoint) not in stay}
    new = {endpoint.address for endpoint in now.endpoints if id(endpoint) not in stay}
    come, gone = sorted(new - old), sorted(old - new)
    parts = [f"{sign}{_few(addresses)}" for sign, addresses in (("+", come), ("-", gone)) if addresses]
    level = logging.INFO if now.endpoints else logging.WARNING
    what = f"{len(now.endpoints)} endpoint{'' if len(now.endpoints) == 1 else 's'}"
    _log.log(
        level, "%s: %s from %s%s", now.upstream, what, now.source, f" ({', '.join(parts)})" if parts else ""
    )


def _few(addresses: list[str]) -> str:
    return " ".join(addresses) if len(addresses) <= 3 else f"{len(addresses)} of them"
