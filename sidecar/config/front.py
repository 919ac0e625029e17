"""What requests pass before they are sent to an upstream: header rules, a bearer token, a rate limit."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from sidecar.config.addresses import is_loopback
from sidecar.config.doors import HeaderEdits, HeaderSettings, RateSettings
from sidecar.config.unset import UNSET, UnsetType

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sidecar.config import schema
    from sidecar.config.findings import Findings, KeyPath
    from sidecar.config.marks import Document
    from sidecar.config.settings import UpstreamSettings

__all__ = ["OF_HTTP", "check_front", "merge_headers", "rate_settings", "token_notes"]

# Keys that mean nothing for what is not read as HTTP.
OF_HTTP: Final = ("headers", "bearer_token_env", "bearer_token_file")


def check_front(keys: schema.Policy, path: KeyPath, document: Document, findings: Findings) -> None:
    """Find keys of one layer, which stand at `path`, that contradict each other or miss one another."""
    tokens = [name for name in OF_HTTP[1:] if getattr(keys, name) is not UNSET]
    if path == ("defaults",):
        for name in tokens:
            problem = "would go to every upstream; write it at those that may see the token"
            document.report(findings, (*path, name), problem)
    elif len(tokens) > 1:
        problem = "says where the token is as well as bearer_token_env; keep one of the two"
        document.report(findings, (*path, "bearer_token_file"), problem)
    if not isinstance(keys.headers, UnsetType):
        for way in ("request", "response"):
            edits = getattr(keys.headers, way)
            if not isinstance(edits, UnsetType):
                taken = ("authorization",) if tokens and way == "request" else ()
                _check_edits(edits, (*path, "headers", way), taken, document, findings)
    rate = keys.rate_limit
    place = (*path, "rate_limit")
    if not isinstance(rate, UnsetType) and rate.requests is UNSET and not document.has((*place, "requests")):
        problem = "does not say how many; add `requests: N`, or `requests: 0` for no limit"
        document.report(findings, place, problem)


def _check_edits(
    edits: schema.HeaderEdits, path: KeyPath, taken: tuple[str, ...], document: Document, findings: Findings
) -> None:
    if isinstance(edits.remove, UnsetType):
        return
    fixed = () if isinstance(edits.set, UnsetType) else edits.set
    names = {name.lower() for name, _ in fixed}
    for index, name in enumerate(edits.remove):
        place = (*path, "remove", index)
        if name.lower() in names:
            document.report(findings, place, f"{name} is set as well; keep one of the two")
        elif name.lower() in taken:
            document.report(findings, place, f"{name} is where the bearer token goes; remove one of the two")


def merge_headers(before: HeaderSettings, keys: schema.Policy, file: str) -> HeaderSettings:
    """The rules of another layer over those before. file: the configuration, which names of files are relative to.

    What a layer says of a header replaces whatever was said of that header before; all other rules stay.
    """
    request, response = before.request, before.response
    if not isinstance(keys.headers, UnsetType):
        request = _merge_edits(request, keys.headers.request)
        response = _merge_edits(response, keys.headers.response)
    variable, secret = keys.bearer_token_env, keys.bearer_token_file
    return HeaderSettings(
        request,
        response,
        before.bearer_env if isinstance(variable, UnsetType) else variable,
        before.bearer_file if isinstance(secret, UnsetType) else os.path.join(os.path.dirname(file), secret),
    )


def _merge_edits(before: HeaderEdits, edits: schema.HeaderEdits | UnsetType) -> HeaderEdits:
    if isinstance(edits, UnsetType):
        return before
    fixed = () if isinstance(edits.set, UnsetType) else edits.set
    added = () if isinstance(edits.add, UnsetType) else edits.add
    removed = () if isinstance(edits.remove, UnsetType) else edits.remove
    said = {name.lower() for name in (*(name for name, _ in (*fixed, *added)), *removed)}
    return HeaderEdits(
        (*(pair for pair in before.set if pair[0].lower() not in said), *fixed),
        (*(pair for pair in before.add if pair[0].lower() not in said), *added),
        (*(name for name in before.remove if name.lower() not in said), *removed),
    )


def rate_settings(before: RateSettings, rate: schema.RateLimit | UnsetType) -> RateSettings:
    """The limit of another layer in place of the one before, as a whole: a number without its time means nothing."""
    if isinstance(rate, UnsetType) or isinstance(rate.requests, UnsetType):
        return before
    if not rate.requests:
        return RateSettings()
    return RateSettings(
        rate.requests,
        RateSettings().per if isinstance(rate.per, UnsetType) else rate.per,
        rate.requests if isinstance(rate.burst, UnsetType) else rate.burst,
    )


def token_notes(upstreams: Iterable[UpstreamSettings]) -> list[str]:
    """A sentence about each upstream whose token goes over the network for everybody to read."""
    return [
        f"{upstream.name}: its bearer token goes over plain http to other machines, where it can be read;"
        " use scheme: https, or a host on this one"
        for upstream in upstreams
        if (upstream.policy.headers.bearer_env or upstream.policy.headers.bearer_file)
        and not upstream.secure
        and not (
            upstream.source.is_static and all(is_loopback(endpoint.host) for endpoint in upstream.endpoints)
        )
    ]
