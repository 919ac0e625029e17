"""`x-request-id`: a request keeps the name that it comes with, and gets one where it has none.

It is no standard, but a custom that Envoy, nginx, HAProxy and many frameworks know.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from sidecar.observe.identifiers import new_request_id

if TYPE_CHECKING:
    from sidecar.clock import Clock
    from sidecar.http1.message import RequestHead
    from sidecar.proxy.recording import RecordedExchange

__all__ = ["REQUEST_ID", "RequestIds", "is_usable"]

REQUEST_ID: Final = b"x-request-id"
# What a log can hold as it is. A UUID has 36 characters, Amazon's trace ids 35; nobody's are much longer.
is_usable: Final = re.compile(rb"[!-~]{1,128}").fullmatch


class RequestIds:
    """Gives each request a name. Nothing is kept."""

    def __init__(self, clock: Clock) -> None:
        self._uniform = clock.uniform

    def identify(self, exchange: RecordedExchange, head: RequestHead) -> RequestHead:
        """The head with one usable `x-request-id`, which `exchange.request_id` is too.

        One that is not 1 to 128 visible ASCII characters, or stands twice, is replaced.
        """
        lines = head.unpacked()
        places = lines.places(REQUEST_ID)
        if len(places) == 1:
            (value,) = lines.values(places)
            if is_usable(value):
                exchange.request_id = value
                return head
        made = exchange.request_id = new_request_id(self._uniform)
        if places:
            lines.put(places[0], made)
            lines.drop(places[1:])
        else:
            lines.add(REQUEST_ID, made)
        return lines
