"""A ConfigMap as the kubelet mounts it, without a cluster."""

import os
import shutil
from pathlib import Path

__all__ = ["ConfigMapVolume"]


class ConfigMapVolume:
    """Files of a mounted ConfigMap, replaced all at once as the kubelet's AtomicWriter does.

    Each file is a link to `..data/NAME`, `..data` a link to a directory named by the time. A new directory is
    filled, a link `..data_tmp` to it made and renamed over `..data`, and the directory before removed.
    https://pkg.go.dev/k8s.io/kubernetes/pkg/volume/util#AtomicWriter
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._updates = 0
        directory.mkdir()

    def update(self, **files: str) -> None:
        """Replace the content of all files; `endpoints_yml` is endpoints.yml."""
        self._updates += 1
        data = self.directory / "..data"
        before = data.resolve() if data.is_symlink() else None
        stamped = self.directory / f"..2024_05_01_12_00_{self._updates:02}.{1000 + self._updates}"
        stamped.mkdir()
        named = {name.replace("_", "."): content for name, content in files.items()}
        for name, content in named.items():
            (stamped / name).write_text(content)
        temporary = self.directory / "..data_tmp"
        temporary.symlink_to(stamped.name)
        temporary.rename(data)
        for name in named:
            if not os.path.lexists(self.directory / name):
                (self.directory / name).symlink_to(f"..data/{name}")
        if before is not None:
            shutil.rmtree(before)
