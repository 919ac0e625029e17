"""The dashboard: the files of the folder `page`, as they are, to whoever asks with a browser.

Everything that it shows it asks for itself, from `/v1`. So it is the same for everybody and needs no token.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from aiohttp import ETag, web

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

    Reads the files, 70 KiB of them, and keeps them. Raises OSError when they are not there.
    """
    files = {path.name: _File(path) for path in _FOLDER.iterdir() if path.suffix in _CONTENT_TYPES}
    page = files.pop(_INDEX)

    async def root(request: web.Request) -> web.Response:
        answer = page.answer(request) if _accepts_html(request) else web.Response(text=index)
        answer.headers["Vary"] = "Accept"
        return answer

    async def asset(request: web.Request) -> web.Response:
        found = files.get(request.match_info["name"])
        if found is None:
            raise web.HTTPNotFound(reason="the page has no such file")
        return found.answer(request)

    app.router.add_get("/", root)
    app.router.add_get("/assets/{name}", asset)


class _File:
    """What a file held when it was read."""

    __slots__ = ("_body", "_content_type", "_tag")

    def __init__(self, path: Path) -> None:
        self._body = path.read_bytes()
        self._tag = ETag(sha256(self._body).hexdigest()[:16])
        self._content_type = _CONTENT_TYPES[path.suffix]

    def answer(self, request: web.Request) -> web.Response:
        """It, or 304 to who has it (RFC 9110 section 13.1.2)."""
        if any(known.value in (self._tag.value, "*") for known in request.if_none_match or ()):
            response = web.Response(status=304, headers=_HEADERS)
        else:
            response = web.Response(
                body=self._body, content_type=self._content_type, charset="utf-8", headers=_HEADERS
            )
        response.etag = self._tag
        return response


def _accepts_html(request: web.Request) -> bool:
    """Whether text/html is asked for by name (RFC 9110 section 12.5.1): `*/*` is what curl and scripts send."""
    for part in request.headers.get("Accept", "").lower().split(","):
        media, *parameters = (piece.strip() for piece in part.split(";"))
        if media == "text/html":
            return not any(
                name.replace(" ", "") in ("q=0", "q=0.0", "q=0.00", "q=0.000") for name in parameters
            )
    return False
