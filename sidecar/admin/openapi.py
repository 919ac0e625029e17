"""The description of the admin API (https://spec.openapis.org/oas/v3.1.0), as it is served at `/openapi.json`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sidecar.admin.access import CONTROL_HEADER
from sidecar.admin.config_shape import config_shape
from sidecar.admin.control import ACTIONS
from sidecar.admin.shapes import Shape, one_of, ref, shapes

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["calls", "description"]

VERSION = "1"  # of the API, which paths begin with; it grows only when a call stops answering as it did

_ABOUT = (
    "What a sidecar shows of itself, and what may be done to it. Calls without the version are the same ones. Without "
    "a configured token it answers at a loopback address only, to whoever asks by IP address or as localhost; with "
    "one, every call but `/`, `/openapi.json` and `/assets` takes it. Errors are JSON, and say what to do."
)
_OF_ALL = {
    "401": "the token is missing, or another one",
    "403": "asked by another site's page, or without a token from elsewhere",
    "503": "the token cannot be read",
}
_NOT_FOUND = {"404": "no upstream is called so"}
_MAY_NOT = {
    **_OF_ALL,
    "403": f"{CONTROL_HEADER} is missing, or the sidecar is read only; or as for other calls",
}


def description(paths: Collection[tuple[str, str]], *, token: bool) -> dict[str, Any]:
    """The whole document. paths: (method, path) of the calls that there are. token: whether one is asked for."""
    found: dict[str, Any] = {}
    for (method, path), call in calls().items():
        if (method, path) in paths:
            found.setdefault(path, {})[method.lower()] = call
    components: dict[str, Any] = {"schemas": {**shapes(), "Config": config_shape()}}
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "sidecar admin", "version": VERSION, "description": _ABOUT},
        "servers": [{"url": "/"}],
        "paths": found,
        "components": components,
    }
    if token:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
    return document


def calls() -> dict[tuple[str, str], dict[str, Any]]:
    """What there may be: the Operation Object of each (method, path)."""
    known = {**_shown(), **_done()}
    # As they were before there was a version.
    before = ("/v1/upstreams", "/v1/explain/{name}", "/v1/upstreams/{name}/{action}", "/v1/reload")
    aliases = {
        (method, path.removeprefix("/v1")): {
            **call,
            "operationId": f"{call['operationId']}Unversioned",
            "summary": f"The same as {path}",
        }
        for (method, path), call in known.items()
        if path in before
    }
    return {**known, **aliases}


def _shown() -> dict[tuple[str, str], dict[str, Any]]:
    named = [_parameter("name", "path", "the upstream")]
    return {
        ("GET", "/v1/upstreams"): _call(
            "upstreams",
            "Every upstream with its endpoints, breakers and counters",
            _json("Upstreams", "how it is now, in the order of the configuration"),
        ),
        ("GET", "/v1/upstreams/{name}"): _call(
            "upstream", "One upstream", _json("Upstream", "how it is now"), _NOT_FOUND, parameters=named
        ),
        ("GET", "/v1/explain/{name}"): _call(
            "explain",
            "Why the next request of an upstream goes where it goes",
            _json("Explanation", "in words"),
            _NOT_FOUND,
            parameters=named,
        ),
        ("GET", "/v1/config"): _call(
            "config", "The configuration as it is followed", _json("Config", "without any secret")
        ),
        ("GET", "/v1/history"): _call(
            "history", "The last ten minutes of each upstream", _json("History", "a point for each 5 s")
        ),
        ("GET", "/v1/events"): _call(
            "events",
            "What changes, each second, until the client leaves",
            _events(
                "`hello` at first, and when it has changed; `history` once: as /v1/history; `state` each second: the "
                "upstreams that have changed, of one with more than 100 endpoints the 100 that are least well, and how "
                "many there are: endpoints_total, _drained, _serving. It ends when what let the client in holds no "
                "longer, such as the token.",
            ),
            {"503": "as many clients as may are there (16); or the token cannot be read"},
        ),
        ("GET", "/openapi.json"): _open(
            "openapi", "This description", _as("application/json", "OpenAPI 3.1", {"type": "object"})
        ),
        ("GET", "/"): _open(
            "index", "The dashboard, or a list of the calls", _as("text/html", "", also="text/plain")
        ),
        ("GET", "/assets/{name}"): _open(
            "asset",
            "What the dashboard consists of",
            _as("text/css", "a file", also="text/javascript"),
            {"404": "there is no such file"},
            parameters=[_parameter("name", "path", "the file")],
        ),
    }


def _done() -> dict[tuple[str, str], dict[str, Any]]:
    sent = _parameter(CONTROL_HEADER, "header", "any value; a form of a browser cannot send it", example="1")
    act = [
        _parameter("name", "path", "the upstream"),
        _parameter("action", "path", "what is done", schema=one_of(ACTIONS)),
        _parameter("endpoint", "query", "host:port; without it all", needed=False, example="10.0.0.1:8001"),
        sent,
    ]
    return {
        ("POST", "/v1/upstreams/{name}/{action}"): _call(
            "act",
            "Take an endpoint out of rotation, or put it back",
            _json("Done", "done", {"upstream": "api", "action": "drain", "endpoints": ["10.0.0.1:8001"]}),
            {**_MAY_NOT, "404": "nobody is called so", "400": "the query is something else"},
            parameters=act,
            description="drain: nothing new is sent there, and what is under way finishes, sessions too; enable: it is "
            "sent to again. trip: its breaker opens until reset; reset: it closes, whatever opened it.",
        ),
        ("POST", "/v1/reload"): _call(
            "reload",
            "Read the configuration again",
            _json("Reloaded", "followed", {"result": "reloaded", "changes": ["api: timeout"]}),
            _MAY_NOT,
            parameters=[sent],
            others={
                "409": _json("NotReloaded", "it cannot be followed here; the one before goes on"),
                "422": _json("NotReloaded", "the configuration is wrong; the one before goes on"),
            },
        ),
        ("POST", "/quitquitquit"): _call(
            "quit",
            "Finish what is in flight, accept nothing more, and end",
            _json("Ends", "it ends", {"result": "ending", "in_flight": 0}),
            {
                **_OF_ALL,
                "403": "asked elsewhere than at a loopback address, or the sidecar is read only; or as for others",
            },
            description="For Jobs, whose main container calls it as its last act. At a loopback address only; no "
            f"{CONTROL_HEADER} is asked for.",
        ),
    }


def _call(
    name: str,
    summary: str,
    answer: Shape,
    errors: dict[str, str] | None = None,
    *,
    parameters: list[Shape] | None = None,
    description: str = "",
    others: dict[str, Shape] | None = None,
) -> dict[str, Any]:
    """An Operation Object. errors: beside those that any call may have. others: further answers by status."""
    responses = {
        "200": answer,
        **(others or {}),
        **{status: _json("Error", about) for status, about in {**_OF_ALL, **(errors or {})}.items()},
    }
    call: dict[str, Any] = {"operationId": name, "summary": summary, "responses": responses}
    if description:
        call["description"] = description
    if parameters:
        call["parameters"] = parameters
    return call


def _open(
    name: str,
    summary: str,
    answer: Shape,
    errors: dict[str, str] | None = None,
    *,
    parameters: list[Shape] | None = None,
) -> dict[str, Any]:
    """An Operation Object of what asks for no token."""
    call = _call(name, summary, answer, errors, parameters=parameters)
    for status in ("401", "503"):
        del call["responses"][status]
    return {**call, "security": []}


def _parameter(
    name: str, where: str, about: str, *, needed: bool = True, schema: Shape | None = None, example: str = ""
) -> Shape:
    found: Shape = {
        "name": name,
        "in": where,
        "required": needed,
        "description": about,
        "schema": schema or {"type": "string"},
    }
    return {**found, "example": example} if example else found


def _json(shape: str, about: str, example: dict[str, Any] | None = None) -> Shape:
    return _as("application/json", about, ref(shape), example=example)


def _events(about: str) -> Shape:
    """A Response Object of server-sent events: OpenAPI 3.1 has no word for the shapes of their data."""
    response = _as("text/event-stream", about)
    shapes_of_data = {"hello": ref("Hello"), "history": ref("History"), "state": ref("State")}
    response["content"]["text/event-stream"]["x-event-data"] = shapes_of_data
    return response


def _as(
    kind: str,
    about: str,
    schema: Shape | None = None,
    *,
    also: str = "",
    example: dict[str, Any] | None = None,
) -> Shape:
    """A Response Object of a media type, or of one of two."""
    media: Shape = {"schema": schema or {"type": "string"}}
    if example is not None:
        media["example"] = example
    return {"description": about or "a page", "content": {one: media for one in (kind, also) if one}}
