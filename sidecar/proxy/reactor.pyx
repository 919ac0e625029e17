"""Sockets of the compiled build's own: epoll, recv and send, with nothing in between.

The sockets of the data path are in one epoll set, and what is ready is served from C to C. What a loop's transport
costs on top of its system calls (a handle, a context, the GIL taken and given back, a queue flushed at the end of the
turn) is not paid at all. `ReactorLoop` is asyncio's own loop waiting in this set: everything else that it watches is one
more descriptor here. On any other loop a `Reactor` is a descriptor of the loop's, which costs one more epoll_wait a turn.

    Reactor ── ready ──► Acceptor ── accept4 ──► SocketTransport ── recv ──► protocol.data_received
                   └───► SocketTransport ◄── send ── transport.write

Large bodies do not pass through at all: `splice_into` lets the kernel move them from socket to socket by way of a pipe
(splice(2)), which costs less than half of reading and writing them, and the protocol hears only how many bytes went.

`SocketTransport` behaves as asyncio documents transports: `connection_lost` comes later than the call that causes it,
`pause_writing` above 64 KiB of unsent bytes and `resume_writing` below 16 KiB, writes after the end are nothing. Two
things it does sooner: a write is sent at once, and a connection that was accepted is read from at once (most have
their first request with them), and enters the epoll set only if it outlives its first answer.
"""

import asyncio
import os
import selectors
import socket

from cpython.exc cimport PyErr_CheckSignals
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN, ECONNABORTED, EINTR, EINVAL, ENOMEM, EPROTO, errno
from libc.math cimport ceil
from libc.stdint cimport uint32_t
from libc.stdlib cimport free, malloc
from posix.unistd cimport close

from sidecar.proxy.downstream cimport BUSY, DownstreamConnection
from sidecar.proxy.session cimport EndpointSide
from sidecar.proxy.tcp cimport TcpSession
from sidecar.proxy.upstream cimport UpstreamConnection

from sidecar.proxy.downstream import DownstreamConnection
from sidecar.proxy.session import EndpointSide
from sidecar.proxy.tcp import TcpSession
from sidecar.proxy.upstream import UpstreamConnection

cdef extern from "<sys/epoll.h>":
    cdef enum:
        EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP, EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL, EPOLL_CLOEXEC
    ctypedef union epoll_data_t:
        void* ptr
    cdef struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int epoll, int operation, int fd, epoll_event* event)
    int epoll_wait(int epoll, epoll_event* events, int size, int timeout) nogil

cdef extern from "<time.h>":
    ctypedef long time_t
    cdef struct timespec:
        time_t tv_sec
        long tv_nsec
    cdef enum:
        CLOCK_MONOTONIC
    int clock_gettime(int clock, timespec* now)

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <fcntl.h>
    #include <sys/socket.h>
    #include <unistd.h>
    """
    cdef enum:
        SOCK_NONBLOCK, SOCK_CLOEXEC, MSG_NOSIGNAL, MSG_PEEK, SHUT_WR
        SPLICE_F_MOVE, SPLICE_F_NONBLOCK, F_SETPIPE_SZ, O_NONBLOCK, O_CLOEXEC
    ssize_t recv(int fd, void* buffer, size_t size, int flags)
    ssize_t splice(int source, void* from_, int target, void* to, size_t size, unsigned int flags)
    int pipe2(int* ends, int flags)
    int fcntl(int fd, int command, ...)
    ssize_t send(int fd, const void* buffer, size_t size, int flags)
    int accept4(int fd, void* address, void* size, int flags)
    int shutdown(int fd, int how)

__all__ = ["Reactor", "ReactorLoop", "close_network", "new_event_loop", "open_network"]

cdef enum:
    EVENTS = 256  # taken at once; the loop's other work is not kept waiting for more
    ACCEPTS = 64  # of one listener before the others have their turn
    READ_SIZE = 65536  # bytes of one read: what a second-level cache holds while it is read, copied and sent
    PIPE_SIZE = 262144  # bytes of one splice
    IDLE_PIPES = 32
    MAX_PIPES = 256  # beyond which large bodies are read and written as small ones are
    HIGH_WATER = 65536  # asyncio's limits
    LOW_WATER = 16384
    ANY = 0
    DOWNSTREAM = 1
    UPSTREAM = 2
    SESSION = 3
    ENDPOINT_SIDE = 4

MAX_WAIT = 3600.0  # seconds in one epoll_wait, which counts milliseconds in an int
ACCEPT_PAUSE = 0.1  # seconds without accepting when no descriptor is left
YOUNG = 0.005  # seconds in which an accepted connection that has not been answered enters the epoll set


def open_network(loop):
    """What has `create_server` and `create_connection`, as asyncio's loops spell them."""
    return loop.reactor if isinstance(loop, ReactorLoop) else Reactor(loop)


