"""Endpoints and pickers by themselves, as the tests of balancing use them."""

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from sidecar.balance import Balancing, Picker, Policy
from sidecar.model import Endpoint, EndpointState
from sidecar.model.stats import UpstreamStats

__all__ = ["balancing", "build", "counts", "names", "states"]


def states(*weights: int, zones: Sequence[str] = ()) -> list[EndpointState]:
    """Endpoints a, b, c, ... of these weights, then e26 and so on."""
    absent: Any = None
    found = []
    for index, weight in enumerate(weights):
        host = chr(ord("a") + index) if index < 26 else f"e{index}"
        zone = zones[index] if zones else ""
        found.append(EndpointState(Endpoint(host, 80, weight, zone), b"", absent, absent))
    return found


def balancing(seed: int = 1, max_load: float = 1.25, members: Iterable[EndpointState] = ()) -> Balancing:
    """What pickers are given beside their endpoints; chance from `seed`."""
    made = Balancing(random.Random(seed).random, UpstreamStats(), max_load)
    made.members = list(members)
    return made


def build(
    policy: Policy,
    endpoints: Sequence[EndpointState],
    previous: Any = None,
    given: Balancing | None = None,
) -> Picker:
    """A picker of `policy`."""
    return policy(endpoints, previous, given or balancing())


def names(picker: Picker, count: int) -> str:
    """The next `count` picks, by host."""
    picked = [picker.pick(0, 0.0) for _ in range(count)]
    return "".join(state.endpoint.host for state in picked if state is not None)


def counts(picker: Picker, keys: Iterable[int], now: float = 0.0) -> Counter[str]:
    """How often each host is picked for these keys."""
    found: Counter[str] = Counter()
    for key in keys:
        state = picker.pick(key, now)
        assert state is not None
        found[state.endpoint.host] += 1
    return found
