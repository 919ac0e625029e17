"""The pipes through which large bodies pass by this process: splice(2) moves bytes only to or from a pipe."""

from posix.unistd cimport close

from sidecar.net.kernel cimport F_SETPIPE_SZ, O_CLOEXEC, O_NONBLOCK, fcntl, pipe2

__all__ = ["Pipes"]

cdef enum:
    PIPE_SIZE = 262144  # bytes that one is to hold
    IDLE_PIPES = 32  # kept for the next body
    # At a time, beyond which large bodies are read and written as small ones are. Well below pipe-user-pages-soft
    # (pipe(7)), 64 MiB of a user's pipes: beyond that they hold two pages.
    MAX_PIPES = 96


cdef class Pipes:
    """Pipes of one process. Each is used for as long as something is in it."""

    @property
    def use(self):
        """How many are in use, and how many may be."""
        return self.given, MAX_PIPES

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
            fcntl(ends[1], F_SETPIPE_SZ, <int> PIPE_SIZE)  # refused above a user's share: then it holds less
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
        while self.idle_count:
            self.idle_count -= 1
            close(self.idle[2 * self.idle_count])
            close(self.idle[2 * self.idle_count + 1])
