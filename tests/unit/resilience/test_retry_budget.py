"""Retries as a share of requests."""

from sidecar.resilience import RetryBudget
from sidecar.resilience.retry_budget import WINDOW

NOW = 100.0


def given(budget: RetryBudget, asked: int, now: float = NOW) -> int:
    """How many of so many retries it allows."""
    return sum(budget.withdraw(now) for _ in range(asked))


def spent(requests: int, ratio: float = 0.2, least: int = 0, now: float = NOW) -> RetryBudget:
    """One that has seen so many requests."""
    budget = RetryBudget(ratio, least)
    for _ in range(requests):
        budget.deposit(now)
    return budget


def test_one_in_five() -> None:
    assert given(spent(100), 100) == 20


def test_a_few_are_allowed_whatever_the_share() -> None:
    assert given(spent(1, least=3), 100) == 30, "three for each of ten seconds"
    assert given(spent(1000, least=3), 1000) == 200


def test_none_at_all() -> None:
    assert given(spent(1000, ratio=0.0), 10) == 0


def test_of_nothing_there_is_no_share() -> None:
    assert given(spent(4), 10) == 0
    assert given(spent(5), 10) == 1


def test_what_is_long_past_counts_no_more() -> None:
    budget = spent(100)
    assert given(budget, 20) == 20
    assert given(budget, 1, NOW + WINDOW + 1.0) == 0, "the requests are forgotten"
    for _ in range(50):
        budget.deposit(NOW + WINDOW + 1.0)
    assert given(budget, 50, NOW + WINDOW + 1.0) == 10, "and so are the retries"


def test_all_may_be_tried_again() -> None:
    assert given(spent(10, ratio=1.0), 20) == 10


def test_a_share_that_floats_do_not_have_is_not_less_than_itself() -> None:
    assert given(spent(100, ratio=0.29), 100) == 29


def test_another_share_holds_at_once_and_what_was_spent_stays_spent() -> None:
    budget = RetryBudget(0.0, 1)
    for _ in range(100):
        budget.deposit(0.0)
    assert [budget.withdraw(0.0) for _ in range(11)] == [True] * 10 + [False]
    budget.configure(0.2, 0)
    assert budget.totals(0.0) == (100, 10)
    assert [budget.withdraw(0.0) for _ in range(11)] == [True] * 10 + [False]
