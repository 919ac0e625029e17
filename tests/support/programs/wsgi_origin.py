"""The site as a WSGI application, for gunicorn."""

import hashlib
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from pages import Site

SITE = Site()


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """One request. The headers are recorded as WSGI names them, the only way in which it tells them."""
    method, target = environ["REQUEST_METHOD"], environ["RAW_URI"]
    digest = hashlib.sha256()
    while piece := environ["wsgi.input"].read(65536):
        digest.update(piece)
    headers = [
        (name, value)
        for name, value in environ.items()
        if name.startswith("HTTP_") or name in ("CONTENT_TYPE", "CONTENT_LENGTH")
    ]
    SITE.record(method, target, headers, digest.hexdigest(), int(environ["REMOTE_PORT"]))
    fields = {name.removeprefix("HTTP_").replace("_", "-").lower(): value for name, value in headers}
    answer = SITE.answer(method, target, fields, digest.hexdigest())
    start_response(f"{answer.status} {HTTPStatus(answer.status).phrase}", answer.headers)
    if method == "HEAD":  # the application's to leave out, PEP 3333 says
        return []
    return answer.pieces() if answer.chunked else [answer.body]
