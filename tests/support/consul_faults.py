"""What may go wrong with a Consul agent's answers, for `ConsulAgent.script` and `ConsulAgent.always`."""

import asyncio

from aiohttp import web

from support.consul import Answer, ConsulAgent

__all__ = ["dribble", "drop_in_the_middle", "headers", "refuse", "say"]


def refuse(status: int, text: str) -> Answer:
    """A status with a text: Consul's errors are plain text, not JSON [structure]."""

    async def answer(_: ConsulAgent, __: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text=text)

    return answer


def say(body: bytes) -> Answer:
    """Any body, with the headers of an answer that is fine."""

    async def answer(agent: ConsulAgent, request: web.Request) -> web.StreamResponse:
        meta = agent.meta(request.match_info["service"])
        return web.Response(body=body, content_type="application/json", headers=meta)

    return answer


def headers(**changed: str | None) -> Answer:
    """The usual answer with other headers, `X_Consul_Index="0"` for one; None leaves one out."""

    async def answer(agent: ConsulAgent, request: web.Request) -> web.StreamResponse:
        response = await agent.health(request)
        for name, value in changed.items():
            response.headers.pop(name.replace("_", "-"), None)
            if value is not None:
                response.headers[name.replace("_", "-")] = value
        return response

    return answer


async def drop_in_the_middle(agent: ConsulAgent, request: web.Request) -> web.StreamResponse:
    """The connection is reset when half of the answer has been sent."""
    response = web.StreamResponse(headers=agent.meta(request.match_info["service"]))
    response.content_length = 1000
    await response.prepare(request)
    await response.write(b'[{"Node": ')
    assert request.transport is not None
    request.transport.abort()
    return response


async def dribble(agent: ConsulAgent, request: web.Request) -> web.StreamResponse:
    """An answer of which a byte comes now and then, and never the last one."""
    response = web.StreamResponse(headers=agent.meta(request.match_info["service"]))
    response.content_length = 100_000
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.01)
