"""Time-outs and retries of http upstreams as Istio's VirtualService.

https://istio.io/latest/docs/reference/config/networking/virtual-service/
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sidecar.export.documents import Document
from sidecar.export.values import seconds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sidecar.config.settings import PolicySettings
    from sidecar.export.services import Used

__all__ = ["IDEMPOTENT", "virtual_service"]

IDEMPOTENT: Final = ("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE")  # RFC 9110 section 9.2.2
# What no endpoint has seen, and may be tried again whatever the method. Envoy's words:
# https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/router_filter#x-envoy-retry-on
_UNSEEN: Final = ("connect-failure", "refused-stream")
_TIMEOUT: Final = (
    "{host}: `timeout` here is of the whole answer. The sidecar's is of time without progress: raise this one for long "
    "downloads and streams."
)


def virtual_service(host: str, used: list[Used], *, alone: bool) -> Document:
    """alone: the Service has no other port that is used."""
    notes = [_TIMEOUT.format(host=host)]
    if any("timeout" in one.upstream.policy.retry.on for one in used):
        notes.append(
            "retry_on timeout is gateway-error, which tries 502, 503 and 504 of the endpoint again too."
        )
    routes = [route for one in used for route in _routes(host, one, alone=alone)]
    data = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": used[0].name, "namespace": used[0].namespace},
        "spec": {"hosts": [host], "http": routes},
    }
    return Document(data, tuple(notes))


def _routes(host: str, used: Used, *, alone: bool) -> Iterator[dict[str, Any]]:
    """One for requests that may be repeated, one for the others; the first that fits is taken."""
    policy = used.upstream.policy
    port = {} if alone or not used.port else {"port": used.port}
    destination: dict[str, Any] = {"host": host}
    if used.port:
        destination["port"] = {"number": used.port}
    common = {"route": [{"destination": destination}], "timeout": seconds(policy.timeout)}
    on = _retry_on(policy)
    if policy.retries and set(on) - set(_UNSEEN):
        repeatable = {"method": {"regex": "|".join(IDEMPOTENT)}, **port}
        yield {
            "name": f"{used.upstream.name}-idempotent",
            "match": [repeatable],
            **common,
            "retries": _retries(policy, on),
        }
    unseen = [condition for condition in on if condition in _UNSEEN]
    route: dict[str, Any] = {"name": used.upstream.name}
    if port:
        route["match"] = [port]
    yield {**route, **common, "retries": _retries(policy, unseen)}


def _retries(policy: PolicySettings, on: list[str]) -> dict[str, Any]:
    """Without a word Istio tries twice more, so that none is said, too."""
    tried_again = policy.retries > 0 and bool(on)
    found: dict[str, Any] = {"attempts": policy.retries if tried_again else 0}
    if policy.per_try_timeout:
        found["perTryTimeout"] = seconds(policy.per_try_timeout)
    if tried_again:
        found["retryOn"] = ",".join(on)
        if policy.retry.base:
            found["backoff"] = seconds(policy.retry.base)
    return found


def _retry_on(policy: PolicySettings) -> list[str]:
    found: list[str] = []
    for condition in policy.retry.on:
        if condition == "connect":
            found += _UNSEEN
        elif condition == "timeout":
            found.append("gateway-error")
        else:  # reset, and statuses, are called the same
            found.append(condition)
    return found
