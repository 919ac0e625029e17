"""How many endpoints may be out of rotation at once, and what happens when more should be.

A breaker judges one endpoint alone. When most of an upstream's endpoints fail at once it is seldom they: the network,
a dependency that they share, or the load itself. Sending everything to the few that are left then fells those too,
so that beyond a bound nobody is left out (Envoy's panic threshold, AWS load balancers' "fail open").
"""

from __future__ import annotations

__all__ = ["too_few_left"]

_ROUNDING = 1e-6  # endpoints: 0.29 times 100 is less than 29


def too_few_left(endpoints: int, ejected: int, max_ejected: float, min_available: int) -> bool:
    """Whether `ejected` of so many `endpoints` are more than may be.

    max_ejected: a share, 0 to 1; above 0 at least one endpoint may always be ejected, or a small upstream's never were.
    min_available: how many must be left; an endpoint without others is not bound by it: there its breaker is all that
        lets an application know at once.
    """
    allowed = max(1, int(max_ejected * endpoints + _ROUNDING)) if max_ejected else 0
    return ejected > allowed or (endpoints > 1 and endpoints - ejected < min_available)
