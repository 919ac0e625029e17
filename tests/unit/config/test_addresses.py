"""Hosts, host:port pairs, and which are one place."""

import pytest

from sidecar.config.addresses import is_loopback, overlap, parse_authority, parse_host


@pytest.mark.parametrize(
    "host",
    ["localhost", "a", "redis-01.autobot.prod", "my_service", "example.com.", "10.0.0.1", "::1", "a" * 63],
)
def test_hosts(host: str) -> None:
    assert parse_host(host) == host


@pytest.mark.parametrize(
    "host",
    [
        "",
        ".",
        "a..b",
        "-a",
        "a-",
        "a b",
        "[::1]",
        "a:80",
        "http://a",
        "a/b",
        "a" * 64,
        "a." * 130 + "a",
        "é.fr",
        "a\n",
    ],
)
def test_hosts_that_are_none(host: str) -> None:
    with pytest.raises(ValueError, match="is no host"):
        parse_host(host)


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("a:80", ("a", 80)),
        (" a:80 ", ("a", 80)),
        ("10.0.0.1:65535", ("10.0.0.1", 65535)),
        ("[::1]:80", ("::1", 80)),
    ],
)
def test_authorities(text: str, pair: tuple[str, int]) -> None:
    assert parse_authority(text) == pair


def test_port_zero_only_where_it_is_said() -> None:
    assert parse_authority("a:0", lowest_port=0) == ("a", 0)
    with pytest.raises(ValueError, match="no port between 1"):
        parse_authority("a:0")


@pytest.mark.parametrize(
    "text", ["", "a", ":80", "a:", "a:x", "a:65536", "a:+1", "::1:80", "[a]:80", "[10.0.0.1]:80", "a:\u0668"]
)
def test_authorities_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not host:port|no port between|no IPv6"):
        parse_authority(text)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("LOCALHOST.", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("redis.example", False),
    ],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (["127.0.0.1"], ["127.0.0.1"], True),
        (["127.0.0.1"], ["127.0.0.2"], False),
        (["127.0.0.2"], ["localhost"], False),
        (["::1"], ["localhost"], True),
        (["0:0:0:0:0:0:0:1"], ["::1"], True),
        (["0.0.0.0"], ["127.0.0.1"], True),
        (["127.0.0.1"], ["0.0.0.0"], True),
        (["0.0.0.0"], ["::1"], False),
        (["::"], ["::1"], True),
        (["::"], ["127.0.0.1"], False),
        (["0.0.0.0", "::"], ["localhost"], True),
        (["0.0.0.0"], ["redis.example"], False),
        (["Redis.example"], ["redis.example"], True),
    ],
)
def test_overlap(one: list[str], other: list[str], same: bool) -> None:
    assert overlap(one, other) is same
    assert overlap(other, one) is same
