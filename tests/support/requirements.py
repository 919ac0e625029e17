"""What a test needs of its machine: a laptop may lack it, CI may not."""

import os
from typing import NoReturn

import pytest

__all__ = ["lacking"]


def lacking(reason: str) -> NoReturn:
    """Skip the test for this reason; where CI=true fail it, as a green run must have run everything."""
    if os.environ.get("CI", "").lower() in ("true", "1"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
