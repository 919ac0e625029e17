"""The data path under test: every proxy that a test makes is checked for leaks when the test has ended."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from unit.proxy.harness import Proxy


@pytest.fixture
def make_proxy() -> Iterator[Callable[..., Proxy]]:
    """Makes `Proxy` objects. Each must end with nothing open and every exchange counted exactly once."""
    made: list[Proxy] = []

    def make(*arguments: Any, **keywords: Any) -> Proxy:
        proxy = Proxy(*arguments, **keywords)
        made.append(proxy)
        return proxy

    yield make
    for proxy in made:
        proxy.finish()


@pytest.fixture
def proxy(make_proxy: Callable[..., Proxy]) -> Proxy:
    """One http upstream with one endpoint and default policies."""
    return make_proxy()
