"""One epoll set for the sockets of the data path, with nothing in between.

What is ready is served from C to C. What a loop's transport costs on top of its system calls (a handle, a context, the
GIL taken and given back, a queue flushed at the end of the turn) is not paid at all.

    Reactor ── ready ──► Acceptor ── accept4 ──► SocketTransport ── recv ──► receiver.data_received
       │           └───► SocketTransport ◄── send ── transport.write
       └── settle, when all that was ready has been served ──► connection_lost, a connect's end

A `ReactorLoop` waits in the set, and then it is all there is to wait for; on any other loop the set is a descriptor of
the loop's, which costs one more epoll_wait a turn.
"""

import os

from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EINTR, errno
from libc.stdint cimport uint32_t
from libc.stdlib cimport free, malloc
from posix.unistd cimport close

from sidecar.net.kernel cimport (
    EPOLL_CLOEXEC,
    EPOLL_CTL_ADD,
    EPOLL_CTL_DEL,
    EPOLL_CTL_MOD,
    EPOLLIN,
    F_GETPIPE_SZ,
    F_SETPIPE_SZ,
    O_CLOEXEC,
    O_NONBLOCK,
    epoll_create1,
    epoll_ctl,
    epoll_event,
    epoll_wait,
    fcntl,
    pipe2,
)

__all__ = ["Others", "Pipes", "Reactor", "Watched"]

cdef enum:
    EVENTS = 256  # taken at once; the loop's other work is not kept waiting for more
    PIPE_SIZE = 262144  # bytes that one is to hold
    ROUNDS = 16  # of ends that cause others, before the loop's other work has its turn
    IDLE_PIPES = 32  # kept for the next body
    # Open at a time, beyond which large bodies are read and written as small ones are. One process stays well below
    # pipe-user-pages-soft (pipe(7)), 64 MiB of a user's pipes.
    MAX_PIPES = 96
    SMALL_PIPE = 65536  # less than what a pipe has by default is what the kernel gives above a user's share


cdef OSError os_error(int number):
    return OSError(number, os.strerror(number))


cdef class Reactor:
    """The sockets of one process's data path, on one event loop."""

    def __cinit__(self, loop, others=None):
        """others: the selector of a loop that waits here. None: the loop watches this."""
        self.loop = loop
        self.open = set()
        self.kept = []
        self.due = []
        self.pipes = Pipes.__new__(Pipes)
        self.buffer = <char*> malloc(READ_SIZE)
        if self.buffer == NULL:
            raise MemoryError
        self.epoll = epoll_create1(EPOLL_CLOEXEC)
        if self.epoll < 0:
            raise os_error(errno)
        self.is_open = True
        if others is None:
            loop.add_reader(self.epoll, self._serve)
        else:
            self.others = Others.__new__(Others)
            self.others.reactor = self
            self.others.fd = others.fileno()
            self.others.watch(EPOLLIN)

    def __dealloc__(self):
        free(self.buffer)
        if self.is_open:
            close(self.epoll)

    def close(self):
        """Close everything at once, and tell who has to be told."""
        cdef bint inside = self.serving
        if not self.is_open:
            return
        self.serving = True  # by others' ends nothing is settled before all have had theirs
        try:
            for watched in tuple(self.open):
                watched.abort()
        finally:
            self.serving = inside
        while self.due and not inside:
            self.settle_all()
        self.pipes.close_idle()
        if self.others is None:
            self.loop.remove_reader(self.epoll)
            self.close_set()

    def close_set(self):
        """The end of the set itself: a loop that waits in it does so until its own end."""
        if self.is_open:
            self.is_open = False
            close(self.epoll)
            self.epoll = -1

    # Serving

    def _serve(self):
        """The loop's callback: some sockets are ready."""
        self.wait(0)

    cdef int wait(self, int milliseconds) except -1:
        """Wait for something to be ready, for ever when negative, and serve it."""
        cdef epoll_event events[EVENTS]
        cdef Watched watched
        cdef int i, count
        if milliseconds:
            PyErr_CheckSignals()  # those that came while no Python code ran do not interrupt the wait
            with nogil:
                count = epoll_wait(self.epoll, events, EVENTS, milliseconds)
        else:
            count = epoll_wait(self.epoll, events, EVENTS, 0)
        if count < 0:
            if errno != EINTR:
                raise os_error(errno)
            PyErr_CheckSignals()
        self.serving = True
        try:
            for i in range(count):
                # Alive: what is closed meanwhile is kept until all these have been looked at.
                watched = <Watched> events[i].data.ptr
                if watched.fd >= 0:
                    try:
                        watched.ready(events[i].events)
                    except (KeyboardInterrupt, SystemExit):
                        raise
                    except BaseException as error:
                        watched.failed(error)
        except BaseException:
            for i in range(i, count):  # of edges it is told once, and the loop may go on
                watched = <Watched> events[i].data.ptr
                if watched.fd >= 0:
                    watched.rewatch()
            raise
        finally:
            self.serving = False
            self.settle_all()
        return 0

    # What comes later than the call that causes it

    cdef int settle_later(self, Watched watched) except -1:
        """Call its `settle` when whoever is at work now has finished."""
        if not self.due and not self.serving and not self.settling:
            self.loop.call_soon(self._settle)
        self.due.append(watched)
        return 0

    def _settle(self):
        self.settle_all()

    cdef int settle_all(self) except -1:
        cdef Watched watched
        cdef list due
        cdef int done, rounds = 0
        if self.settling:
            return 0
        self.settling = True
        try:
            while self.due:
                rounds += 1
                if rounds > ROUNDS:
                    self.loop.call_soon(self._settle)
                    break
                due, self.due = self.due, []
                done = 0
                for watched in due:
                    done += 1
                    try:
                        watched.settle()
                    except (KeyboardInterrupt, SystemExit):
                        self.due += due[done:]
                        if self.due:
                            self.loop.call_soon(self._settle)
                        raise
                    except BaseException as error:
                        self.report("it could not be told what has happened", error)
        finally:
            self.settling = False
        if self.kept and not self.serving:
            self.kept = []
        return 0

    cdef int forget(self, Watched watched) except -1:
        """It is closed. The events that are being served may still point to it: until they are, it stays."""
        self.open.discard(watched)
        if self.serving:
            self.kept.append(watched)
        return 0

    cdef report(self, message, error):
        self.loop.call_exception_handler({"message": f"a connection's protocol: {message}", "exception": error})


