"""Who may ask at the admin address, and who may change something there.

Without a token it is for this machine: for connections to a loopback address, and of a browser for its own pages only.
With one (`sidecar.admin_token_file`, `admin_token_env`) it is for whoever has it, from anywhere and by any name. Either
way nothing that another site's page can send is served, and nothing it could read is allowed to it: no answer ever has
a field of CORS (https://fetch.spec.whatwg.org/#http-cors-protocol).
"""

from __future__ import annotations

import hmac
import logging
import os
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aiohttp import web

from sidecar.clock import Clock
from sidecar.config.secrets import SecretError, read_token
from sidecar.model import AdminCounts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sidecar.config.settings import SidecarSettings

__all__ = ["CONTROL_HEADER", "Access", "peer_of"]

# A state-changing request must carry it: no form and no plain link of a page in a browser can, and a script of another
# origin may not without asking first (CORS preflight), which is never granted here.
CONTROL_HEADER = "X-Sidecar-Control"

# What shows nothing of this sidecar: a page, what belongs to it, and the description of the calls. A page has to be
# there before it can ask for the token.
OPEN = ("/", "/openapi.json")
ASSETS = "/assets/"

PAUSE = 1.0  # seconds between two lines about refusals: guessing must not fill a disk

_log = logging.getLogger("sidecar.admin")


