"""Where at the admin address things are."""

from __future__ import annotations

from urllib.parse import quote, urlencode

__all__ = ["HISTORY", "QUIT", "RELOAD", "UPSTREAMS", "action_path", "explain_path"]

_VERSION = "/v1"

UPSTREAMS = f"{_VERSION}/upstreams"
HISTORY = f"{_VERSION}/history"
RELOAD = f"{_VERSION}/reload"
QUIT = "/quitquitquit"  # without a version: the name that it has in Envoy, and in what ends Jobs


def explain_path(name: str) -> str:
    """Why an upstream's next request goes where it goes."""
    return f"{_VERSION}/explain/{quote(name, safe='')}"


def action_path(name: str, action: str, endpoint: str | None) -> str:
    """Where `action` is done to one endpoint (host:port) of an upstream, or to all."""
    path = f"{UPSTREAMS}/{quote(name, safe='')}/{action}"
    return path if endpoint is None else f"{path}?{urlencode({'endpoint': endpoint})}"
