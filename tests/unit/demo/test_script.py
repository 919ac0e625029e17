"""When a demo endpoint is ill, and how."""

import pytest

from sidecar.demo.run import ILLNESS, SCRIPTS
from sidecar.demo.script import ALWAYS_WELL, Health, Script


@pytest.mark.parametrize(
    ("elapsed", "ill"),
    [
        (0.0, False),
        (4.99, False),
        (5.0, True),
        (11.99, True),
        (12.0, False),
        (24.9, False),
        (25.0, True),
        (32.0, False),
    ],
)
def test_it_falls_ill_and_heals_in_every_period(elapsed: float, ill: bool) -> None:
    script = Script(period=20.0, ill_from=5.0, well_from=12.0)
    assert (script.health(elapsed, 0) is not Health.WELL) == ill


def test_symptoms_take_turns() -> None:
    script = Script(period=20.0, ill_from=0.0, well_from=20.0)
    drop, unavailable = Health.DROPPING, Health.UNAVAILABLE
    assert [script.health(1.0, n) for n in range(6)] == [drop, drop, unavailable, drop, drop, unavailable]


def test_always_well_is() -> None:
    assert {ALWAYS_WELL.health(elapsed / 10, 0) for elapsed in range(50)} == {Health.WELL}


def test_the_demo_is_well_long_enough_to_be_understood_and_one_endpoint_alone_is_ever_ill() -> None:
    assert ILLNESS.ill_from >= 4
    assert [name for name, script in SCRIPTS.items() if script is not ALWAYS_WELL] == ["api-2"]
