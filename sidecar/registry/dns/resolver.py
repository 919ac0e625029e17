"""From a name to addresses, and from a service's name to where it is: one round of questions after another.

What holds of one name: NXDOMAIN and NODATA are answers (there is none), all else that is not an answer is a failure.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, NamedTuple

from sidecar.config.addresses import is_address, parse_host
from sidecar.errors import SourceError
from sidecar.net.names import loopback
from sidecar.registry.dns.answer import AAAA, NO_TARGET, SRV, A, Answer, Question, by_number
from sidecar.registry.dns.client import NoAnswerError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from sidecar.clock import Clock
    from sidecar.registry.dns.answer import ServiceRecord
    from sidecar.registry.dns.client import Client
    from sidecar.registry.dns.directions import NameServers

__all__ = ["Addresses", "Located", "Resolver", "Services"]

ATTEMPT = 10.0  # seconds of one round: resolv.conf's own bound with its usual 5 s and two tries
MAX_FOLLOWED = 8  # questions more for one chain of CNAMEs, where a server does not tell it to its end
MAX_NAME = 253  # characters, without the dot at its end (RFC 1035 2.3.4: 255 octets on the wire)
FOR_EVER = 0x7FFFFFFF  # seconds: what an address literal is good for

_log = logging.getLogger("sidecar.registry")


class Addresses(NamedTuple):
    """Addresses of a name, by number, for `ttl` seconds; none for a name that is not there or has none."""

    found: tuple[str, ...]
    ttl: int = FOR_EVER


class Located(NamedTuple):
    """One SRV record's target with its addresses."""

    record: ServiceRecord
    addresses: tuple[str, ...]


class Services(NamedTuple):
    """Where a service is: targets of one priority. missing: targets without an address."""

    found: tuple[Located, ...]
    ttl: int = FOR_EVER
    missing: tuple[str, ...] = ()


