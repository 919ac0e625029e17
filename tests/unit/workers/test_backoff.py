"""How long a dead worker's place stays empty."""

from sidecar.workers.backoff import LONGEST, STEADY, Backoff


def test_at_once_then_doubling_up_to_a_bound() -> None:
    backoff = Backoff()
    waits = [backoff.after(0.5) for _ in range(10)]
    assert waits == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, LONGEST, LONGEST]


def test_a_long_life_begins_anew() -> None:
    backoff = Backoff()
    for _ in range(5):
        backoff.after(0.0)
    assert backoff.after(STEADY) == 0.0
    assert backoff.after(STEADY - 0.1) == 0.1
