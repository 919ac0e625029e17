"""The sidecar beside a service of Docker Compose, in its network namespace: there it is on localhost.

config/docker-compose.yml has it the other way round, so that the sidecar is there first. That takes the ports and the
networks away from the service, which only its own file can do: what is merged with it adds to them.
https://github.com/compose-spec/compose-spec/blob/main/05-services.md
"""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from sidecar.export.documents import Document
from sidecar.export.kubernetes import named_files
from sidecar.export.pod import (
    CONFIGURATION,
    STATE,
    USER,
    about_mode,
    about_volumes,
    arguments,
    asked_from_outside,
    grace_period,
    keeps_state,
    metrics_place,
    state_directory,
)
from sidecar.export.values import listed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sidecar.config.settings import Settings

__all__ = ["compose_documents"]


def compose_documents(settings: Settings, file: str, service: str, image: str) -> Iterator[Document]:
    """file: of the configuration; empty for the built-in services. service: whose calls it takes."""
    keeps = keeps_state(settings)
    sidecar: dict[str, Any] = {
        "image": image,
        "network_mode": f"service:{service}",
        # A service that is started anew has another namespace.
        "depends_on": {service: {"condition": "service_started", "restart": True}},
        "restart": "unless-stopped",
        "user": f"{USER}:{USER}",
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "stop_grace_period": f"{grace_period(settings)}s",
    }
    volumes: list[dict[str, Any]] = []
    if file:
        place = PurePath(file)
        source = str(place) if place.is_absolute() else f"./{place}"
        sidecar["command"] = arguments(settings)
        volumes.append(
            {"type": "bind", "source": source, "target": f"{CONFIGURATION}/sidecar.yml", "read_only": True}
        )
    environment = {} if file else {"AUTOBOT_DEPLOYMENT_MODE": settings.mode.value}
    if keeps:
        environment |= state_directory(settings)
        volumes.append({"type": "volume", "source": "sidecar-state", "target": STATE})
    if environment:
        sidecar["environment"] = environment
    if volumes:
        sidecar["volumes"] = volumes
    sidecar["healthcheck"] = {
        "test": [
            "CMD",
            "sidecar",
            "status",
            "--ready",
            "--metrics",
            metrics_place(settings),
        ],
        "interval": "10s",
        "timeout": "5s",
        "start_period": "30s",
    }
    data: dict[str, Any] = {"services": {"sidecar": sidecar}}
    if keeps:
        data["volumes"] = {"sidecar-state": {}}
    yield Document(data, _about(settings, file, service, keeps=keeps))


def _about(settings: Settings, file: str, service: str, *, keeps: bool) -> tuple[str, ...]:
    notes = [
        f"Made of {settings.origin} by `sidecar export compose`, beside the file that has the service `{service}`:",
        "docker compose -f docker-compose.yml -f sidecar.compose.yml up",
        f"The two share localhost: `{service}` calls the sidecar there, and ports are published by `{service}`.",
        (
            f"The sidecar starts after `{service}`, whose first calls have to be tried again. Where that is too late, "
            f"take `ports` and `networks` of `{service}` to the sidecar, and let `{service}` have `network_mode: "
            "service:sidecar` and `depends_on: {sidecar: {condition: service_healthy, restart: true}}` in place "
            "of the two that the sidecar has here."
        ),
    ]
    if file:
        notes.append(
            "What is mounted stays the file that it was when an editor puts another one in its place: "
            "`docker compose restart sidecar` follows that."
        )
    files = named_files(settings)
    if files:
        notes.append(
            f"The configuration names {listed(files)}, which have to be mounted too, where it has a relative name in "
            f"{CONFIGURATION}."
        )
    notes += about_mode(settings)
    notes += about_volumes(settings, f"`{service}`")
    if keeps:
        notes.append(f"The volume sidecar-state has to be writable for the user {USER}.")
    if settings.overrides:
        notes.append(f"Not in here: what {listed(settings.overrides)} said where this was made.")
    if asked_from_outside(settings):
        notes.append(f"sidecar.metrics is open to the networks of `{service}`.")
    return tuple(notes)
