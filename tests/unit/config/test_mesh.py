"""`kubernetes.service_mesh`: what the seed's block comes to, and who is told that it is the mesh's."""

from dataclasses import replace
from pathlib import Path

import pytest

from sidecar.config.difference import difference
from sidecar.config.doors import MeshSettings
from sidecar.config.load import load_settings
from sidecar.config.settings import Settings

SEED = """\
kubernetes:
  service_mesh:
    enabled: true
    type: istio
    traffic_policy:
      load_balancer: round_robin
      circuit_breaker:
        consecutive_errors: 5
        interval: 30s
"""


def load(directory: Path, text: str) -> Settings:
    file = directory / "a.yml"
    file.write_text(text)
    return load_settings(file, environ={}, container=False)


def test_the_block_of_the_seed(tmp_path: Path) -> None:
    settings = load(tmp_path, SEED)
    assert settings.mesh == MeshSettings(True, "istio", "round_robin", 5, 30.0)
    assert settings.notes == (
        "kubernetes.service_mesh is what `sidecar export istio` says; upstreams here go by their own policies",
    )


@pytest.mark.parametrize(
    ("text", "mesh", "noted"),
    [
        ("", MeshSettings(), False),
        ("kubernetes: {}", MeshSettings(), False),
        ("kubernetes: {service_mesh: {type: linkerd}}", MeshSettings(True, "linkerd"), True),
        ("kubernetes: {service_mesh: {type: istio, enabled: false}}", MeshSettings(False, "istio"), False),
        (
            "kubernetes: {service_mesh: {type: linkerd, traffic_policy: {load_balancer: peak_ewma}}}",
            MeshSettings(True, "linkerd", "peak_ewma"),
            True,
        ),
    ],
)
def test_others(tmp_path: Path, text: str, mesh: MeshSettings, noted: bool) -> None:
    settings = load(tmp_path, f"services: {{api: {{host: a.example, port: 1}}}}\n{text}\n")
    assert settings.mesh == mesh
    assert bool(settings.notes) is noted


def test_a_reload_names_it_and_nothing_else(tmp_path: Path) -> None:
    settings = load(tmp_path, SEED)
    other = replace(settings, mesh=MeshSettings(True, "istio", "random"))
    assert difference(settings, other).lines == ["mesh"]
