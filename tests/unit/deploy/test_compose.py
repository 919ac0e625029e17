"""config/docker-compose.yml: what it says of its services agrees with itself and with the configuration it mounts."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar.config.load import load_settings
from sidecar.version import __version__

CONFIG = Path(__file__).resolve().parents[3] / "config"
COMPOSE: dict[str, Any] = yaml.safe_load((CONFIG / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
# https://github.com/compose-spec/compose-spec/blob/main/05-services.md, of which these are used.
KEYS = {
    "build",
    "cap_drop",
    "command",
    "depends_on",
    "environment",
    "healthcheck",
    "image",
    "network_mode",
    "networks",
    "ports",
    "read_only",
    "restart",
    "security_opt",
    "stop_grace_period",
    "tmpfs",
    "user",
    "volumes",
}


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_confined_and_checked(name: str) -> None:
    service = SERVICES[name]
    assert set(service) <= KEYS
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["healthcheck"]["test"][0] == "CMD"  # needs no shell
    assert not service["image"].endswith(":latest")
    assert ":" in service["image"]


def test_names_lead_somewhere() -> None:
    assert set(COMPOSE) <= {"name", "services", "volumes", "x-confined"}
    for service in SERVICES.values():
        assert set(service.get("depends_on", ())) <= set(SERVICES)
        mode = service.get("network_mode", "")
        assert mode.removeprefix("service:") in {"", *SERVICES}
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert (CONFIG / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]


def test_the_backend_is_in_the_sidecars_namespace_and_starts_when_it_is_ready() -> None:
    backend, sidecar = SERVICES["backend"], SERVICES["sidecar"]
    assert backend["network_mode"] == "service:sidecar"
    assert not {"ports", "networks"} & set(backend)  # compose refuses them there
    assert backend["depends_on"]["sidecar"]["condition"] == "service_healthy"
    assert "depends_on" not in sidecar  # ready whatever its upstreams are
    assert sidecar["image"] == f"sidecar:{__version__}"
    assert (CONFIG / sidecar["build"]["context"] / "Dockerfile").exists()


def test_the_mounted_configuration_leads_to_the_services() -> None:
    sidecar, backend = SERVICES["sidecar"], SERVICES["backend"]
    (mounted,) = sidecar["volumes"]
    source, target, options = mounted.split(":")
    assert options == "ro"
    assert sidecar["command"] == ["run", "--config", f"{target}/sidecar.yml"]
    settings = load_settings(CONFIG / source / "sidecar.yml", environ={})
    for upstream in settings.upstreams:
        (endpoint,) = upstream.endpoints
        assert endpoint.host in SERVICES
        variable = f"{upstream.name.upper().replace('-', '_')}_HOST"
        assert backend["environment"][variable] == "localhost"
    published = {port.rsplit(":", 1)[1] for port in sidecar["ports"]}
    assert published == {"8001", str(settings.sidecar.metrics.port)}
    assert 8001 not in {upstream.listen_port for upstream in settings.upstreams}
    assert settings.sidecar.drain_timeout < int(sidecar["stop_grace_period"].removesuffix("s"))
