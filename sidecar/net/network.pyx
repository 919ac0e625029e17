"""What listens and connects in the compiled build: the pure twin, `network.py`, takes the event loop's own sockets.

What is accepted is read from at once, before it is watched; what is opened to an address needs no coroutine.
"""

import socket

from cpython.bytes cimport PyBytes_AS_STRING
from libc.errno cimport (
    EAGAIN,
    ECONNABORTED,
    ECONNREFUSED,
    EINPROGRESS,
    EINTR,
    EIO,
    EMFILE,
    ENFILE,
    EPROTO,
    errno,
)
from libc.stdint cimport uint32_t
from libc.string cimport memcpy, memset
from posix.unistd cimport close

from sidecar.net.kernel cimport (
    AF_INET,
    AF_INET6,
    AF_UNIX,
    EPOLLIN,
    EPOLLOUT,
    IPPROTO_TCP,
    SOCK_CLOEXEC,
    SOCK_NONBLOCK,
    SOCK_STREAM,
    SOL_SOCKET,
    SO_ERROR,
    TCP_NODELAY,
    accept4,
    connect,
    getsockopt,
    htons,
    inet_pton,
    new_socket,
    setsockopt,
    sockaddr,
    sockaddr_in,
    sockaddr_in6,
    sockaddr_un,
    socklen_t,
)
from sidecar.net.reactor cimport Reactor, Watched, os_error
from sidecar.net.transport cimport SocketTransport, new_transport

from sidecar.net.loop import ReactorLoop
from sidecar.net.unix import MAX_PATH, address_of, is_unix

__all__ = ["Acceptor", "Connector", "Network", "Server", "close_network", "new_event_loop", "open_network"]

cdef enum:
    ACCEPTS = 64  # of one listener before the others have their turn

PAUSE = 0.1  # seconds without accepting when no descriptor is left
YOUNG = 0.005  # seconds in which an accepted connection that has not been answered enters the epoll set


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
        """(open, bound) of the pipes through which large bodies pass."""
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

    async def create_unix_server(self, factory, *, sock, backlog=100, cleanup_socket=False):
        """Listen on a unix socket that is bound; a `Server`. Its file is somebody else's."""
        return Server([self._listen(factory, sock, backlog)])

    def _listen(self, factory, sock, backlog):
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
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
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException:
            sock.close()
            raise
        transport = new_transport(self._reactor, sock.detach(), protocol, sock.family != socket.AF_UNIX)
        try:
            protocol.connection_made(transport)
            transport.update()
        except BaseException:
            transport.abort()
            raise
        return transport, protocol

    def connect_to(self, factory, host, port, told):
        """Connect to an IP address and port, or to `unix:PATH`, without a coroutine; what can be cancelled.

        told(transport, protocol, error) is called later, once; not after `cancel`. None for addresses that only the
        resolver can read (an IPv6 zone): `create_connection` takes those.
        """
        if is_unix(host):
            return _unix_connector(self._reactor, factory, host, told)
        return _connector(self._reactor, factory, host, port, told)


# Listening


class Server:
    """What `create_server` gives."""

    def __init__(self, acceptors):
        self._acceptors = acceptors
        self.sockets = tuple(acceptor.socket for acceptor in acceptors)

    def close(self):
        """Accept no more."""
        for acceptor in self._acceptors:
            acceptor.abort()


cdef class Acceptor(Watched):
    """One listening socket."""

    cdef object factory, timer
    cdef list young
    cdef bint short  # of descriptors, as was said already
    cdef bint tcp  # and no unix socket
    cdef readonly object socket

    def __init__(self, Reactor reactor, factory, sock):
        self.reactor = reactor
        self.factory = factory
        self.young = []
        self.socket = sock
        self.fd = sock.fileno()
        self.tcp = sock.family != socket.AF_UNIX
        reactor.open.add(self)
        self.watch(EPOLLIN)

    def abort(self):
        """Accept no more."""
        if self.fd >= 0:
            self.unwatch()
            self.fd = -1
            self.socket.close()
            self.reactor.forget(self)

    cdef ready(self, uint32_t events):
        cdef int fd, number, i
        for i in range(ACCEPTS):
            if self.fd < 0:  # a protocol that was just made has ended the listener
                return
            fd = accept4(self.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)
            if fd >= 0:
                self.welcome(fd)
                continue
            number = errno
            if number in (EINTR, ECONNABORTED, EPROTO):
                continue
            if number in (EMFILE, ENFILE) and self.reactor.pipes.idle_count:
                self.reactor.pipes.close_idle()
                continue
            if number == EAGAIN:
                self.short = False
            else:
                # No descriptor or memory is left, say. Who waits in the queue is served when somebody has gone;
                # asking on would be a busy loop.
                self.watch(0)
                self.reactor.loop.call_later(PAUSE, self._resume)
                if not self.short:
                    self.short = True
                    self.failed(os_error(number))
            return

    cdef welcome(self, int fd):
        cdef SocketTransport transport
        try:
            protocol = self.factory()
        except BaseException:
            close(fd)
            raise
        transport = new_transport(self.reactor, fd, protocol, self.tcp)
        transport.young = True
        try:
            protocol.connection_made(transport)
            if transport.fd >= 0 and transport.reading:
                self.note_young(transport)
                transport.read()
                if transport.young and not (transport.receiver is not None and transport.receiver.is_asked()):
                    transport.grow_up()
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            transport.failed(error)

    cdef int note_young(self, SocketTransport transport) except -1:
        if self.timer is None:
            self.timer = self.reactor.loop.call_later(YOUNG, self._grow_up)
        self.young.append(transport)
        return 0

    def _grow_up(self):
        """Watch all accepted connections, answered or not: somebody may hang up, or say more."""
        cdef SocketTransport transport
        cdef list young
        self.timer = None
        young, self.young = self.young, []
        for transport in young:
            if transport.fd >= 0 and transport.young:
                transport.grow_up()

    def _resume(self):
        if self.fd >= 0:
            self.watch(EPOLLIN)

    cdef failed(self, error):
        self.reactor.report("a connection could not be accepted", error)


