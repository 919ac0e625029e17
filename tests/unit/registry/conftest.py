"""Registries that say what a test tells them to."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.live import Scripted, scripted


@pytest.fixture
def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripted]:
    with scripted(tmp_path, monkeypatch) as found:
        yield found