def new_event_loop():
    """The loop to run a data path on."""
    return ReactorLoop()


def close_network(network):
    """End what `open_network` gave; a loop is its owner's to close."""
    if isinstance(network, Reactor):
        network.close()


cdef OSError _os_error(int number):
    return OSError(number, os.strerror(number))


cdef class Reactor:
    """The sockets of one process's data path, on one event loop."""

    def __cinit__(self, loop, others=None):
        """others: the selector of a loop that waits here. None: the loop watches this."""
        self._epoll = -1
        self._loop = loop
        self._open = set()
        self._ended = []
        self._deaf = []
        self._young = []
        self._buffer = <char*> malloc(READ_SIZE)
        if self._buffer == NULL:
            raise MemoryError
        self._epoll = epoll_create1(EPOLL_CLOEXEC)
        if self._epoll < 0:
            raise _os_error(errno)
        if others is None:
            loop.add_reader(self._epoll, self._dispatch)
        else:
            self._others = Others.__new__(Others)
            self._others._reactor = self
            self._others._fd = others.fileno()
            self._others._watch(EPOLLIN)

    def __dealloc__(self):
        free(self._buffer)
        self._close_idle_pipes()
        if self._epoll >= 0:
            close(self._epoll)

    def close(self):
        """Close everything at once."""
        cdef bint inside = self._dispatching
        if self._epoll < 0:
            return
        self._dispatching = True
        try:
            for watched in tuple(self._open):
                watched.abort()
        finally:
            self._dispatching = inside
        if not inside:
            self._settle_all()
        self._close_idle_pipes()
        if self._young_timer is not None:
            self._young_timer.cancel()
            self._young_timer = None
            self._young = []
        if self._others is None:
            self._loop.remove_reader(self._epoll)
            self._close_set()

    def _close_set(self):
        if self._epoll >= 0:
            close(self._epoll)
            self._epoll = -1

    cdef void _close_idle_pipes(self) noexcept:
        while self._idle_pipes:
            self._idle_pipes -= 1
            close(self._pipes[2 * self._idle_pipes])
            close(self._pipes[2 * self._idle_pipes + 1])

    # As asyncio's loops have them

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
        return Acceptor(self, factory, sock)

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
        transport = _transport(self, sock.detach(), protocol)
        try:
            protocol.connection_made(transport)
            transport._update()
        except BaseException:
            transport.abort()
            raise
        return transport, protocol

    # Serving

    def _dispatch(self):
        """The loop's callback: some sockets are ready."""
        self._wait(0)

    cdef _wait(self, int milliseconds):
        """Wait for something to be ready, for ever when negative, and serve it."""
        cdef epoll_event events[EVENTS]
        cdef Watched watched
        cdef int i, count
        if milliseconds:
            PyErr_CheckSignals()  # those that came while no Python code ran do not interrupt the wait
            with nogil:
                count = epoll_wait(self._epoll, events, EVENTS, milliseconds)
        else:
            count = epoll_wait(self._epoll, events, EVENTS, 0)
        if count < 0:
            if errno != EINTR:
                raise _os_error(errno)
            PyErr_CheckSignals()
        self._dispatching = True
        try:
            for i in range(count):
                # Alive: what ends meanwhile stays in `_ended` or `_deaf` until all these have been looked at.
                watched = <Watched> events[i].data.ptr
                if watched._fd >= 0:
                    try:
                        watched.ready(events[i].events)
                    except (KeyboardInterrupt, SystemExit):
                        raise
                    except BaseException as error:
                        watched.failed(error)
        finally:
            self._dispatching = False
            self._settle_all()

    def _settle(self):
        self._settle_all()

    cdef bint _settle_all(self) except -1:
        """Tell the protocols of what has ended, and watch the accepted connections that go on."""
        cdef SocketTransport transport
        cdef list ended, young
        while self._ended:
            ended, self._ended = self._ended, []
            for transport in ended:
                try:
                    protocol, transport._protocol = transport._protocol, None
                    protocol.connection_lost(transport._error)
                except (KeyboardInterrupt, SystemExit):
                    self._ended += ended[ended.index(transport) + 1 :]
                    raise
                except BaseException as error:
                    self._report("connection_lost() failed", error)
        if self._deaf and not self._dispatching:
            self._deaf = []
        if self._young:
            young, self._young = self._young, []
            for transport in young:
                if transport._fd < 0 or not transport._young:
                    continue
                if transport._written:
                    transport._grow_up()
                else:
                    self._young.append(transport)
        return True

    cdef int _note_ended(self, SocketTransport transport) except -1:
        cdef bint first = not self._ended
        self._open.discard(transport)
        self._ended.append(transport)
        if first and not self._dispatching:
            self._loop.call_soon(self._settle)
        return 0

    cdef int _note_young(self, SocketTransport transport) except -1:
        if self._young_timer is None:
            self._young_timer = self._loop.call_later(YOUNG, self._grow_up)
        transport._young = True
        self._young.append(transport)
        return 0

    def _grow_up(self):
        """Watch all accepted connections, answered or not: somebody may hang up, or say more."""
        cdef SocketTransport transport
        cdef list young
        self._young_timer = None
        young, self._young = self._young, []
        for transport in young:
            if transport._fd >= 0 and transport._young:
                transport._grow_up()

    cdef bint _take_pipe(self, int* ends) noexcept:
        """An empty pipe, for as long as something is in it; False when there is none to be had."""
        if self._idle_pipes:
            self._idle_pipes -= 1
            ends[0] = self._pipes[2 * self._idle_pipes]
            ends[1] = self._pipes[2 * self._idle_pipes + 1]
        elif self._used_pipes >= MAX_PIPES or pipe2(ends, O_NONBLOCK | O_CLOEXEC) < 0:
            return False
        else:
            fcntl(ends[1], F_SETPIPE_SZ, <int> PIPE_SIZE)  # refused above a user's share: then it holds less
        self._used_pipes += 1
        return True

    cdef void _give_pipe(self, int* ends, bint clean) noexcept:
        self._used_pipes -= 1
        if clean and self._idle_pipes < IDLE_PIPES:
            self._pipes[2 * self._idle_pipes] = ends[0]
            self._pipes[2 * self._idle_pipes + 1] = ends[1]
            self._idle_pipes += 1
        else:
            close(ends[0])
            close(ends[1])

    def _report(self, message, error):
        self._loop.call_exception_handler({"message": f"a connection's protocol: {message}", "exception": error})


