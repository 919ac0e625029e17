"""Connections being opened, without a coroutine."""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.errno cimport EINPROGRESS, EIO, errno
from libc.stdint cimport uint32_t
from libc.string cimport memset
from posix.unistd cimport close

from sidecar.net.kernel cimport (
    AF_INET,
    AF_INET6,
    EPOLLOUT,
    IPPROTO_TCP,
    SO_ERROR,
    SOCK_CLOEXEC,
    SOCK_NONBLOCK,
    SOCK_STREAM,
    SOL_SOCKET,
    TCP_NODELAY,
    connect,
    getsockopt,
    htons,
    inet_pton,
    new_socket,
    setsockopt,
    sockaddr,
    sockaddr_in,
    sockaddr_in6,
    socklen_t,
)
from sidecar.net.reactor cimport Reactor, Watched, os_error
from sidecar.net.transport cimport SocketTransport, new_transport

__all__ = ["Connector", "open_connector"]


def open_connector(Reactor reactor, factory, str host, int port, told):
    """A `Connector` to an IP address and port; None for an address that only the resolver can read (an IPv6 zone).

    told(transport, protocol, error) is called later, once, unless the connector has been cancelled.
    """
    cdef sockaddr_in four
    cdef sockaddr_in6 six
    cdef bint is_four = ":" not in host
    cdef bytes text = host.encode("ascii")
    cdef Connector connector
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


cdef class Connector(Watched):
    """A connection being opened."""

    cdef object factory, told
    cdef int number  # of the error, 0 without one

    cdef int start(self, const sockaddr* address, socklen_t size, int family) except -1:
        cdef int yes = 1
        self.fd = new_socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
        if self.fd >= 0:
            self.reactor.open.add(self)
            setsockopt(self.fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes))
            if connect(self.fd, address, size) == 0:
                self.reactor.settle_later(self)
                return 0
            if errno == EINPROGRESS:  # also on the loopback
                self.watch(EPOLLOUT)
                return 0
        self.number = errno
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
            if self.number:
                error = os_error(self.number)
                if fd >= 0:
                    self.close()
            else:
                protocol = self.factory()
                self.fd = -1
                self.reactor.forget(self)
                transport = new_transport(self.reactor, fd, protocol)
                protocol.connection_made(transport)
                transport.update()
            told(transport, protocol, error)
        except Exception as mistake:
            self.reactor.report("a connection could not be opened", mistake)
            if self.fd >= 0:
                self.close()
            if transport is not None and transport.fd >= 0:
                transport.end(mistake)

    cdef failed(self, error):
        self.number = EIO
        self.reactor.settle_later(self)
