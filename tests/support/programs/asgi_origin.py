"""The site as an ASGI application, for uvicorn."""

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

from pages import Site

SITE = Site()


async def application(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """One request."""
    digest = hashlib.sha256()
    more = True
    while more:
        message = await receive()
        digest.update(message.get("body", b""))
        more = message.get("more_body", False)
    query = scope["query_string"]
    target = (scope["raw_path"] + (b"?" + query if query else b"")).decode("latin-1")
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
    SITE.record(scope["method"], target, headers, digest.hexdigest(), scope["client"][1])
    answer = SITE.answer(scope["method"], target, dict(headers), digest.hexdigest())
    fields = [(name.encode(), value.encode()) for name, value in answer.headers]
    await send({"type": "http.response.start", "status": answer.status, "headers": fields})
    if answer.chunked:
        for piece in answer.pieces():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})
    else:
        await send({"type": "http.response.body", "body": answer.body})
