"""What every source is: an async stream of snapshots of the upstreams that are declared, and of no others.

A stream that fails raises, and the supervisor opens another after a while; what it said before still holds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from sidecar.clock import Clock
    from sidecar.config.settings import RegistrationSettings
    from sidecar.health.connection import Resolve
    from sidecar.model import Endpoint, Snapshot

__all__ = [
    "ANNOUNCE_WITHIN",
    "MAX_ENDPOINTS",
    "WITHDRAW_WITHIN",
    "Registrar",
    "Source",
    "Surroundings",
    "Wanted",
]

# Of one upstream. More are left out, with a warning: metrics keep some dozen series for each, and a thousand endpoints
# of one upstream is what a registry that has been filled by mistake looks like.
MAX_ENDPOINTS = 5000

# Seconds that one host of a registry has for a word about a registration, as long as there is another to ask: it takes
# milliseconds where it is well. One that is frozen still accepts connections, and is noticed by nothing else. Of three
# hosts the third has its turn within `announcement.ANSWER`, at the end the second within `registration.GRACE`.
ANNOUNCE_WITHIN = 1.6
WITHDRAW_WITHIN = 0.9


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for one upstream.

    service: what the registry calls it; empty only with dns, see `endpoints`.
    port: a port's number or name, empty for whichever there is.
    default_port: the upstream's own, where the registry knows none; 0 if it has none.
    endpoints: what the configuration names (dns resolves their hosts where `service` is empty).
    tags, datacenter, namespace: as in `SourceSettings`.
    """

    upstream: str
    service: str
    port: str = ""
    default_port: int = 0
    endpoints: tuple[Endpoint, ...] = ()
    tags: tuple[str, ...] = ()
    datacenter: str = ""
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What sources need of the process. environ: where secrets are looked up. resolve: addresses of a host."""

    clock: Clock
    environ: Mapping[str, str]
    resolve: Resolve


class Source(ABC):
    """One registry. name: what the configuration calls it.

    Opens nothing before `watch`; several streams of one source may go on at the same time.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def streams(self, wanted: Sequence[Wanted]) -> list[tuple[Wanted, ...]]:
        """Which of `wanted` are watched together, by one `watch` each. All, unless a source says otherwise.

        What is in one stream fails and recovers together.
        """
        return [tuple(wanted)] if wanted else []

    @abstractmethod
    def watch(self, wanted: Sequence[Wanted]) -> AsyncIterator[Snapshot | None]:
        """Snapshots from now on: first one of each of `wanted`, then one of each that changes, for ever.

        A snapshot without endpoints is the registry's word that there are none. None says that nothing has changed:
        a sign of life, to be given whenever the registry has been heard of, and at least every `stale_after` seconds.
        A stream that hears nothing for longer than the registry's protocol lets it raises.

        Raises SourceError for an answer that cannot be used, in one line that says what and from where; OSError,
        TimeoutError and aiohttp.ClientError where there is none. One entry that cannot be used is left out with a
        warning in the log, once, and takes nothing else with it. Ends by being closed (`aclose`), or by cancellation of
        the task that waits for its next snapshot, and leaves nothing open then.
        """

    async def close(self) -> None:  # noqa: B027 - most have nothing open between streams
        """Close what several streams share."""


class Registrar(ABC):
    """A source that services can be announced in."""

    @abstractmethod
    async def announce(self, service: RegistrationSettings) -> None:
        """Make `service` known for its `ttl`, or say once more that it is there; to be called three times in a ttl.

        Also when the registry has forgotten it meanwhile. A host that is silent for `ANNOUNCE_WITHIN` is followed by
        the next. Raises what `Source.watch` does.
        """

    @abstractmethod
    async def withdraw(self, service: RegistrationSettings) -> None:
        """Take `service` away, if it is there; as `announce`, within `WITHDRAW_WITHIN`."""
