"""A sidecar that announces `web`, and what it says of that, whatever the registry."""

from typing import Any

from support.http import get
from support.ports import free_port
from support.proxy import Sidecar

__all__ = ["announcing", "registrations", "shown"]


def announcing(registry: str, kind: str, listen: int = 0, *, register: str = "", workers: int = 1) -> str:
    """A configuration with one upstream, `web`, which is looked up in `registry`, an entry of external_registry."""
    return f"""external_registry: {{type: {kind}, {registry}}}
services: {{web: {{port: 80, source: {kind}}}}}
{f"register: [{register}]" if register else ""}
sidecar:
  {{bind: [127.0.0.1], ports: {{{listen or free_port()}: web}}, admin: "127.0.0.1:ADMIN", metrics: "127.0.0.1:METRICS",
    workers: {workers}, drain_timeout: 5}}
"""


def shown(running: Sidecar) -> dict[str, Any]:
    """The only registration of /upstreams."""
    (found,) = get(running.admin, "/upstreams").json["registrations"]
    assert isinstance(found, dict)
    return found


def registrations(running: Sidecar, registry: str, result: str) -> float:
    """How often announcing in `registry` has come to `result`."""
    labels = f'registry="{registry}",result="{result}"'
    return running.metrics()[f"sidecar_registrations_total{{{labels}}}"]