class Access:
    """Decides about each request by the settings that hold then.

    settings: of the process now. counts: where it counts. environ: where a token's variable is; usually `os.environ`.
    """

    def __init__(
        self,
        settings: Callable[[], SidecarSettings],
        clock: Clock | None = None,
        counts: AdminCounts | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.counts = counts or AdminCounts()
        self._settings = settings
        self._clock = clock or Clock()
        self._environ = os.environ if environ is None else environ
        self._problem = ""
        self._next_line = float("-inf")
        self._left_out = 0

    @property
    def has_token(self) -> bool:
        """Whether a token is asked for."""
        settings = self._settings()
        return bool(settings.admin_token_env or settings.admin_token_file)

    def let_in(self, request: web.Request) -> None:
        """Raises `HTTPForbidden`, `HTTPUnauthorized`, or `HTTPServiceUnavailable` where the token cannot be read."""
        if not self.has_token:
            self._must_be_local(request)
        if not _is_open(request):
            self._must_be_own_page(request)
            if self.has_token:
                self._must_have_token(request)

    def lets_stay(self, request: web.Request) -> bool:
        """Whether one that was let in, and is still answered, would be again: the token may be another by now."""
        try:
            stays = (
                hmac.compare_digest(_bearer(request), self._token())
                if self.has_token
                else _came_by_loopback(request) and _is_local_name(request.headers.get("Host", "localhost"))
            )
        except SecretError:
            stays = False
        if not stays:
            self._note_refusal(request, "what it was let in by holds no longer")
        return stays

    def may_change(self, request: web.Request) -> None:
        """For what changes something, beside `let_in`. Raises `HTTPForbidden`."""
        if CONTROL_HEADER not in request.headers:
            raise self._refusal(request, f"send {CONTROL_HEADER}: 1 with it; a browser's form cannot")
        self._must_be_changeable(request)

    def may_quit(self, request: web.Request) -> None:
        """For ending the process, beside `let_in`: by whoever shares its network alone. Raises `HTTPForbidden`.

        It takes no `CONTROL_HEADER`: `curl -X POST` is what ends Jobs, and a page of another site is not let in anyway,
        as what it posts has an Origin (https://fetch.spec.whatwg.org/#origin-header).
        """
        if not _came_by_loopback(request):
            raise self._refusal(request, "only who asks at a loopback address may end it")
        self._must_be_changeable(request)

    def _must_be_changeable(self, request: web.Request) -> None:
        if self._settings().admin_read_only:
            problem = "this sidecar is only to be looked at; sidecar.admin_read_only says so"
            raise self._refusal(request, problem)

    def _must_be_local(self, request: web.Request) -> None:
        # A page in a browser may give its own name this machine's address (DNS rebinding) and then reads what the
        # loopback answers. The browser still sends that name as Host, and that is how it is told apart.
        host = request.headers.get("Host")
        if host is not None and not _is_local_name(host):
            raise self._refusal(request, "ask for it by IP address or as localhost")
        # A configuration cannot say both, but a reload that takes the token away leaves the socket where it is.
        if not _came_by_loopback(request):
            advice = "set admin_token_file or admin_token_env, or ask from its own machine"
            raise self._refusal(request, f"no token is configured, and without one it is local; {advice}")

    def _must_be_own_page(self, request: web.Request) -> None:
        """Origin (RFC 6454 section 7) is sent with what scripts ask for, Fetch Metadata also with images and the like.

        https://www.w3.org/TR/fetch-metadata/; a link that somebody follows is no harm, and what is posted is no link.
        """
        fields = request.headers
        origin = fields.get("Origin")
        foreign = origin is not None and not _is_same_place(origin, fields.get("Host", ""))
        inside = request.method not in ("GET", "HEAD") or fields.get("Sec-Fetch-Dest") != "document"
        if foreign or (inside and fields.get("Sec-Fetch-Site") in ("cross-site", "same-site")):
            raise self._refusal(request, "it is no business of another site's page")

    def _must_have_token(self, request: web.Request) -> None:
        try:
            token = self._token()
        except SecretError as error:
            self._note_problem(str(error))
            raise web.HTTPServiceUnavailable(reason=f"nobody is let in: {error}") from None
        self._note_problem("")
        given = _bearer(request)
        if hmac.compare_digest(given, token):
            return
        self.counts.denied += 1
        challenge = 'Bearer realm="sidecar"'  # RFC 6750 section 3
        problem = "send the field Authorization: Bearer TOKEN"
        if given:
            challenge += ', error="invalid_token"'
            problem = "this is not the token of this sidecar; " + problem
        self._note_refusal(request, "a wrong token" if given else "no token")
        raise web.HTTPUnauthorized(reason=problem, headers={"WWW-Authenticate": challenge})

    def _token(self) -> bytes:
        # Anew each time, so that it may be rotated: a file of 4 KiB at most.
        settings = self._settings()
        return read_token("admin_token", settings.admin_token_env, settings.admin_token_file, self._environ)

    def _refusal(self, request: web.Request, problem: str) -> web.HTTPForbidden:
        self._note_refusal(request, problem)
        return web.HTTPForbidden(reason=problem)

    def _note_refusal(self, request: web.Request, problem: str) -> None:
        now = self._clock.monotonic()
        if now < self._next_line:
            self._left_out += 1
            return
        more = f"; left out before it: {self._left_out}" if self._left_out else ""
        self._next_line, self._left_out = now + PAUSE, 0
        resource = request.match_info.route.resource
        what = f"{request.method} {resource.canonical}" if resource is not None else request.method
        _log.warning("refused to %s: %s: %s%s", peer_of(request), what, problem, more)

    def _note_problem(self, problem: str) -> None:
        """Once for each that comes, or goes."""
        if problem == self._problem:
            return
        self._problem = problem
        if problem:
            _log.error("the admin API lets nobody in: %s", problem)
        else:
            _log.info("the admin API's token can be read again")


def peer_of(request: web.Request) -> str:
    """Who asks, as `host:port`."""
    name = None if request.transport is None else request.transport.get_extra_info("peername")
    if not name:
        return "somebody who has left"
    return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"


def _is_open(request: web.Request) -> bool:
    # By the route that was found: there is no spelling of a path that is one thing here and another there.
    resource = request.match_info.route.resource
    return resource is not None and (resource.canonical in OPEN or resource.canonical.startswith(ASSETS))


def _came_by_loopback(request: web.Request) -> bool:
    own = None if request.transport is None else request.transport.get_extra_info("sockname")
    # Of one that has left meanwhile only where it came from is known: leaving is not to be a way in.
    host = own[0] if own else request.remote or ""
    return bool(host) and ip_address(host.partition("%")[0]).is_loopback


def _is_same_place(origin: str, host: str) -> bool:
    # Not the scheme: behind a proxy that adds TLS the page is https and this is not.
    try:
        return urlsplit(origin).netloc.lower() == host.lower() != ""
    except ValueError:
        return False


def _bearer(request: web.Request) -> bytes:
    """The token that a request brings (RFC 6750 section 2.1), empty for none or for more than one field."""
    fields = request.headers.getall("Authorization", [])
    scheme, _, token = fields[0].partition(" ") if len(fields) == 1 else ("", "", "")
    return token.strip().encode("utf-8", "surrogateescape") if scheme.lower() == "bearer" else b""


def _is_local_name(host: str) -> bool:
    """Whether a Host field (RFC 9110 section 7.2) holds an IP address or localhost, whatever the port."""
    if host.startswith("["):
        name, _, port = host[1:].partition("]")
        if port and not port.startswith(":"):
            return False
    else:
        name = host.partition(":")[0]
    if name.lower() == "localhost":
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