cdef class Watched:
    """A descriptor in the epoll set. `_fd` is -1 once it is closed, `_interest` 0 while it is not in the set."""

    def __cinit__(self):
        self._fd = -1

    cdef ready(self, uint32_t events):
        """Something that was waited for has come."""
        raise NotImplementedError

    cdef failed(self, error):
        """`ready` raised."""
        raise NotImplementedError

    cdef int _watch(self, uint32_t interest) except -1:
        """Wait for `interest` from now on. Out of the set when that is nothing: it would go on telling of errors."""
        cdef epoll_event event
        cdef int operation
        if interest == self._interest:
            return 0
        if not interest:
            operation = EPOLL_CTL_DEL
        elif self._interest:
            operation = EPOLL_CTL_MOD
        else:
            operation = EPOLL_CTL_ADD
        event.events = interest
        event.data.ptr = <void*> self
        if epoll_ctl(self._reactor._epoll, operation, self._fd, &event) < 0:
            raise _os_error(errno)
        self._interest = interest
        return 0

    cdef void _unwatch(self) noexcept:
        """Out of the set. Closing is not enough: a process that was just forked may have the socket still."""
        if self._interest:
            epoll_ctl(self._reactor._epoll, EPOLL_CTL_DEL, self._fd, NULL)
            self._interest = 0


cdef class Others(Watched):
    """What the loop watches beside the data path: its own selector."""

    cdef ready(self, uint32_t events):
        self._are_ready = True

    cdef failed(self, error):
        raise error


