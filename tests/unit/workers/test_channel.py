"""Messages: whole, in order, whatever pieces they come in; and nothing without a bound."""

import pytest
from support.transports import MemoryTransport

from sidecar.workers import channel as channel_module
from sidecar.workers.channel import MAX_FRAME, Channel, Message, frame


def opened() -> tuple[MemoryTransport, list[Message], list[str]]:
    received: list[Message] = []
    lost: list[str] = []
    return MemoryTransport(Channel(received.append, lambda: lost.append("lost"))), received, lost


MESSAGES: list[Message] = [{"kind": "values"}, {"kind": "move", "at": 1.5, "name": "ä"}, {}]
STREAM = b"".join(frame(message) for message in MESSAGES)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, len(STREAM)])
def test_any_pieces_give_the_same_messages(size: int) -> None:
    transport, received, _ = opened()
    transport.feed(*[STREAM[at : at + size] for at in range(0, len(STREAM), size)])
    assert received == MESSAGES
    assert not transport.aborted


@pytest.mark.parametrize(
    "wire",
    [
        (MAX_FRAME + 1).to_bytes(4),
        b"\xff\xff\xff\xff",
        b"\0\0\0\1{",
        b"\0\0\0\2[]",
        b"\0\0\0\1\xff",
        b"\0\0\0\0",
    ],
)
def test_what_is_no_message_ends_the_channel(wire: bytes) -> None:
    transport, received, _ = opened()
    transport.feed(wire)
    assert transport.aborted
    assert not received


def test_sending_and_the_end_of_it() -> None:
    received: list[Message] = []
    lost: list[str] = []
    made = Channel(received.append, lambda: lost.append("lost"))
    made.send({"kind": "early"})  # into the void
    transport = MemoryTransport(made)
    made.send({"kind": "late"})
    assert transport.data == frame({"kind": "late"})
    transport.fill(100)
    assert made.unsent == 100
    transport.drain()
    made.close()
    assert transport.closing
    made.send({"kind": "after"})
    transport.lose()
    assert lost == ["lost"]
    assert made.unsent == 0
    made.send({"kind": "after"})
    made.close()
    assert transport.data == frame({"kind": "late"})


def test_a_message_that_the_other_end_would_refuse_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_module, "MAX_FRAME", 20)
    with pytest.raises(ValueError, match="at most 20"):
        frame({"kind": "x" * 20})