class Resolver:
    """Asks for one upstream, round after round; what one round has heard serves the next."""

    def __init__(self, client: Client, name_servers: NameServers, clock: Clock) -> None:
        self._client = client
        self._name_servers = name_servers
        self._clock = clock
        self._until = 0.0
        self._questions: dict[tuple[str, int], Question] = {}  # of this round
        self._earlier: dict[tuple[str, int], Question] = {}  # of the one before
        self._v6: dict[str, tuple[str, ...]] = {}
        self._earlier_v6: dict[str, tuple[str, ...]] = {}
        self._told: set[str] = set()  # names whose AAAA fails, which has been said

    def begin(self) -> None:
        """A round begins. Names that were not asked for in the last one are forgotten."""
        self._until = self._clock.monotonic() + ATTEMPT
        self._earlier, self._questions = self._questions, {}
        self._earlier_v6, self._v6 = self._v6, {}

    async def addresses(self, host: str) -> Addresses:
        """Addresses of a host, for both families together. Raises SourceError.

        An address is itself and localhost the loopback. Where A has addresses and AAAA fails, which is common, those of
        AAAA are what they were in the last round: a lost datagram is not to take endpoints away.
        """
        if is_address(host):
            return Addresses((host,))
        own = loopback(host, 0)
        if own is not None:
            return Addresses(tuple(entry[4][0] for entry in own))
        for name in await self._candidates(host):
            found = await self._addresses_of(name)
            if found.found:
                return found
        return Addresses(())

    async def services(self, service: str) -> Services:
        """Where a service is, by its SRV records: those of the lowest priority of which one has an address.

        Raises SourceError, also where a target's addresses cannot be had.
        """
        for name in await self._candidates(service):
            (answer,) = await self._ask(name, SRV)
            if isinstance(answer, NoAnswerError):
                raise SourceError(str(answer))
            if answer.services:
                return await self._locate(answer)
        return Services(())

    async def together(self, asking: Sequence[Awaitable[Addresses]]) -> list[Addresses]:
        """All of them. Raises the first failure when none goes on any more."""
        if len(asking) == 1:
            return [await asking[0]]
        results = await asyncio.gather(*asking, return_exceptions=True)
        found = []
        for result in results:
            if isinstance(result, BaseException):
                raise result
            found.append(result)
        return found

    async def _candidates(self, name: str) -> list[str]:
        """What `name` may stand for, in the order in which it is asked (resolv.conf(5): search, ndots).

        A name of at least ndots dots is complete, as musl has it: glibc would try the search list behind it too, and
        let a search domain answer for a name that has gone.
        """
        if name.endswith("."):
            return [name]
        directions = await self._name_servers.now()
        if name.count(".") >= directions.ndots:
            return [name]
        longer = (f"{name}.{domain}" for domain in directions.search)
        return [*(candidate for candidate in longer if len(candidate) <= MAX_NAME), name]

    async def _addresses_of(self, name: str) -> Addresses:
        first, second = await self._ask(name, A, AAAA)
        if isinstance(first, NoAnswerError):
            raise SourceError(str(first))
        if isinstance(second, NoAnswerError):
            if first.exists and not first.addresses:
                raise SourceError(str(second))
            if name not in self._told:
                self._told.add(name)
                _log.debug("%s; its A records are used", second)
            self._v6[name] = self._earlier_v6.get(name, ()) if first.addresses else ()
            return Addresses(by_number((*first.addresses, *self._v6[name])), first.ttl)
        self._told.discard(name)
        self._v6[name] = second.addresses
        ttls = [one.ttl for one in (first, second) if one.addresses]
        return Addresses((*first.addresses, *second.addresses), min(ttls, default=FOR_EVER))

    async def _ask(self, name: str, *kinds: int) -> list[Answer | NoAnswerError]:
        """What came of the questions for `name`, its chain followed to the end."""
        questions = [self._question(name, kind) for kind in kinds]
        answers = await self._client.ask(questions, self._until)
        return [
            await self._follow(answer, question.kind) if isinstance(answer, Answer) else answer
            for question, answer in zip(questions, answers, strict=True)
        ]

    async def _follow(self, answer: Answer, kind: int) -> Answer | NoAnswerError:
        for _ in range(MAX_FOLLOWED):
            if not answer.follow:
                return answer
            (found,) = await self._client.ask([self._question(answer.follow, kind)], self._until)
            if isinstance(found, NoAnswerError):
                return found
            answer = found.after(answer)
        return NoAnswerError(f"{answer.follow}: the chain of CNAMEs that leads there does not end")

    def _question(self, name: str, kind: int) -> Question:
        key = name, kind
        question = self._questions.get(key) or self._earlier.get(key)
        if question is None:
            question = Question(name, kind)
        self._questions[key] = question
        return question

    async def _locate(self, answer: Answer) -> Services:
        """Lowest priority first; the next only where no target of it has an address (RFC 2782, Priority)."""
        missing: list[str] = []
        ttl = answer.ttl
        for priority in sorted({record.priority for record in answer.services}):
            records = [
                record
                for record in answer.services
                if record.priority == priority and record.target != NO_TARGET
            ]
            located = await self.together([self._target(record.target, answer) for record in records])
            found = []
            for record, addresses in zip(records, located, strict=True):
                if addresses.found:
                    found.append(Located(record, addresses.found))
                    ttl = min(ttl, addresses.ttl)
                else:
                    missing.append(record.target)
            if found:
                return Services(tuple(found), ttl, tuple(missing))
        return Services((), missing=tuple(missing))

    async def _target(self, target: str, answer: Answer) -> Addresses:
        """The addresses that came with the record, else those that are asked for. A target is a complete name.

        One that is no host's name has none.
        """
        try:
            parse_host(target)
        except ValueError:
            return Addresses(())
        beside = answer.extra.get(target.lower())
        if beside is not None:
            return Addresses(*beside)
        return await self._addresses_of(target)
