"""Writing to a transport of whatever kind. In the compiled build `writing.pyx` takes this module's place: there it is
a call from C to C where the transport is the reactor's, which spares each write a look-up by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import WriteTransport

__all__ = ["write_to"]


def write_to(transport: WriteTransport, data: bytes) -> None:
    """What `transport.write(data)` does; for what every request writes."""
    transport.write(data)
