"""Header rules, bearer tokens and rate limits, made from the settings, and kept while these are the same.

What may fail is made before anything changes (`prepare`): a token that is not there ends a start, or refuses a reload.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from sidecar.config.doors import HeaderSettings
from sidecar.config.secrets import SecretError, read_token
from sidecar.errors import StartError
from sidecar.proxy.header_rules import Edits, FieldRules
from sidecar.resilience import TokenBucket

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.clock import Clock
    from sidecar.config.doors import HeaderEdits, RateSettings
    from sidecar.config.settings import Settings, UpstreamSettings
    from sidecar.model.stats import UpstreamStats

__all__ = ["BearerToken", "Fronts"]

_NONE = HeaderSettings()


class BearerToken:
    """What the requests of one upstream carry in `Authorization`; renewed when its file is (see `rotation.Rotating`).

    A token of a variable is read once: nobody changes the environment of a process that runs.
    """

    def __init__(
        self,
        upstream: str,
        settings: HeaderSettings,
        rules: FieldRules,
        note: Callable[[BearerToken], None],
    ) -> None:
        """Raises SecretError when there is none. note: see `Fronts`."""
        self.name = f"{upstream}: the bearer token"
        self.files: tuple[str, ...] = (settings.bearer_file,) if settings.bearer_file else ()
        self._variable = settings.bearer_env
        self._rules = rules
        self._counts = [0, 1]  # failed, succeeded
        note(self)
        self.take(self.load())

    @property
    def loads(self) -> int:
        """How often it was read, the first time included."""
        return self._counts[1]

    @loads.setter
    def loads(self, count: int) -> None:
        self._counts[1] = count

    @property
    def failures(self) -> int:
        """How often it could not be read again."""
        return self._counts[0]

    @failures.setter
    def failures(self, count: int) -> None:
        self._counts[0] = count

    def count_in(self, stats: UpstreamStats) -> None:
        """Count there from now on, and add what has been counted."""
        counts = stats.secret_loads
        if counts is not self._counts:
            for result, count in enumerate(self._counts):
                counts[result] += count
            self._counts = counts

    def load(self) -> bytes:
        """See `Rotating`. Raises SecretError, which repeats nothing of it."""
        file = self.files[0] if self.files else ""
        return read_token("bearer_token", self._variable, file, os.environ)

    def take(self, made: Any) -> None:
        """See `Rotating`."""
        self._rules.carry(made)


class _Headers:
    """The rules of one upstream, its token among them."""

    __slots__ = ("rules", "settings", "token")

    def __init__(self, upstream: str, settings: HeaderSettings, note: Callable[[BearerToken], None]) -> None:
        self.settings = settings
        self.rules = FieldRules(_edits(settings.request), _edits(settings.response))
        self.token: BearerToken | None = None
        if settings.bearer_env or settings.bearer_file:
            self.token = BearerToken(upstream, settings, self.rules, note)


class _Rate:
    """The limit of one upstream, and what it was made of."""

    __slots__ = ("bucket", "made_of")

    def __init__(self, made_of: tuple[RateSettings, int], now: float) -> None:
        self.made_of = made_of
        self.bucket = TokenBucket(*_share(*made_of), now)

    def follow(self, made_of: tuple[RateSettings, int], now: float) -> None:
        if made_of != self.made_of:
            self.made_of = made_of
            self.bucket.configure(*_share(*made_of), now)


class Fronts:
    """Of all upstreams of one process.

    note: called with a token that is about to be read, so that a change of its file meanwhile is noticed.
    """

    def __init__(self, clock: Clock, note: Callable[[BearerToken], None]) -> None:
        self._clock = clock
        self._note = note
        self._headers: dict[str, _Headers] = {}
        self._prepared: dict[str, _Headers] = {}
        self._rates: dict[str, _Rate] = {}

    def prepare(self, settings: Settings) -> None:
        """Make what is new of the rules, and read the tokens. Raises StartError, and nothing has changed then."""
        made = {}
        for upstream in settings.upstreams:
            wanted = upstream.policy.headers
            if wanted == _NONE:
                continue
            before = self._headers.get(upstream.name)
            try:
                kept = before is not None and before.settings == wanted
                made[upstream.name] = (
                    before if before is not None and kept else _Headers(upstream.name, wanted, self._note)
                )
            except SecretError as error:
                raise StartError(f"{upstream.name}: {error}") from None
        self._prepared = made

    def follow(self, settings: Settings) -> None:
        """Go by what was prepared of `settings`; limits keep what they have counted."""
        self._headers = self._prepared
        now, workers = self._clock.monotonic(), settings.sidecar.workers
        rates = {}
        for upstream in settings.upstreams:
            if upstream.policy.rate_limit.requests:
                made_of = (upstream.policy.rate_limit, workers)
                rate = rates[upstream.name] = self._rates.get(upstream.name) or _Rate(made_of, now)
                rate.follow(made_of, now)
        self._rates = rates

    def rules(self, upstream: UpstreamSettings) -> FieldRules | None:
        """The header rules of an upstream."""
        found = self._headers.get(upstream.name)
        return None if found is None else found.rules

    def rate(self, upstream: UpstreamSettings) -> TokenBucket | None:
        """The rate limit of an upstream."""
        found = self._rates.get(upstream.name)
        return None if found is None else found.bucket

    def token(self, upstream: UpstreamSettings) -> BearerToken | None:
        """The token of an upstream."""
        found = self._headers.get(upstream.name)
        return None if found is None else found.token

    def tokens(self) -> list[BearerToken]:
        """All of them."""
        return [found.token for found in self._headers.values() if found.token is not None]


def _edits(edits: HeaderEdits) -> Edits:
    return Edits(edits.set, edits.add, edits.remove)


def _share(rate: RateSettings, workers: int) -> tuple[float, float, float]:
    """One worker's: connections are dealt out to them by a hash, and nobody counts for all."""
    return rate.requests / workers, rate.per, rate.burst / workers
