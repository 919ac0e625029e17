"""Where connections come from: pure Python takes the event loop's own. In the compiled build `network.pyx` takes
this module's place, with sockets of its own that cost a fraction of the loop's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

__all__ = ["close_network", "new_event_loop", "open_network"]


def open_network(loop: asyncio.AbstractEventLoop) -> Any:
    """What has `create_server` and `create_connection`, as asyncio's loops spell them."""
    return loop


def new_event_loop() -> asyncio.AbstractEventLoop | None:
    """The loop to run a data path on; None leaves the choice to the caller."""
    return None


def close_network(network: Any) -> None:
    """End what `open_network` gave."""
