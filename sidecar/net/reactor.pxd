from libc.stdint cimport uint32_t


cdef OSError os_error(int number)


cdef class Reactor:
    cdef object loop
    cdef int epoll
    cdef bint is_open  # the set is; a descriptor of 0 is nothing that can be told from none
    cdef char* buffer  # READ_SIZE bytes that a read goes into
    cdef readonly Pipes pipes
    cdef Others others
    cdef set open
    cdef list kept  # what was closed while events may still name it
    cdef list due  # what has something to tell when those at work have finished
    cdef bint serving, settling
    cdef int wait(self, int milliseconds) except -1
    cdef int settle_later(self, Watched watched) except -1
    cdef int settle_all(self) except -1
    cdef int forget(self, Watched watched) except -1
    cdef report(self, message, error)


cdef class Watched:
    cdef Reactor reactor
    cdef int fd  # -1 once it is closed
    cdef uint32_t interest  # 0 while it is not in the set
    cdef ready(self, uint32_t events)
    cdef settle(self)
    cdef failed(self, error)
    cdef int watch(self, uint32_t interest) except -1
    cdef int rewatch(self) except -1
    cdef void unwatch(self) noexcept


cdef class Others(Watched):
    cdef bint are_ready


cdef class Pipes:
    cdef int idle[64]  # two descriptors each
    cdef int idle_count
    cdef int given  # as they are used now
    cdef bint take(self, int* ends) noexcept
    cdef void give_back(self, int* ends, bint clean) noexcept
    cdef void close_idle(self) noexcept


cdef enum:
    # Bytes of one read: 64 KiB, as much as a message often has, and its head; what a second-level cache holds while
    # it is read and sent.
    READ_SIZE = 81920
