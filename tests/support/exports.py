"""A configuration's text to what `sidecar export` prints of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from sidecar.config.load import load_settings
from sidecar.config.settings import DeploymentMode, Settings
from sidecar.export.command import Wishes, export

__all__ = ["Export", "exporter"]

# kind, text of the configuration, further wishes; the YAML, and its documents.
Export = Callable[..., tuple[str, list[dict[str, Any]]]]


def exporter(directory: Path, mode: DeploymentMode = DeploymentMode.KUBERNETES) -> Export:
    """What exports, of a file in `directory` where there is any text. mode: as it is detected there."""
    environ = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"} if mode is DeploymentMode.KUBERNETES else {}

    def _export(kind: str, text: str | None = None, **wishes: Any) -> tuple[str, list[dict[str, Any]]]:
        file = directory / "sidecar.yml"
        if text is not None:
            file.write_text(text)
            wishes["config"] = str(file)

        def load(config: str | None) -> Settings:
            return load_settings(config, environ=environ, container=True, directory=directory)

        found = export(kind, Wishes(**wishes), load)
        return found, list(yaml.safe_load_all(found))

    return _export
