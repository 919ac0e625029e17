"""What every policy is made of."""

import pytest

from sidecar.balance.picker import Picker


def test_a_policy_picks_for_itself() -> None:
    with pytest.raises(NotImplementedError):
        Picker().pick()
