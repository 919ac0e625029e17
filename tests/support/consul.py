"""A Consul agent as its documentation describes it, in the loop of a test. What goes wrong is `consul_faults`.

Pages, as docstrings name them, under https://developer.hashicorp.com/consul/api-docs:
[health] /health · [blocking] /features/blocking · [consistency] /features/consistency · [service] /agent/service ·
[check] /agent/check · [structure] /api-structure (tokens) · and
[limits] https://developer.hashicorp.com/consul/docs/reference/agent/configuration-file/general (`limits`).
"""

import asyncio
import json
import re
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web

from support.ports import free_port

__all__ = [
    "Answer",
    "ConsulAgent",
    "Instance",
    "Seen",
    "Token",
]

MAX_WAIT, DEFAULT_WAIT = 600.0, 300.0  # seconds [blocking]
LEAST_DEREGISTER = 60.0  # seconds [check]
MAX_CONNECTIONS = 200  # of one address, `http_max_conns_per_client` [limits]

Answer = Callable[["ConsulAgent", web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Token:
    """What a token may do: `service:read` and `node:read` of the services named (None is all), `service:write`."""

    read: frozenset[str] | None = None
    write: bool = True

    def reads(self, service: str) -> bool:
        """Whether it may see instances of a service."""
        return self.read is None or service in self.read


@dataclass(frozen=True)
class Seen:
    """A request as it came. target: path and query, as they were encoded. token: empty without one."""

    method: str
    target: str
    token: str
    body: Any = None

    @property
    def path(self) -> str:
        """Without the query."""
        return self.target.partition("?")[0]

    @property
    def index(self) -> int:
        """What it blocks on; 0 for nothing."""
        found = re.search(r"[?&]index=([0-9]+)", self.target)
        return int(found[1]) if found else 0


@dataclass
class Instance:
    """One instance in the catalogue. statuses: of its checks and its node's, by check id."""

    service: dict[str, Any]
    node: dict[str, Any]
    statuses: dict[str, str]
    ttls: dict[str, float] = field(default_factory=dict)
    deregister: float = 0.0  # seconds of being critical after which it goes; 0 is never

    @property
    def passing(self) -> bool:
        """Whether all of its checks pass; `?passing` leaves those out that only warn, too [health]."""
        return all(status == "passing" for status in self.statuses.values())

    def entry(self) -> dict[str, Any]:
        """As /v1/health/service has it [health]."""
        checks = [
            {"Node": self.node["Node"], "CheckID": check, "Status": status, "ServiceID": self.service["ID"]}
            for check, status in self.statuses.items()
        ]
        return {"Node": self.node, "Service": self.service, "Checks": checks}


class ConsulAgent:
    """An agent that is a server too. Used as an async context manager.

    index: raft's. jitter: how much of the sixteenth of a wait is added to it [blocking]; the longest, unless set.
    script: answers for the next health requests, in turn; `always` for all of them.
    node_address: of what is registered without an address.
    tokens: who may do what, once there are any; requests without one are anonymous then, and see nothing.
    seen: all requests. waits: seconds that queries were let block. blocked: how many do now.
    """

    def __init__(self, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.host = host
        self.port = port or free_port()
        self.index = 10
        self.jitter = 1.0
        self.compress = False
        self.node_address = "10.9.9.9"
        self.datacenters = {"dc1"}
        self.max_connections = MAX_CONNECTIONS
        self.old_refusals = False  # 500 where newer ones say 404
        self.script: deque[Answer] = deque()
        self.always: Answer | None = None
        self.tokens: dict[str, Token] = {}
        self.instances: dict[str, Instance] = {}
        self.seen: list[Seen] = []
        self.waits: list[float] = []
        self.blocked = 0
        self._indexes: dict[str, int] = {}  # by service
        self._restored = 0
        self._tls = tls
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._connections: set[asyncio.Transport] = set()
        self._changed = asyncio.Event()  # another one after each change
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen. What was known before is known still."""
        app = web.Application(middlewares=[self._note])
        app.router.add_get("/v1/health/service/{service}", self._health)
        app.router.add_put("/v1/agent/service/register", self._register)
        app.router.add_put("/v1/agent/service/deregister/{id}", self._deregister)
        app.router.add_put("/v1/agent/check/pass/{id}", self._pass)
        app.router.add_put("/v1/agent/check/update/{id}", self._update)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, self.host, self.port, ssl_context=self._tls).start()

    async def stop(self) -> None:
        """Stop, and cut what is open."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    # What a test does to the catalogue

    def add(
        self,
        service: str,
        identity: str,
        address: str = "10.0.0.1",
        port: Any = 80,
        *,
        node: dict[str, Any] | None = None,
        status: str = "passing",
        **fields: Any,
    ) -> None:
        """An instance as a node has registered it. fields: others of Service."""
        entry = {
            "ID": identity,
            "Service": service,
            "Tags": [],
            "Address": address,
            "TaggedAddresses": {},
            "Meta": {},
            "Port": port,
            "Weights": {"Passing": 1, "Warning": 1},
            "EnableTagOverride": False,
        }
        self.instances[identity] = Instance(
            entry | fields,
            {"Node": "node-1", "Address": self.node_address, "Datacenter": "dc1", "Meta": {}} | (node or {}),
            {"serfHealth": "passing", f"service:{identity}": status},
        )
        self.change(service)

    def remove(self, identity: str) -> None:
        """It has gone."""
        self._stop_timer(identity)
        self.change(self.instances.pop(identity).service["Service"])

    def set_status(self, identity: str, status: str) -> None:
        """Of its own check."""
        instance = self.instances[identity]
        instance.statuses[f"service:{identity}"] = status
        self.change(instance.service["Service"])

    def change(self, service: str) -> None:
        """The service's index moves on, which may also happen without a change [blocking]."""
        self.index += 1
        self._indexes[service] = self.index
        self._notify()

    def restore(self, index: int) -> None:
        """A snapshot of an older state is restored: indexes go backwards, blocked queries end [blocking]."""
        self.index = index
        self._indexes = dict.fromkeys(self._indexes, index)
        self._restored += 1
        self._notify()

    async def until(self, look: Callable[["ConsulAgent"], Any], seconds: float = 10.0) -> None:
        """Wait for something of this agent."""
        async with asyncio.timeout(seconds):
            while not look(self):
                await self._changed.wait()

    def _notify(self) -> None:
        """Who waits for a change looks again."""
        self._changed.set()
        self._changed = asyncio.Event()

    # What it is asked

    @web.middleware
    async def _note(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        body = await request.read()
        token = request.headers.get("X-Consul-Token", "")
        self.seen.append(Seen(request.method, request.raw_path, token, json.loads(body) if body else None))
        self._notify()
        assert request.transport is not None
        self._connections = {one for one in self._connections if not one.is_closing()}
        if request.transport not in self._connections:
            if len(self._connections) >= self.max_connections:
                # As agents answer the connection that is one too many [limits].
                said = "Your IP is issuing too many concurrent connections, please rate limit your calls\n"
                response = web.Response(status=429, text=said)
                response.force_close()
                return response
            self._connections.add(request.transport)
        return await handler(request)

    def _token(self, request: web.Request) -> Token | web.Response:
        """The token's rights, or the refusal: one that does not exist, or has expired [structure]."""
        if not self.tokens:
            return Token()
        secret = request.headers.get("X-Consul-Token", "")
        if not secret:
            return Token(frozenset(), write=False)
        return self.tokens.get(secret) or web.Response(status=403, text="ACL not found")

    async def _health(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/health/service/:service [health], which blocks [blocking]."""
        if self.script:
            return await self.script.popleft()(self, request)
        if self.always is not None:
            return await self.always(self, request)
        return await self.health(request)

    async def health(self, request: web.Request) -> web.StreamResponse:
        """The answer that nothing has gone wrong with."""
        query, service = request.query, request.match_info["service"]
        token = self._token(request)
        if isinstance(token, web.Response):
            return token
        if query.get("dc", "dc1") not in self.datacenters:
            return web.Response(status=500, text="No path to datacenter")
        try:
            index = int(query.get("index", "0"))
            wait = _seconds(query["wait"]) if "wait" in query else DEFAULT_WAIT
        except ValueError:
            return web.Response(status=400, text="Invalid wait time")
        if index > 0:
            await self._block(service, index, min(wait or DEFAULT_WAIT, MAX_WAIT))
            token = self._token(request)  # it may have expired meanwhile
            if isinstance(token, web.Response):
                return token
        tags = {tag.lower() for tag in query.getall("tag", [])}
        entries = [
            one.entry()
            for one in self.instances.values()
            if one.service["Service"] == service
            and ("passing" not in query or one.passing)
            and tags <= {tag.lower() for tag in one.service.get("Tags") or []}
        ]
        seen = entries if token.reads(service) else []
        response = web.Response(
            text=json.dumps(seen),
            content_type="application/json",
            zlib_executor_size=1
            << 30,  # aiohttp compresses what is longer in a thread, which outlives the test
        )
        response.headers.update(self.meta(service))
        if len(seen) < len(entries) and request.headers.get("X-Consul-Token"):
            # Only to who has a token: others are not to learn that there is something [health].
            response.headers["X-Consul-Results-Filtered-By-ACLs"] = "true"
        if self.compress:
            response.enable_compression(web.ContentCoding.gzip)
        return response

    def meta(self, service: str) -> dict[str, str]:
        """Of every answer from the servers [consistency]. A service that there is not has an index too."""
        return {
            "X-Consul-Index": str(self._indexes.get(service, min(10, self.index))),
            "X-Consul-KnownLeader": "true",
            "X-Consul-LastContact": "0",
            "X-Consul-Effective-Consistency": "leader",
        }

    async def _block(self, service: str, index: int, wait: float) -> None:
        """Until the service's index is above `index`, or for `wait` and up to a sixteenth of it [blocking]."""
        wait += self.jitter * wait / 16
        self.waits.append(wait)
        restored = self._restored
        self.blocked += 1
        self._notify()
        try:
            await self.until(
                lambda _: self._indexes.get(service, 0) > index or self._restored != restored, wait
            )
        except TimeoutError:
            pass
        finally:
            self.blocked -= 1
            self._notify()

    # The agent's own services and checks

    def _refuse_unknown(self, text: str) -> web.Response:
        return web.Response(status=500 if self.old_refusals else 404, text=text)

    def _denied(self, request: web.Request) -> web.Response | None:
        token = self._token(request)
        if isinstance(token, web.Response):
            return token
        if not token.write:
            return web.Response(status=403, text="Permission denied: token lacks permission 'service:write'")
        return None

    async def _register(self, request: web.Request) -> web.Response:
        """PUT /v1/agent/service/register [service]."""
        if denied := self._denied(request):
            return denied
        body = await request.json()
        if not body.get("Name"):
            return web.Response(status=400, text="Missing service name")
        identity = body.get("ID") or body["Name"]
        before = self.instances.get(identity)
        check = body.get("Check") or {}
        name = check.get("CheckID") or f"service:{identity}"
        statuses, ttls = {"serfHealth": "passing"}, {}
        if before is not None and "replace-existing-checks" not in request.query:
            statuses, ttls = before.statuses, before.ttls
        if check:
            statuses[name] = check.get("Status") or "critical"  # which is what checks begin with [check]
            ttls[name] = _seconds(check["TTL"])
        fields = {
            key: body[key]
            for key in ("Address", "Port", "Tags", "Meta", "Weights", "TaggedAddresses")
            if key in body
        }
        address, port = fields.pop("Address", ""), fields.pop("Port", 0)
        self.add(body["Name"], identity, address, port, **fields)
        instance = self.instances[identity]
        if "DeregisterCriticalServiceAfter" in check:
            instance.deregister = max(_seconds(check["DeregisterCriticalServiceAfter"]), LEAST_DEREGISTER)
        instance.statuses, instance.ttls = statuses, ttls
        self._arm(identity, name)
        return web.Response()

    async def _deregister(self, request: web.Request) -> web.Response:
        """PUT /v1/agent/service/deregister/:service_id [service]."""
        if denied := self._denied(request):
            return denied
        identity = request.match_info["id"]
        if identity not in self.instances:
            return self._refuse_unknown(
                f'Unknown service ID "{identity}". Ensure that the service ID is passed, not the service name.'
            )
        self.remove(identity)
        return web.Response()

    async def _pass(self, request: web.Request) -> web.Response:
        """PUT /v1/agent/check/pass/:check_id [check]."""
        return self._tell(request, "passing")

    async def _update(self, request: web.Request) -> web.Response:
        """PUT /v1/agent/check/update/:check_id [check]."""
        return self._tell(request, (await request.json())["Status"])

    def _tell(self, request: web.Request, status: str) -> web.Response:
        if denied := self._denied(request):
            return denied
        check = request.match_info["id"]
        for identity, instance in self.instances.items():
            if check in instance.ttls:
                if instance.statuses[check] != status:
                    instance.statuses[check] = status
                    self.change(instance.service["Service"])
                self._arm(identity, check)
                return web.Response()
        if self.old_refusals:
            return self._refuse_unknown(f'CheckID "{check}" does not have associated TTL')
        return self._refuse_unknown(
            f'Unknown check ID "{check}". Ensure that the check ID is passed, not the check name.'
        )

    def _arm(self, identity: str, check: str) -> None:
        """A TTL check turns critical when nothing is heard for its TTL [check]."""
        self._stop_timer(identity)
        instance = self.instances[identity]
        if check in instance.ttls:
            loop = asyncio.get_running_loop()
            self._timers[identity] = loop.call_later(instance.ttls[check], self._expire, identity, check)

    def _expire(self, identity: str, check: str) -> None:
        instance = self.instances[identity]
        instance.statuses[check] = "critical"
        self.change(instance.service["Service"])
        if instance.deregister:
            loop = asyncio.get_running_loop()
            self._timers[identity] = loop.call_later(instance.deregister, self.remove, identity)

    def _stop_timer(self, identity: str) -> None:
        timer = self._timers.pop(identity, None)
        if timer is not None:
            timer.cancel()


_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def _seconds(text: str) -> float:
    """What Go's time.ParseDuration makes of it. Raises ValueError."""
    if not re.fullmatch(rf"(?:{_DURATION.pattern})+", text):
        raise ValueError(text)
    return sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(text))