# Connecting


cdef _connector(Reactor reactor, factory, str host, unsigned short port, told):
    cdef sockaddr_in four
    cdef sockaddr_in6 six
    cdef bint is_four = ":" not in host
    cdef bytes text
    cdef Connector connector
    if not host.isascii() or "\0" in host:
        return None
    text = host.encode("ascii")
    memset(&four, 0, sizeof(four))
    memset(&six, 0, sizeof(six))
    if inet_pton(
        AF_INET if is_four else AF_INET6,
        PyBytes_AS_STRING(text),
        <void*> &four.sin_addr if is_four else <void*> &six.sin6_addr,
    ) != 1:
        return None
    four.sin_family = AF_INET
    six.sin6_family = AF_INET6
    four.sin_port = six.sin6_port = htons(port)
    connector = Connector.__new__(Connector)
    connector.reactor = reactor
    connector.factory = factory
    connector.told = told
    if is_four:
        connector.start(<sockaddr*> &four, sizeof(four), AF_INET)
    else:
        connector.start(<sockaddr*> &six, sizeof(six), AF_INET6)
    return connector


cdef _unix_connector(Reactor reactor, factory, str host, told):
    cdef sockaddr_un address
    cdef Connector connector
    cdef bytes name
    found = address_of(host)
    name = found if isinstance(found, bytes) else found.encode()
    if len(name) > MAX_PATH:
        raise ValueError(f"{host}: longer than the {MAX_PATH} bytes of a unix socket's path")
    memset(&address, 0, sizeof(address))
    address.sun_family = AF_UNIX
    memcpy(address.sun_path, PyBytes_AS_STRING(name), len(name))
    connector = Connector.__new__(Connector)
    connector.reactor = reactor
    connector.factory = factory
    connector.told = told
    # An abstract name ends with its length, a path with a zero byte (unix(7)).
    connector.start(
        <sockaddr*> &address,
        sizeof(address) - sizeof(address.sun_path) + len(name) + (0 if name[:1] == b"\0" else 1),
        AF_UNIX,
    )
    return connector


cdef class Connector(Watched):
    """A connection being opened."""

    cdef object factory, told
    cdef int number  # of the error, 0 without one
    cdef bint tcp  # and no unix socket

    cdef int start(self, const sockaddr* address, socklen_t size, int family) except -1:
        cdef int yes = 1, number
        self.tcp = family != AF_UNIX
        self.fd = new_socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
        if self.fd < 0 and errno in (EMFILE, ENFILE) and self.reactor.pipes.idle_count:
            self.reactor.pipes.close_idle()
            self.fd = new_socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
        if self.fd < 0:
            number = errno
        else:
            self.reactor.open.add(self)
            if self.tcp:
                setsockopt(self.fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes))
            number = 0 if connect(self.fd, address, size) == 0 else errno
            if number == EAGAIN and not self.tcp:  # its queue is full, and nothing says when it is not
                number = ECONNREFUSED
            if number == EINPROGRESS:  # also on the loopback
                try:
                    self.watch(EPOLLOUT)
                    return 0
                except OSError as error:  # the kernel has no room for it in the set
                    number = error.errno
        self.number = number
        self.reactor.settle_later(self)
        return 0

    def cancel(self):
        """Nobody wants it any more."""
        self.told = None
        if self.fd >= 0:
            self.close()

    abort = cancel

    cdef int close(self) except -1:
        self.unwatch()
        close(self.fd)
        self.fd = -1
        self.reactor.forget(self)
        return 0

    cdef ready(self, uint32_t events):
        cdef socklen_t size = sizeof(int)
        self.unwatch()
        if getsockopt(self.fd, SOL_SOCKET, SO_ERROR, &self.number, &size) < 0:
            self.number = errno
        self.reactor.settle_later(self)

    cdef settle(self):
        """Tell what came of it."""
        cdef SocketTransport transport = None
        cdef int fd = self.fd
        protocol = error = None
        told, self.told = self.told, None
        if told is None:  # cancelled meanwhile
            return
        try:
            if not self.number:
                protocol = self.factory()
                self.fd = -1
                self.reactor.forget(self)
                transport = new_transport(self.reactor, fd, protocol, self.tcp)
                protocol.connection_made(transport)
                transport.update()
        except Exception as mistake:
            self.reactor.report("a connection could not be opened", mistake)
            if transport is not None and transport.fd >= 0:
                transport.end(mistake)
            transport = protocol = None
            self.number = EIO
        if self.number:
            error = os_error(self.number)
            if self.fd >= 0:
                self.close()
        try:
            told(transport, protocol, error)
        except Exception as mistake:
            self.reactor.report("a connection could not be opened", mistake)
            if transport is not None and transport.fd >= 0:
                transport.end(mistake)

    cdef failed(self, error):
        self.number = EIO
        self.reactor.settle_later(self)
