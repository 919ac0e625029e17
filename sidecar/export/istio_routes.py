"""Time-outs, retries, header rules and mirrors of http upstreams as Istio's VirtualService.

https://istio.io/latest/docs/reference/config/networking/virtual-service/
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from sidecar.export.documents import Document
from sidecar.export.values import seconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from sidecar.config.doors import HeaderEdits, HeaderSettings
    from sidecar.config.settings import PolicySettings
    from sidecar.export.services import Used

__all__ = ["IDEMPOTENT", "destination", "repeated", "virtual_service"]

IDEMPOTENT: Final = ("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE")  # RFC 9110 section 9.2.2
# What no endpoint has seen, and may be tried again whatever the method. Envoy's words:
# https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/router_filter#x-envoy-retry-on
_UNSEEN: Final = ("connect-failure", "refused-stream")
_TIMEOUT: Final = (
    "{host}: `timeout` here is of the whole answer. The sidecar's is of time without progress: raise this one for long "
    "downloads and streams."
)


def destination(used: Used) -> dict[str, Any]:
    """The Service, and its port where it is known."""
    found: dict[str, Any] = {"host": used.host}
    if used.port:
        found["port"] = {"number": used.port}
    return found


def virtual_service(host: str, used: list[Used], *, alone: bool, places: Mapping[str, Any]) -> Document:
    """alone: the Service has no other port that is used. places: destinations of upstreams, for mirrors."""
    notes = [_TIMEOUT.format(host=host)]
    if any("timeout" in one.upstream.policy.retry.on for one in used):
        notes.append(
            "retry_on timeout is gateway-error, which tries 502, 503 and 504 of the endpoint again too."
        )
    routes = [route for one in used for route in _routes(one, alone=alone, places=places)]
    data = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": used[0].name, "namespace": used[0].namespace},
        "spec": {"hosts": [host], "http": routes},
    }
    return Document(data, tuple(notes))


def _routes(used: Used, *, alone: bool, places: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """One for requests that may be repeated, one for the others; the first that fits is taken."""
    policy = used.upstream.policy
    port = {} if alone or not used.port else {"port": used.port}
    common: dict[str, Any] = {
        "route": [{"destination": destination(used)}],
        "timeout": seconds(policy.timeout),
        **_changed(policy),
    }
    if policy.mirror.to in places:
        common["mirror"] = places[policy.mirror.to]
        common["mirrorPercentage"] = {"value": round(policy.mirror.share * 100, 6)}
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


def _changed(policy: PolicySettings) -> dict[str, Any]:
    """Host, where it is a name of the configuration's, and header rules."""
    found: dict[str, Any] = {}
    if policy.host_header not in ("endpoint", "preserve"):
        found["rewrite"] = {"authority": policy.host_header}
    headers = _headers(policy.headers)
    if headers:
        found["headers"] = headers
    return found


def _headers(headers: HeaderSettings) -> dict[str, Any]:
    found = {}
    for way, edits in (("request", headers.request), ("response", headers.response)):
        once = [pair for pair in edits.add if pair[0] not in repeated(edits)]
        said = {"set": _fields(edits.set), "add": _fields(once), "remove": list(edits.remove)}
        said = {key: value for key, value in said.items() if value}
        if said:
            found[way] = said
    return found


def repeated(edits: HeaderEdits) -> list[str]:
    """Names that are added with several values, where Istio takes one."""
    counts = Counter(name for name, _ in edits.add)
    return [name for name, count in counts.items() if count > 1]


def _fields(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Fields by name. Envoy reads `%` as the beginning of a command.

    https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/headers#custom-request-response-headers
    """
    return {name: value.replace("%", "%%") for name, value in pairs}


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
