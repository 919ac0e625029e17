"""What the bytes of a connection are given to."""

from __future__ import annotations

__all__ = ["Receiver"]


class Receiver:
    """Base of the data path's protocols. The compiled build's transports call it from C to C."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        """Bytes of the other side."""
        raise NotImplementedError

    def is_asked(self) -> bool:
        """Whether the other side is expected to wait now: it has said all, and is to be answered."""
        return False
