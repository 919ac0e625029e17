"""Listening sockets: what is accepted is read from at once, before it is watched."""

from libc.errno cimport EAGAIN, ECONNABORTED, EINTR, EPROTO, errno
from libc.stdint cimport uint32_t
from posix.unistd cimport close

from sidecar.net.kernel cimport EPOLLIN, SOCK_CLOEXEC, SOCK_NONBLOCK, accept4
from sidecar.net.reactor cimport Reactor, Watched, os_error
from sidecar.net.transport cimport SocketTransport, new_transport

__all__ = ["Acceptor", "Server"]

cdef enum:
    ACCEPTS = 64  # of one listener before the others have their turn

PAUSE = 0.1  # seconds without accepting when no descriptor is left
YOUNG = 0.005  # seconds in which an accepted connection that has not been answered enters the epoll set


cdef class Acceptor(Watched):
    """One listening socket."""

    cdef object factory, timer
    cdef list young
    cdef bint short  # of descriptors, as was said already
    cdef readonly object socket

    def __init__(self, Reactor reactor, factory, sock):
        self.reactor = reactor
        self.factory = factory
        self.young = []
        self.socket = sock
        self.fd = sock.fileno()
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
                self.short = False
                self.welcome(fd)
                continue
            number = errno
            if number in (EINTR, ECONNABORTED, EPROTO):
                continue
            if number != EAGAIN:
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
        transport = new_transport(self.reactor, fd, protocol)
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


class Server:
    """What `create_server` gives."""

    def __init__(self, acceptors):
        self._acceptors = acceptors
        self.sockets = tuple(acceptor.socket for acceptor in acceptors)

    def close(self):
        """Accept no more."""
        for acceptor in self._acceptors:
            acceptor.abort()
