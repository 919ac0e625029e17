"""The site as an aiohttp server: `aiohttp_origin.py PORT`."""

import asyncio
import hashlib
import sys

from aiohttp import web
from multidict import CIMultiDict
from pages import Site

SITE = Site()


async def handle(request: web.Request) -> web.StreamResponse:
    """One request."""
    digest = hashlib.sha256()
    async for piece in request.content.iter_any():
        digest.update(piece)
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.raw_headers]
    assert request.transport is not None
    peer = request.transport.get_extra_info("peername")[1]
    SITE.record(request.method, request.raw_path, headers, digest.hexdigest(), peer)
    fields = {name.lower(): value for name, value in headers}
    answer = SITE.answer(request.method, request.raw_path, fields, digest.hexdigest())
    named = CIMultiDict(answer.headers)
    if not answer.chunked:
        return web.Response(status=answer.status, headers=named, body=answer.body)
    response = web.StreamResponse(status=answer.status, headers=named)
    response.enable_chunked_encoding()
    await response.prepare(request)
    if request.method != "HEAD":
        for piece in answer.pieces():
            await response.write(piece)
    await response.write_eof()
    return response


async def serve(port: int) -> None:
    """Serve until a signal ends the process."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(application, max_field_size=65536)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


asyncio.run(serve(int(sys.argv[1])))
