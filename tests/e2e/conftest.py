"""The proxy before one or three real or scripted endpoints, as most end-to-end tests need it."""

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import gettempdir

import pytest
from support.servers import Nginx


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Nginx]:
    """Three endpoints in one nginx: a, b and c."""
    with Nginx(tmp_path / "nginx", "a", "b", "c") as server:
        yield server


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Nginx]:
    """A local service, which answers `a`."""
    with Nginx(tmp_path / "web", "a") as server:
        yield server


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory whose name leaves room in the 107 bytes of a socket's path."""
    short = Path(f"{gettempdir()}/sidecar-{os.getpid()}")
    short.symlink_to(tmp_path)
    yield short
    short.unlink()
