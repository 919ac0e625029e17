"""What listens and connects in the compiled build: the pure twin, `network.py`, takes the event loop's own sockets."""

import socket

from sidecar.net.reactor cimport Reactor
from sidecar.net.transport cimport SocketTransport, new_transport

from sidecar.net.accept import Acceptor, Server
from sidecar.net.connect import open_connector
from sidecar.net.loop import ReactorLoop

__all__ = ["Network", "close_network", "new_event_loop", "open_network"]


def open_network(loop):
    """What has `create_server` and `create_connection`, as asyncio's loops spell them."""
    return Network(loop, loop.reactor if isinstance(loop, ReactorLoop) else Reactor(loop))


def new_event_loop():
    """The loop to run a data path on."""
    return ReactorLoop()


def close_network(network):
    """End what `open_network` gave."""
    if isinstance(network, Network):
        network.close()


class Network:
    """Servers and connections on a loop's reactor."""

    def __init__(self, loop, reactor):
        self._loop = loop
        self._reactor = reactor

    @property
    def pipes(self):
        """(in use, bound) of the pipes through which large bodies pass."""
        return self._reactor.pipes.use

    def close(self):
        """Close everything at once."""
        self._reactor.close()

    async def create_server(self, factory, host=None, port=None, *, sock=None, backlog=100):
        """Listen on a name or address and port, or on a socket that is bound; a `Server`. Raises OSError."""
        if sock is not None:
            return Server([self._listen(factory, sock, backlog)])
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        except socket.gaierror:  # a name, which may take its time
            found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        acceptors = []
        try:
            for family, kind, protocol, _, address in dict.fromkeys(found):
                bound = socket.socket(family, kind, protocol)
                try:
                    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    if family == socket.AF_INET6:
                        bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                    bound.bind(address)
                    acceptors.append(self._listen(factory, bound, backlog))
                except BaseException:
                    bound.close()
                    raise
        except BaseException:
            for acceptor in acceptors:
                acceptor.abort()
            raise
        return Server(acceptors)

    def _listen(self, factory, sock, backlog):
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # which accepted connections inherit
        sock.listen(backlog)
        return Acceptor(self._reactor, factory, sock)

    async def create_connection(self, factory, host=None, port=None, *, sock=None):
        """Connect to an IP address and port, or take over a connected socket; transport and protocol."""
        cdef SocketTransport transport
        if sock is None:
            sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
            try:
                sock.setblocking(False)
                await self._loop.sock_connect(sock, (host, port))
            except BaseException:
                sock.close()
                raise
        try:
            protocol = factory()
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException:
            sock.close()
            raise
        transport = new_transport(self._reactor, sock.detach(), protocol)
        try:
            protocol.connection_made(transport)
            transport.update()
        except BaseException:
            transport.abort()
            raise
        return transport, protocol

    def connect_to(self, factory, host, port, told):
        """Connect to an IP address and port without a coroutine; what can be cancelled.

        told(transport, protocol, error) is called later, once; not after `cancel`. None for addresses that only the
        resolver can read (an IPv6 zone): `create_connection` takes those.
        """
        return open_connector(self._reactor, factory, host, port, told)
