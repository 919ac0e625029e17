"""A WSGI application for gunicorn that is loaded before workers are forked: who answers, and where `web` is."""

import os
from collections.abc import Callable, Iterable
from typing import Any

from sidecar import ServiceRegistry

registry = ServiceRegistry("services.yml")
registry.wait_until_ready(10)


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """`PID URL`."""
    body = f"{os.getpid()} {registry.get_service_url('web')}".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