class ReactorLoop(asyncio.SelectorEventLoop):
    """asyncio's loop, waiting in the reactor's set.

    A turn in which only the data path had something to do never gets to asyncio's own code. The two attributes of
    BaseEventLoop that tell whether it would have work, `_ready` and `_scheduled`, are as old as asyncio.
    """

    def __init__(self):
        super().__init__(_NeverWaiting())
        self.reactor = Reactor(self, self._selector)

    def _run_once(self):
        """Serve the data path until there is something for asyncio; then let it have one turn of its own."""
        cdef Reactor reactor = self.reactor
        cdef Others others = reactor._others
        cdef list scheduled = self._scheduled
        cdef double due, left
        cdef timespec now
        cdef bint served = False
        ready = self._ready
        while not ready and not self._stopping and not others._are_ready:
            if not scheduled:
                reactor._wait(-1)
            else:
                due = scheduled[0]._when
                clock_gettime(CLOCK_MONOTONIC, &now)  # as time.monotonic does
                left = due - (now.tv_sec + now.tv_nsec * 1e-9)
                if left <= 0.0:
                    break
                reactor._wait(<int> ceil(min(left, MAX_WAIT) * 1000.0))
            served = True
        if not served:
            reactor._wait(0)  # asyncio may have something to do in every turn, and the data path is to go on
        others._are_ready = False
        super()._run_once()

    def close(self):
        """Close the loop, and the set that it waits in."""
        if not self.is_running() and not self.is_closed():
            self.reactor.close()
            self.reactor._close_set()
        super().close()

    async def shutdown_default_executor(self, timeout=None):
        """Not waiting for a look-up that no name server answers: its thread ends with the process."""
        executor, self._default_executor = self._default_executor, None
        self._executor_shutdown_called = True
        if executor is not None:
            executor.shutdown(wait=False, cancel_futures=True)


class _NeverWaiting(selectors.EpollSelector):
    """Waiting is the reactor's."""

    def select(self, timeout=None):
        return super().select(0)


cdef class Acceptor(Watched):
    """A listening socket."""

    cdef object _factory
    cdef bint _short
    cdef readonly object socket

    def __init__(self, Reactor reactor, factory, sock):
        self._reactor = reactor
        self._factory = factory
        self.socket = sock
        self._fd = sock.fileno()
        reactor._open.add(self)
        self._watch(EPOLLIN)

    def abort(self):
        """Accept no more."""
        if self._fd >= 0:
            self._unwatch()
            self._fd = -1
            self.socket.close()
            self._reactor._open.discard(self)
            if self._reactor._dispatching:
                self._reactor._deaf.append(self)

    cdef ready(self, uint32_t events):
        cdef int fd, number, i
        for i in range(ACCEPTS):
            if self._fd < 0:  # a protocol that was just made has ended the listener
                return
            fd = accept4(self._fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)
            if fd >= 0:
                self._short = False
                self._welcome(fd)
                continue
            number = errno
            if number in (EINTR, ECONNABORTED, EPROTO):
                continue
            if number != EAGAIN:
                # No descriptor or memory is left, say. Who waits in the queue is served when somebody has gone;
                # asking on would be a busy loop.
                self._watch(0)
                self._reactor._loop.call_later(ACCEPT_PAUSE, self._resume)
                if not self._short:
                    self._short = True
                    self.failed(_os_error(number))
            return

    cdef _welcome(self, int fd):
        cdef SocketTransport transport
        try:
            protocol = self._factory()
        except BaseException:
            close(fd)
            raise
        transport = _transport(self._reactor, fd, protocol)
        try:
            protocol.connection_made(transport)
            if transport._fd >= 0 and transport._reading:
                self._reactor._note_young(transport)
                transport._read()
                if transport._young and not transport._is_asked():
                    transport._grow_up()
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            transport.failed(error)

    def _resume(self):
        if self._fd >= 0:
            self._watch(EPOLLIN)

    cdef failed(self, error):
        self._reactor._report("a connection could not be accepted", error)


class Server:
    """What `create_server` gives."""

    def __init__(self, acceptors):
        self._acceptors = acceptors
        self.sockets = tuple(acceptor.socket for acceptor in acceptors)

    def close(self):
        """Accept no more."""
        for acceptor in self._acceptors:
            acceptor.abort()


cdef SocketTransport _transport(Reactor reactor, int fd, protocol):
    cdef SocketTransport transport = SocketTransport.__new__(SocketTransport)
    transport._reactor = reactor
    transport._fd = fd
    transport._reading = True
    transport.set_protocol(protocol)
    reactor._open.add(transport)
    return transport


