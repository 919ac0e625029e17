"""What a terminal sends, as keys."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.console.keys import Keys


def keys_of(*pieces: bytes) -> list[str]:
    keys = Keys()
    found = [key for piece in pieces for key in keys.feed(piece)]
    return found + keys.flush()


@pytest.mark.parametrize(
    ("sent", "keys"),
    [
        (b"qs/ j", ["q", "s", "/", " ", "j"]),
        (b"\r\n\x7f\x08", ["enter", "enter", "backspace", "backspace"]),
        (b"\x1b[A\x1b[B\x1bOA\x1bOB", ["up", "down", "up", "down"]),
        (b"\x1b[5~\x1b[6~\x1b[H\x1b[F\x1b[1~\x1b[4~", ["page up", "page down", "home", "end", "home", "end"]),
        (b"\x1b", ["escape"]),
        (b"\x1b\x1b[A", ["escape", "up"]),
        (b"\x1bq", ["escape", "q"]),
        (b"\x1b[15~\x1b[1;5Aq", ["q"]),  # F5 and Ctrl-Up mean nothing
        ("測é".encode(), ["測", "é"]),
        (b"\xff\x00\x01q", ["\ufffd", "q"]),
        (
            b"\x1b[" + b"1" * 40 + b"q",
            [*"1" * 25, "q"],
        ),  # what no key sends is dropped as far as it is no text
    ],
)
def test_bytes_are_keys(sent: bytes, keys: list[str]) -> None:
    assert keys_of(sent) == keys


def test_an_escape_byte_waits_for_what_may_follow() -> None:
    keys = Keys()
    assert keys.feed(b"\x1b") == []
    assert keys.pending
    assert keys.feed(b"[") == []
    assert keys.feed(b"A") == ["up"]
    assert not keys.pending
    assert keys.feed(b"\x1b") == []
    assert keys.flush() == ["escape"]
    assert keys.flush() == []


@given(
    st.lists(st.sampled_from([b"q", b"\x1b", b"[", b"O", b"A", b"5", b"~", b"\r", b"\xc3", b"\xa9", b"\x00"]))
)
def test_any_split_of_the_bytes_gives_the_same_keys(pieces: list[bytes]) -> None:
    assert keys_of(*pieces) == keys_of(b"".join(pieces))
