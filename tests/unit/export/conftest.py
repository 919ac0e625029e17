"""What exports, in a directory of its own."""

from pathlib import Path

import pytest
from support.exports import Export, exporter


@pytest.fixture
def exported(tmp_path: Path) -> Export:
    return exporter(tmp_path)