cdef class SocketTransport(Watched):
    """One TCP connection: asyncio's Transport, as far as the data path asks for it."""

    # Reading

    cdef ready(self, uint32_t events):
        if events & (EPOLLOUT | EPOLLHUP | EPOLLERR) and self._buffered:
            self._flush()
        if self._fd >= 0 and self._reading and events & (EPOLLIN | EPOLLHUP | EPOLLERR):
            if self._splice_to is None:
                self._read()
            else:
                self._splice()

    cdef _read(self):
        cdef ssize_t size = recv(self._fd, self._reactor._buffer, READ_SIZE, 0)
        cdef int number = errno
        if size > 0:
            self._deliver(PyBytes_FromStringAndSize(self._reactor._buffer, size))
        elif size == 0:
            self._read_ended = True
            self._reading = False
            if self._protocol.eof_received():
                self._update()
            else:
                self.close()
        elif number not in (EAGAIN, EINTR):
            self._end(_os_error(number))
        elif self._young:  # it was accepted without a request
            self._young = False
            self._update()

    def splice_into(self, target, long long size):
        """Let the next `size` bytes go to the transport `target` without being read here.

        The protocol's `spliced` is told how many have gone, each time that some have. It ends by itself with the
        last of them, with either connection, and where the kernel cannot do it: then `data_received` has the rest.
        """
        if type(target) is SocketTransport and not self._read_ended and not self._closing:
            self._splice_to = target
            self._splice_left = size

    def has_more(self):
        """Whether something to read has come already."""
        cdef char byte
        return self._fd >= 0 and recv(self._fd, &byte, 1, MSG_PEEK) > 0

    cdef _splice(self):
        cdef SocketTransport target = self._splice_to
        cdef ssize_t size = 0
        cdef int number = 0
        if target._buffered and not target._closing:
            target._press()  # it goes behind what is there, which waits for its reader
            if not self._reading or self._fd < 0:
                return
            # Nobody minds that it is full.
        elif not target._closing and not target._eof_wanted and self._reactor._take_pipe(target._pipe):
            size = PIPE_SIZE if self._splice_left > PIPE_SIZE else self._splice_left
            size = splice(self._fd, NULL, target._pipe[1], NULL, size, SPLICE_F_MOVE | SPLICE_F_NONBLOCK)
            number = errno
            if size <= 0:
                self._reactor._give_pipe(target._pipe, True)
        if size <= 0:
            self._splice_to = None
            if size < 0 and number not in (EAGAIN, EINTR, EINVAL, ENOMEM):
                self._end(_os_error(number))  # told once: reading would see an end
            else:
                self._read()  # the end, or nothing that can be spliced: urgent data say, before which it stops
            return
        self._splice_left -= size
        if not self._splice_left:
            self._splice_to = None
        target._written = True
        target._buffered = target._piped = size
        target._send_piped()
        if target._buffered:
            target._update()
            target._press()
        self._protocol.spliced(size)

    cdef _deliver(self, bytes data):
        if self._kind == DOWNSTREAM:
            (<DownstreamConnection> self._protocol).data_received(data)
        elif self._kind == UPSTREAM:
            (<UpstreamConnection> self._protocol).data_received(data)
        elif self._kind == SESSION:
            (<TcpSession> self._protocol).data_received(data)
        elif self._kind == ENDPOINT_SIDE:
            (<EndpointSide> self._protocol).data_received(data)
        else:
            self._protocol.data_received(data)

    def pause_reading(self):
        """Deliver nothing until `resume_reading`."""
        self._reading = False
        self._update()

    def resume_reading(self):
        """Deliver again."""
        self._reading = not self._read_ended and not self._closing
        self._young = False
        self._update()

    def is_reading(self):
        """Whether data would be delivered."""
        return self._reading

    cdef int _update(self) except -1:
        """Have epoll tell of what is waited for now."""
        cdef uint32_t interest = (EPOLLIN if self._reading else 0) | (EPOLLOUT if self._buffered else 0)
        if self._fd >= 0 and not (self._young and not self._buffered):
            self._young = False
            self._watch(interest)
        return 0

    cdef bint _is_asked(self) except -1:
        """Whether nothing is expected of the other side before it has been written to: its request is whole."""
        cdef DownstreamConnection client
        if self._kind != DOWNSTREAM:
            return False
        client = self._protocol
        return client.state == BUSY and client._reader is None

    cdef _grow_up(self):
        """From now on it is watched."""
        self._young = False
        try:
            self._update()
        except OSError as error:  # the kernel has no room for it in the set
            self._end(error)

    # Writing

    cpdef write(self, bytes data):
        """Send, at once as far as the socket takes it. After the end it is nothing."""
        cdef ssize_t size = len(data), sent = 0
        if self._closing or self._eof_wanted or not size:
            return
        self._written = True
        if not self._buffered:
            sent = send(self._fd, PyBytes_AS_STRING(data), size, MSG_NOSIGNAL)
            if sent == size:
                return
            if sent < 0:
                if errno not in (EAGAIN, EINTR):
                    self._end(_os_error(errno))
                    return
                sent = 0
            self._offset = sent
        if self._backlog is None:
            self._backlog = []
        self._backlog.append(data)
        self._buffered += size - sent
        self._update()
        if self._buffered > HIGH_WATER:
            self._press()

    cdef _press(self):
        """Its reader is slow: whoever writes is to stop."""
        if not self._full:
            self._full = True
            self._protocol.pause_writing()

    cdef _send_piped(self):
        cdef ssize_t sent
        while self._piped:
            sent = splice(self._pipe[0], NULL, self._fd, NULL, self._piped, SPLICE_F_MOVE | SPLICE_F_NONBLOCK)
            if sent < 0:
                if errno not in (EAGAIN, EINTR):
                    self._end(_os_error(errno))
                return
            self._piped -= sent
            self._buffered -= sent
        self._reactor._give_pipe(self._pipe, True)

    cdef _flush(self):
        cdef bytes data
        cdef ssize_t size, sent
        if self._piped:
            self._send_piped()
            if self._fd < 0:
                return
        while self._buffered and not self._piped:
            if len(self._backlog) > 1:
                self._backlog = [b"".join(self._backlog)]
            data = self._backlog[0]
            size = PyBytes_GET_SIZE(data) - self._offset
            sent = send(self._fd, PyBytes_AS_STRING(data) + self._offset, size, MSG_NOSIGNAL)
            if sent < 0:
                if errno not in (EAGAIN, EINTR):
                    self._end(_os_error(errno))
                    return
                break
            self._buffered -= sent
            if sent < size:
                self._offset += sent
                break
            self._offset = 0
            del self._backlog[0]
        if not self._buffered:
            self._backlog = None
            if self._closing:
                self._end(None)
                return
            if self._eof_wanted:
                shutdown(self._fd, SHUT_WR)
        self._update()
        if self._full and self._buffered <= LOW_WATER:
            self._full = False
            self._protocol.resume_writing()

    def write_eof(self):
        """Half-close, once everything is sent."""
        if not self._closing and not self._eof_wanted:
            self._eof_wanted = True
            if not self._buffered:
                shutdown(self._fd, SHUT_WR)

    def can_write_eof(self):
        """TCP can."""
        return True

    def get_write_buffer_size(self):
        """Bytes that the socket has not taken yet."""
        return self._buffered

    # Ending

    def close(self):
        """Close once everything is sent."""
        if not self._closing:
            self._closing = True
            self._reading = False
            if self._buffered:
                self._update()
            else:
                self._end(None)

    def abort(self):
        """Close at once."""
        if self._fd >= 0:
            self._end(None)

    def is_closing(self):
        """Whether `close` or `abort` was called, or the connection has ended by itself."""
        return self._closing

    cdef _end(self, error):
        """The end of the socket. Its protocol is told when whoever is at work now has finished."""
        self._closing = True
        self._reading = False
        self._young = False
        if self._piped:
            self._reactor._give_pipe(self._pipe, False)
            self._piped = 0
        self._splice_to = None
        self._buffered = 0
        self._backlog = None
        self._error = error
        self._unwatch()
        if self._socket is not None:
            self._socket.detach()
            self._socket = None
        close(self._fd)
        self._fd = -1
        self._reactor._note_ended(self)

    cdef failed(self, error):
        """The protocol raised: a mistake of this program, which ends this connection and no other."""
        self._reactor._report("its callback failed", error)
        if self._fd >= 0:
            self._end(error)

    # Everything else

    def set_protocol(self, protocol):
        """Hand over to another protocol."""
        self._protocol = protocol
        if type(protocol) is DownstreamConnection:
            self._kind = DOWNSTREAM
        elif type(protocol) is UpstreamConnection:
            self._kind = UPSTREAM
        elif type(protocol) is TcpSession:
            self._kind = SESSION
        elif type(protocol) is EndpointSide:
            self._kind = ENDPOINT_SIDE
        else:
            self._kind = ANY

    def get_protocol(self):
        """The protocol."""
        return self._protocol

    def get_extra_info(self, name, default=None):
        """`socket`, `peername`, `sockname`; `default` once the socket is closed."""
        if self._fd < 0:
            return default
        if self._socket is None:
            self._socket = socket.socket(fileno=self._fd)
        if name == "socket":
            return self._socket
        try:
            if name == "peername":
                return self._socket.getpeername()
            if name == "sockname":
                return self._socket.getsockname()
        except OSError:  # it has been reset meanwhile
            pass
        return default
