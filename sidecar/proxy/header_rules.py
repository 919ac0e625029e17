"""Header fields that an upstream's requests and responses are given, or lose, on their way.

Rules are made into lines once. Each head is walked once: a field that is set keeps its place and is there once, what is
new goes to the end, and all others keep their order. Names match in any case.

Not edited: interim responses and 101, which are of the connection as much as of the endpoint; trailers, whose fields
are announced by name; and what the proxy answers itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sidecar.http1.message import RequestHead, ResponseHead

__all__ = ["Edits", "FieldRules"]

_AUTHORIZATION = b"authorization"


class Edits:
    """The rules of one direction.

    fixed: by name in lower case, the line that takes the place of the fields called so; None takes them out.
    added: lines that come behind all others.
    """

    __slots__ = ("added", "fixed")

    def __init__(
        self,
        fixed: Iterable[tuple[str, str]] = (),
        added: Iterable[tuple[str, str]] = (),
        removed: Iterable[str] = (),
    ) -> None:
        self.fixed: dict[bytes, bytes | None] = {name.lower().encode("ascii"): None for name in removed}
        self.fixed |= {name.lower().encode("ascii"): _line(name, value) for name, value in fixed}
        self.added = [_line(name, value) for name, value in added]

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.fixed or self.added)


class FieldRules:
    """Of one upstream, see `proxy.front.HeaderRules`."""

    __slots__ = ("_request", "_response")

    def __init__(self, request: Edits, response: Edits) -> None:
        self._request = request
        self._response = response

    def carry(self, token: bytes) -> None:
        """Have requests carry this bearer token from now on, whatever the application sent (RFC 6750 section 2.1)."""
        self._request.fixed[_AUTHORIZATION] = b"Authorization: Bearer " + token

    def edit_request(self, head: RequestHead) -> RequestHead:
        """See `HeaderRules.edit_request`."""
        if not self._request:
            return head
        head = head.unpacked()
        head.edit(self._request.fixed, self._request.added)
        return head

    def edit_response(self, head: ResponseHead) -> None:
        """See `HeaderRules.edit_response`."""
        if self._response:
            head.edit(self._response.fixed, self._response.added)


def _line(name: str, value: str) -> bytes:
    return f"{name}: {value}".encode("ascii")
