"""Single values: what the corpus does not show."""

import pytest

from sidecar.config.rules import Authority, Bytes, HostHeader, Mode, Seconds, Unusable, Whole
from sidecar.config.settings import Address, DeploymentMode


def test_text_of_the_environment() -> None:
    assert Whole(0, 10).from_text("+7") == 7
    assert Seconds().from_text("250ms") == 0.25
    assert Bytes(0, 2048).from_text("1KiB") == 1024
    assert Mode().from_text("DOCKER-LOCAL") is DeploymentMode.DOCKER_LOCAL
    assert Authority().from_text("[::1]:80") == Address("::1", 80)


@pytest.mark.parametrize("text", ["9" * 5000, "1e3", "0x10", "010", "7.0", "\u0667"])
def test_numbers_that_the_environment_may_not_use(text: str) -> None:
    with pytest.raises(Unusable):
        Whole(0, 10**9).from_text(text)


@pytest.mark.parametrize("value", ["endpoint", "preserve", "api.example", "api.example:8080", "[::1]:80"])
def test_host_headers(value: str) -> None:
    assert HostHeader().accept(value) == value


def test_zero_is_off_only_where_it_is_said() -> None:
    assert Seconds(zero=True).read(0, "0") == 0.0
    with pytest.raises(Unusable, match="no time at all"):
        Seconds().read(0, "0")


def test_a_day_is_the_longest() -> None:
    assert Seconds().read("24h", "24h") == 86400.0
    with pytest.raises(Unusable, match="more than a day"):
        Seconds().read(86401, "86401")


@pytest.mark.parametrize(("written", "value"), [("1_000", 1000), ("1:40.5", 100.5), ("0b11", 3)])
def test_numbers_that_only_yaml_reads_so(written: str, value: float) -> None:
    with pytest.raises(Unusable, match="is read by YAML as"):
        Seconds().read(value, written)
