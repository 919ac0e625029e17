"""One TCP connection of the reactor's: asyncio's Transport, as far as the data path asks for it.

It behaves as asyncio documents transports: `connection_lost` comes later than the call that causes it, `pause_writing`
above 64 KiB of unsent bytes and `resume_writing` below 16 KiB, writes after the end are nothing. Two things it does
sooner: a write is sent at once, and a connection that was accepted is read from at once (most have their first request
with them), and enters the epoll set only if it outlives its first answer: until then it is `young`.

Large bodies do not pass through at all: `splice_into` lets the kernel move them from socket to socket by way of a pipe
(splice(2)), which costs less than half of reading and writing them, and the protocol hears only how many bytes went.
"""

import socket

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN, EINTR, EINVAL, ENOMEM, errno
from libc.stdint cimport uint32_t
from posix.unistd cimport close

from sidecar.net.kernel cimport (
    EPOLLERR,
    EPOLLET,
    EPOLLHUP,
    EPOLLIN,
    EPOLLOUT,
    EPOLLPRI,
    EPOLLRDHUP,
    MSG_NOSIGNAL,
    MSG_PEEK,
    SHUT_WR,
    SPLICE_F_MOVE,
    SPLICE_F_NONBLOCK,
    recv,
    send,
    shutdown,
    splice,
)
from sidecar.net.reactor cimport READ_SIZE, Reactor, Watched, os_error
from sidecar.net.receiver cimport Receiver

cdef extern from *:
    """
    #include <sys/socket.h>

    /* recv into an object of its own, which saves copying what is large. */
    static PyObject *receive(int fd, Py_ssize_t room, ssize_t *size)
    {
        PyObject *data = PyBytes_FromStringAndSize(NULL, room);
        int number;
        if (data == NULL)
            return NULL;
        *size = recv(fd, PyBytes_AS_STRING(data), room, 0);
        number = errno;
        if (_PyBytes_Resize(&data, *size > 0 ? *size : 0) < 0)
            return NULL;
        errno = number;
        return data;
    }
    """
    object receive(int fd, Py_ssize_t room, ssize_t* size)

__all__ = ["SocketTransport"]

cdef enum:
    LARGE = 8192  # after a read of this size the next one goes straight into an object of its own
    SPLICE_SIZE = 262144  # bytes of one splice: what a pipe holds
    HIGH_WATER = 65536  # asyncio's limits
    LOW_WATER = 16384
    # What is waited for beside reading and writing where epoll tells of edges. Of a socket that it tells of whenever
    # something is there, it looks at each turn anew, only to find that all has been read: some 0.1 us of each read.
    EDGES = EPOLLET | EPOLLRDHUP | EPOLLPRI
    # Something may be there behind a read that did not fill its buffer: an end, an error, and urgent data, before
    # which a read stops (tcp(7)).
    BEHIND = EPOLLRDHUP | EPOLLPRI | EPOLLHUP | EPOLLERR


cdef SocketTransport new_transport(Reactor reactor, int fd, protocol, bint edge):
    """The transport of a connected socket, which reads; `update` has it watched.

    edge: for TCP, of which a read that does not fill its buffer has left nothing, but what is `BEHIND` it.
    """
    cdef SocketTransport transport = SocketTransport.__new__(SocketTransport)
    transport.reactor = reactor
    transport.fd = fd
    transport.reading = True
    transport.edge = edge
    transport.set_protocol(protocol)
    reactor.open.add(transport)
    return transport


