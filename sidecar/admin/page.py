"""The dashboard: the files of the folder `page`, as they are, to whoever asks with a browser.

Everything that it shows it asks for itself, from `/v1`. So it is the same for everybody and needs no token.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import ETag, web

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["add_page"]

_FOLDER = Path(__file__).with_name("page")
_INDEX = "index.html"
_CONTENT_TYPES = {  # `mimetypes` would ask the machine, which may know others or none
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
# What the page may do (https://www.w3.org/TR/CSP3/): only files of this address, none within a page of another, and
# nothing inline, so that a name that holds mark-up could do nothing even if it were taken for some.
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; frame-ancestors 'none'; form-action 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Asked for again each time, with the ETag: after an upgrade no page is half an old one.
    "Cache-Control": "no-cache",
}


def add_page(app: web.Application, index: str) -> None:
    """`/` and `/assets/NAME` for `app`. index: what `/` says to whoever does not accept HTML.

    Reads the files, 60 KiB of them, and keeps them. Raises OSError when they are not there.
    """
    files = {path.name: path for path in _FOLDER.iterdir() if path.suffix in _CONTENT_TYPES}
    page = _file(files.pop(_INDEX))

    async def root(request: web.Request) -> web.StreamResponse:
        response = await page(request) if _accepts_html(request) else web.Response(text=index)
        response.headers["Vary"] = "Accept"
        return response

    app.router.add_get("/", root)
    for name, path in files.items():
        app.router.add_get(f"/assets/{name}", _file(path))


def _file(path: Path) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """A handler that answers with the file as it is now."""
    body = path.read_bytes()
    tag = ETag(sha256(body).hexdigest()[:16])
    content_type = _CONTENT_TYPES[path.suffix]

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.if_none_match and any(known.value in (tag.value, "*") for known in request.if_none_match):
            response = web.Response(status=304, headers=_HEADERS)
        else:
            response = web.Response(body=body, content_type=content_type, charset="utf-8", headers=_HEADERS)
        response.etag = tag
        return response

    return answer


def _accepts_html(request: web.Request) -> bool:
    """Whether text/html is asked for by name (RFC 9110 section 12.5.1): `*/*` is what curl and scripts send."""
    for part in request.headers.get("Accept", "").lower().split(","):
        media, *parameters = (piece.strip() for piece in part.split(";"))
        if media == "text/html":
            return not any(
                name.replace(" ", "") in ("q=0", "q=0.0", "q=0.00", "q=0.000") for name in parameters
            )
    return False
