"""The proxy before one or three real or scripted endpoints, as most end-to-end tests need it."""

from collections.abc import Iterator
from pathlib import Path

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
