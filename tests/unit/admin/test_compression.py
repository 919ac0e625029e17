"""Answers that come in parts, and are compressed for who asks for that."""

import gzip

import pytest

from sidecar.admin.compression import LEAST, Body, accepts_gzip


@pytest.mark.parametrize(
    ("accept_encoding", "is_accepted"),
    [
        ("gzip", True),  # Prometheus
        ("gzip, deflate, br, zstd", True),
        ("br;q=1.0, gzip;q=0.8, *;q=0.1", True),
        ("GZIP; q=0.001", True),
        ("x-gzip", True),
        ("*", True),
        ("", False),
        ("identity", False),
        ("deflate, br", False),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("gzip;q=maybe", False),
        ("*, gzip;q=0", False),
        ("*;q=0", False),
    ],
)
def test_gzip_is_for_who_accepts_it(accept_encoding: str, is_accepted: bool) -> None:
    assert accepts_gzip(accept_encoding) is is_accepted


def test_a_long_answer_is_compressed() -> None:
    body = Body("gzip")
    parts = [b"%d\n" % number * 100 for number in range(100)]
    for part in parts:
        body.add(part)
    assert body.fields == {"Content-Encoding": "gzip"}
    packed = b"".join(body.finish())
    assert len(packed) < len(b"".join(parts)) / 5
    assert gzip.decompress(packed) == b"".join(parts)


def test_a_short_answer_is_not() -> None:
    body = Body("gzip")
    for part in (b"a" * (LEAST - 2), b"b", b"c"):
        body.add(part)
    assert body.fields == {}
    assert b"".join(body.finish()) == b"a" * (LEAST - 2) + b"bc"


def test_one_byte_more_is() -> None:
    body = Body("gzip")
    for part in (b"a" * (LEAST - 2), b"b", b"c", b"d"):
        body.add(part)
    assert gzip.decompress(b"".join(body.finish())) == b"a" * (LEAST - 2) + b"bcd"


def test_who_does_not_ask_for_it_gets_it_plain() -> None:
    body = Body("")
    body.add(b"a" * 10 * LEAST)
    assert body.fields == {}
    assert b"".join(body.finish()) == b"a" * 10 * LEAST