cdef class SocketTransport(Watched):
    """One TCP connection: asyncio's Transport, as far as the data path asks for it."""

    # Reading

    cdef ready(self, uint32_t events):
        if events & (EPOLLOUT | EPOLLHUP | EPOLLERR) and self.buffered:
            self.flush()
        if self.fd >= 0 and self.reading and events & (EPOLLIN | EPOLLHUP | EPOLLERR):
            self.more = (events & BEHIND) != 0
            if self.splice_to is None:
                self.read()
            else:
                self.splice_on()
            if self.more and self.edge and self.reading and self.fd >= 0:
                self.rewatch()

    cdef read(self):
        cdef bytes data = None
        cdef ssize_t size
        cdef int number
        if self.large:
            data = receive(self.fd, READ_SIZE, &size)
        else:
            size = recv(self.fd, self.reactor.buffer, READ_SIZE, 0)
        number = errno
        if size > 0:
            self.large = size >= LARGE
            if size == READ_SIZE:
                self.more = True
            self.deliver(PyBytes_FromStringAndSize(self.reactor.buffer, size) if data is None else data)
        elif size == 0:
            self.read_ended = True
            self.reading = False
            if self.protocol.eof_received():
                self.update()
            else:
                self.close()
        elif number == EINTR:
            self.more = True
        elif number != EAGAIN:
            self.end(os_error(number))
        elif self.young:  # it was accepted without a request
            self.young = False
            self.update()

    def splice_into(self, target, long long size):
        """Let the next `size` bytes go to the transport `target` without being read here.

        The protocol's `spliced` is told how many have gone, each time that some have. It ends by itself with the
        last of them, with either connection, and where the kernel cannot do it: then `data_received` has the rest.
        """
        if type(target) is SocketTransport and not self.read_ended and not self.closing:
            self.splice_to = target
            self.splice_left = size

    def has_more(self):
        """Whether something to read has come already."""
        cdef char byte
        return self.fd >= 0 and recv(self.fd, &byte, 1, MSG_PEEK) > 0

    cdef splice_on(self):
        cdef SocketTransport target = self.splice_to
        cdef ssize_t size = 0
        cdef int number = 0
        if target.buffered and not target.closing:
            target.press()  # it goes behind what is there, which waits for its reader
            if not self.reading or self.fd < 0:
                return
            # Nobody minds that it is full.
        elif not target.closing and not target.eof_wanted and self.reactor.pipes.take(target.pipe):
            size = SPLICE_SIZE if self.splice_left > SPLICE_SIZE else self.splice_left
            size = splice(self.fd, NULL, target.pipe[1], NULL, size, SPLICE_F_MOVE | SPLICE_F_NONBLOCK)
            number = errno
            if size <= 0:
                self.reactor.pipes.give_back(target.pipe, True)
        if size <= 0:
            self.splice_to = None
            if size < 0 and number not in (EAGAIN, EINTR, EINVAL, ENOMEM):
                self.end(os_error(number))  # told once: reading would see an end
            else:
                self.read()  # the end, or nothing that can be spliced: urgent data say, before which it stops
            return
        self.more = True  # a pipe may be full long before its size in bytes
        self.splice_left -= size
        if not self.splice_left:
            self.splice_to = None
        if target.young:
            self.reactor.settle_later(target)
        target.buffered = target.piped = size
        target.send_piped()
        if target.buffered:
            target.update()
            target.press()
        self.protocol.spliced(size)

    cdef deliver(self, bytes data):
        cdef Receiver receiver = self.receiver  # held: it may hand over to another one while it is at work
        if receiver is not None:
            receiver.data_received(data)
        else:
            protocol = self.protocol
            protocol.data_received(data)

    def pause_reading(self):
        """Deliver nothing until `resume_reading`."""
        self.reading = False
        self.update()

    def resume_reading(self):
        """Deliver again."""
        self.reading = not self.read_ended and not self.closing
        self.young = False
        self.update()

    def is_reading(self):
        """Whether data would be delivered."""
        return self.reading

    cdef int update(self) except -1:
        """Have epoll tell of what is waited for now."""
        cdef uint32_t interest = (EPOLLIN if self.reading else 0) | (EPOLLOUT if self.buffered else 0)
        if self.fd >= 0 and not (self.young and not self.buffered):
            self.young = False
            self.watch(interest | EDGES if interest and self.edge else interest)
        return 0

    cdef grow_up(self):
        """From now on it is watched."""
        self.young = False
        try:
            self.update()
        except OSError as error:  # the kernel has no room for it in the set
            self.end(error)

    # Writing

    cpdef write(self, bytes data):
        """Send, at once as far as the socket takes it. After the end it is nothing."""
        cdef ssize_t size = len(data), sent = 0
        if self.closing or self.eof_wanted or not size:
            return
        if self.young:
            self.reactor.settle_later(self)
        if not self.buffered:
            sent = send(self.fd, PyBytes_AS_STRING(data), size, MSG_NOSIGNAL)
            if sent == size:
                return
            if sent < 0:
                if errno not in (EAGAIN, EINTR):
                    self.end(os_error(errno))
                    return
                sent = 0
            self.offset = sent
        if self.backlog is None:
            self.backlog = []
        self.backlog.append(data)
        self.buffered += size - sent
        self.update()
        if self.buffered > HIGH_WATER:
            self.press()

    cdef press(self):
        """Its reader is slow: whoever writes is to stop."""
        if not self.full:
            self.full = True
            self.protocol.pause_writing()

    cdef send_piped(self):
        cdef ssize_t sent
        while self.piped:
            sent = splice(self.pipe[0], NULL, self.fd, NULL, self.piped, SPLICE_F_MOVE | SPLICE_F_NONBLOCK)
            if sent < 0:
                if errno not in (EAGAIN, EINTR):
                    self.end(os_error(errno))
                return
            self.piped -= sent
            self.buffered -= sent
        self.reactor.pipes.give_back(self.pipe, True)

    cdef flush(self):
        cdef bytes data
        cdef ssize_t size, sent
        if self.piped:
            self.send_piped()
            if self.fd < 0:
                return
        while self.buffered and not self.piped:
            if len(self.backlog) > 1:
                self.backlog = [b"".join(self.backlog)]
            data = self.backlog[0]
            size = PyBytes_GET_SIZE(data) - self.offset
            sent = send(self.fd, PyBytes_AS_STRING(data) + self.offset, size, MSG_NOSIGNAL)
            if sent < 0:
                if errno not in (EAGAIN, EINTR):
                    self.end(os_error(errno))
                    return
                break
            self.buffered -= sent
            if sent < size:
                self.offset += sent
                break
            self.offset = 0
            del self.backlog[0]
        if not self.buffered:
            self.backlog = None
            if self.closing:
                self.end(None)
                return
            if self.eof_wanted:
                shutdown(self.fd, SHUT_WR)
        self.update()
        if self.full and self.buffered <= LOW_WATER:
            self.full = False
            self.protocol.resume_writing()

    def write_eof(self):
        """Half-close, once everything is sent."""
        if not self.closing and not self.eof_wanted:
            self.eof_wanted = True
            if not self.buffered:
                shutdown(self.fd, SHUT_WR)

    def can_write_eof(self):
        """TCP can."""
        return True

    def get_write_buffer_size(self):
        """Bytes that the socket has not taken yet."""
        return self.buffered

    # Ending

    def close(self):
        """Close once everything is sent."""
        if not self.closing:
            self.closing = True
            self.reading = False
            if self.buffered:
                self.update()
            else:
                self.end(None)

    def abort(self):
        """Close at once."""
        if self.fd >= 0:
            self.end(None)

    def is_closing(self):
        """Whether `close` or `abort` was called, or the connection has ended by itself."""
        return self.closing

    cdef end(self, error):
        """The end of the socket. Its protocol is told when whoever is at work now has finished."""
        self.closing = True
        self.reading = False
        self.young = False
        if self.piped:
            self.reactor.pipes.give_back(self.pipe, False)
            self.piped = 0
        self.splice_to = None
        self.buffered = 0
        self.backlog = None
        self.error = error
        self.unwatch()
        if self.socket is not None:
            self.socket.detach()
            self.socket = None
        close(self.fd)
        self.fd = -1
        self.reactor.forget(self)
        self.reactor.settle_later(self)

    cdef settle(self):
        if self.fd >= 0:
            if self.young:  # it was answered, and lives
                self.grow_up()
        elif self.protocol is not None:
            protocol, self.protocol, self.receiver = self.protocol, None, None
            protocol.connection_lost(self.error)

    cdef failed(self, error):
        """The protocol raised: a mistake of this program, which ends this connection and no other."""
        self.reactor.report("its callback failed", error)
        if self.fd >= 0:
            self.end(error)

    # Everything else

    def set_protocol(self, protocol):
        """Hand over to another protocol."""
        self.protocol = protocol
        self.receiver = protocol if isinstance(protocol, Receiver) else None

    def get_protocol(self):
        """The protocol."""
        return self.protocol

    def get_extra_info(self, name, default=None):
        """`socket`, `peername`, `sockname`; `default` once the socket is closed."""
        if self.fd < 0:
            return default
        if self.socket is None:
            self.socket = socket.socket(fileno=self.fd)
        if name == "socket":
            return self.socket
        try:
            if name == "peername":
                return self.socket.getpeername()
            if name == "sockname":
                return self.socket.getsockname()
        except OSError:  # it has been reset meanwhile
            pass
        return default
