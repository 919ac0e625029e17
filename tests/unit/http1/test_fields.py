"""Which header fields mean something to a proxy (RFC 9110 7.6.1), and what a field name is (5.1)."""

import pytest

from sidecar.http1.fields import (
    CONNECTION,
    CONTENT_LENGTH,
    CONTROLS,
    DROPPED,
    EXPECT,
    HOST,
    KINDS,
    MAX_FORWARDS,
    ORDINARY,
    TE,
    TOKEN,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    classify,
    members,
)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (b"Host", HOST),
        (b"hOsT", HOST),
        (b"Content-Length", CONTENT_LENGTH),
        (b"CONTENT-LENGTH", CONTENT_LENGTH),
        (b"Transfer-Encoding", TRANSFER_ENCODING),
        (b"Connection", CONNECTION),
        (b"Keep-Alive", DROPPED),
        (b"Proxy-Connection", DROPPED),
        (b"HTTP2-Settings", DROPPED),
        (b"TE", TE),
        (b"upgrade", UPGRADE),
        (b"Expect", EXPECT),
        (b"Trailer", TRAILER),
        (b"max-forwards", MAX_FORWARDS),
        (b"X-Anything", ORDINARY),
        (b"hosts", ORDINARY),
        (b"!#$%&'*+-.^_`|~", ORDINARY),
    ],
)
def test_a_name_has_one_kind_in_any_case(name: bytes, kind: int) -> None:
    assert classify(name) == kind


@pytest.mark.parametrize(
    "name",
    [b"", b" ", b"Host ", b" Host", b"Ho st", b"Host\t", b"H\xf6st", b"Host\0", b"a,b", b"(a)", b'"a"'],
)
def test_what_is_no_token_is_no_name(name: bytes) -> None:
    assert classify(name) == -1


def test_the_fast_table_says_what_classify_says() -> None:
    assert {name: classify(name) for name in KINDS} == KINDS
    assert KINDS[b"Content-Length"] == CONTENT_LENGTH, "the spelling that nearly all use"


def test_every_byte_is_in_its_class() -> None:
    delimiters = b'"(),/:;<=>?@[\\]{}'
    assert set(range(33, 127)) == {*TOKEN, *delimiters}, "RFC 9110 5.6.2"
    assert len(TOKEN) == len(set(TOKEN))
    assert set(CONTROLS) == ({*range(32)} - {ord("\t")}) | {127}


def test_a_list_is_read_by_its_members() -> None:
    assert members(b" Upgrade,,\tclose ,") == [b"upgrade", b"close"]
    assert members(b"") == []