cdef class Watched:
    """A descriptor that may be in the set."""

    def __cinit__(self):
        self.fd = -1

    cdef ready(self, uint32_t events):
        """Something that was waited for has come."""
        raise NotImplementedError

    cdef settle(self):
        """What `settle_later` was asked for."""
        raise NotImplementedError

    cdef failed(self, error):
        """`ready` raised."""
        raise NotImplementedError

    cdef int watch(self, uint32_t interest) except -1:
        """Wait for `interest` from now on. Out of the set when that is nothing: it would go on telling of errors."""
        cdef epoll_event event
        cdef int operation
        if interest == self.interest:
            return 0
        if not interest:
            operation = EPOLL_CTL_DEL
        elif self.interest:
            operation = EPOLL_CTL_MOD
        else:
            operation = EPOLL_CTL_ADD
        event.events = interest
        event.data.ptr = <void*> self
        if epoll_ctl(self.reactor.epoll, operation, self.fd, &event) < 0:
            raise os_error(errno)
        self.interest = interest
        return 0

    cdef int rewatch(self) except -1:
        """Be told again of what is there already, if it is of interest."""
        cdef epoll_event event
        event.events = self.interest
        event.data.ptr = <void*> self
        if self.interest and epoll_ctl(self.reactor.epoll, EPOLL_CTL_MOD, self.fd, &event) < 0:
            raise os_error(errno)
        return 0

    cdef void unwatch(self) noexcept:
        """Out of the set. Closing is not enough: a process that was just forked may have the socket still."""
        if self.interest:
            epoll_ctl(self.reactor.epoll, EPOLL_CTL_DEL, self.fd, NULL)
            self.interest = 0


cdef class Others(Watched):
    """What the loop watches beside the data path: its own selector."""

    cdef ready(self, uint32_t events):
        self.are_ready = True

    cdef failed(self, error):
        raise error


cdef class Pipes:
    """The pipes through which large bodies pass by this process: splice(2) moves bytes only to or from a pipe.

    Each is used for as long as something is in it.
    """

    @property
    def use(self):
        """How many are open, and how many may be."""
        return self.given + self.idle_count, MAX_PIPES

    def __dealloc__(self):
        self.close_idle()

    cdef bint take(self, int* ends) noexcept:
        """An empty pipe; False when there is none to be had."""
        if self.idle_count:
            self.idle_count -= 1
            ends[0] = self.idle[2 * self.idle_count]
            ends[1] = self.idle[2 * self.idle_count + 1]
        elif self.given >= MAX_PIPES or pipe2(ends, O_NONBLOCK | O_CLOEXEC) < 0:
            return False
        else:
            if fcntl(ends[1], F_SETPIPE_SZ, <int> PIPE_SIZE) < 0 and fcntl(ends[1], F_GETPIPE_SZ) < SMALL_PIPE:
                close(ends[0])  # so small, moving bodies through it costs more than reading and writing them
                close(ends[1])
                return False
        self.given += 1
        return True

    cdef void give_back(self, int* ends, bint clean) noexcept:
        """clean: nothing is in it."""
        self.given -= 1
        if clean and self.idle_count < IDLE_PIPES:
            self.idle[2 * self.idle_count] = ends[0]
            self.idle[2 * self.idle_count + 1] = ends[1]
            self.idle_count += 1
        else:
            close(ends[0])
            close(ends[1])

    cdef void close_idle(self) noexcept:
        """Give back descriptors: nobody else may be left without one for the sake of these."""
        while self.idle_count:
            self.idle_count -= 1
            close(self.idle[2 * self.idle_count])
            close(self.idle[2 * self.idle_count + 1])
