"""What the dashboard asks for, from a script: the page's own files, and events as the test wants them."""

import asyncio
import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Self

from aiohttp import web

from sidecar.admin.page import add_page

__all__ = ["EventStub", "endpoint_view", "history_view", "upstream_view"]


def endpoint_view(address: str, **other: Any) -> dict[str, Any]:
    """An endpoint as in /v1/upstreams, well unless `other` says something else."""
    host, _, port = address.rpartition(":")
    breaker = {
        "state": "closed",
        "failures": 0,
        "threshold": 5,
        "probing": False,
        "retry_at": None,
        "held": None,
        "journal": [],
        **other.pop("breaker", {}),
    }
    return {
        "address": address,
        "host": host,
        "port": int(port),
        "weight": 1,
        "zone": "",
        "in_rotation": breaker["state"] == "closed",
        "drained": False,
        "in_flight": 0,
        "connections": {"open": 0, "idle": 0},
        "attempts": {},
        "breaker": breaker,
        "check": None,
        **other,
    }


def upstream_view(name: str, *endpoints: dict[str, Any], **other: Any) -> dict[str, Any]:
    """An upstream as in /v1/upstreams with these endpoints."""
    return {
        "name": name,
        "scheme": "http",
        "strategy": "round_robin",
        "source": "static",
        "panic": False,
        "leaving": False,
        "requests": {"total": 0, "by_class": {}, "by_reason": {}},
        "retries": {"failed": 0, "succeeded": 0, "refused": 0, "active": 0},
        "hedges": {"lost": 0, "won": 0},
        "deadlines": {"header": None, "exceeded": 0},
        "in_flight": 0,
        "pending": 0,
        "sessions": {"active": 0, "total": 0, "by_reason": {}},
        "bytes": {"sent": 0, "received": 0},
        "overflows": {"total": 0, "by_limit": {}},
        "limits": {
            "connections": 1024,
            "connections_used": 0,
            "connections_per_endpoint": None,
            "connections_per_endpoint_used": 0,
            "pending": 1024,
            "pending_used": 0,
            "pending_timeout": 1.0,
            "in_flight": None,
            "in_flight_used": 0,
        },
        "endpoints": list(endpoints),
        "recent": {
            "seconds": 5.0,
            "requests": 100.0,
            "errors": 0.0,
            "p50": 0.002,
            "p99": 0.009,
            "sessions": 0.0,
            "bytes_sent": 1e5,
            "bytes_received": 1e6,
        },
        **other,
    }


def history_view(*names: str) -> dict[str, Any]:
    """/v1/history of upstreams that have only begun."""
    nothing = {key: [None] * 120 for key in ("requests", "errors", "p50", "p99")}
    upstreams = dict.fromkeys(names, nothing)
    return {"at": _now(), "interval": 5, "length": 120, "points": 0, "upstreams": upstreams}


class EventStub:
    """An admin address that says what it is told to say. Used as a context manager; see `port`."""

    def __init__(self, *upstreams: dict[str, Any], token: str | None = None, control: bool = True) -> None:
        self.upstreams = {view["name"]: view for view in upstreams}
        self.token = token
        self.control = control
        self.actions: list[str] = []  # as they were asked for: `NAME ACTION ENDPOINT`
        self.port = 0
        self.refusing = False  # whoever asks for events is sent away
        self._queues: set[asyncio.Queue[dict[str, Any] | None]] = set()
        self._count = 0

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        app = web.Application()
        app.router.add_get("/v1/events", self._events)
        app.router.add_post("/v1/upstreams/{name}/{action}", self._act)
        add_page(app, "index\n")
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.hang_up()
        await self._runner.cleanup()

    @property
    def clients(self) -> int:
        """How many follow the events."""
        return len(self._queues)

    def tell(self, *upstreams: dict[str, Any], **other: Any) -> None:
        """One `state` event to everybody: these upstreams have changed."""
        self.upstreams.update({view["name"]: view for view in upstreams})
        event = self._state(*upstreams)
        for queue in self._queues:
            queue.put_nowait({**event, **other})

    def post(self, *upstreams: dict[str, Any]) -> None:
        """`tell`, from another thread."""
        self._loop.call_soon_threadsafe(self.tell, *upstreams)

    def hang_up(self) -> None:
        """End every connection that follows."""
        for queue in self._queues:
            queue.put_nowait(None)

    def _allowed(self, request: web.Request) -> bool:
        return self.token is None or request.headers.get("Authorization") == f"Bearer {self.token}"

    async def _events(self, request: web.Request) -> web.StreamResponse:
        if not self._allowed(request):
            return web.json_response({"error": "a token is needed", "status": 401}, status=401)
        if self.refusing:
            return web.json_response({"error": "too many pages", "status": 503}, status=503)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._queues.add(queue)
        try:
            hello = {
                "version": "0.1.0",
                "mode": "local",
                "compiled": True,
                "control": self.control,
                "actions": ["drain", "enable", "trip", "reset"],
                "interval": 1,
            }
            await response.write(self._event("hello", hello))
            await response.write(self._event("history", history_view(*self.upstreams)))
            state: dict[str, Any] | None = self._state(*self.upstreams.values())
            while state is not None:
                await response.write(self._event("state", state))
                state = await queue.get()
        except ConnectionResetError:
            pass
        finally:
            self._queues.discard(queue)
        with suppress(ConnectionResetError):
            await response.write_eof()
        return response

    def _state(self, *upstreams: dict[str, Any]) -> dict[str, Any]:
        order = list(self.upstreams)
        return {"at": _now(), "points": 0, "draining": False, "order": order, "upstreams": list(upstreams)}

    def _event(self, kind: str, data: dict[str, Any]) -> bytes:
        self._count += 1
        return f"event: {kind}\nid: {self._count}\ndata: {json.dumps(data)}\n\n".encode()

    async def _act(self, request: web.Request) -> web.Response:
        if not self._allowed(request):
            return web.json_response({"error": "a token is needed", "status": 401}, status=401)
        assert request.headers.get("X-Sidecar-Control") == "1"
        name, action = request.match_info["name"], request.match_info["action"]
        endpoint = request.query.get("endpoint")
        self.actions.append(f"{name} {action} {endpoint}")
        done = [one["address"] for one in self.upstreams[name]["endpoints"]]
        return web.json_response(
            {"upstream": name, "action": action, "endpoints": done if endpoint is None else [endpoint]}
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
