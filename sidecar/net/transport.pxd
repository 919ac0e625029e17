from sidecar.net.reactor cimport Reactor, Watched
from sidecar.net.receiver cimport Receiver


cdef SocketTransport new_transport(Reactor reactor, int fd, protocol, bint edge)


cdef class SocketTransport(Watched):
    cdef object protocol, backlog, error, socket
    cdef Receiver receiver  # the protocol, when it is one
    cdef Py_ssize_t buffered, offset  # unsent bytes; how much of the backlog's first has gone
    cdef bint reading, read_ended, closing, eof_wanted, full, young, large
    cdef bint edge  # epoll tells once of what has come, and not in every turn until it is read
    cdef bint more  # may have come than was read
    cdef SocketTransport splice_to  # where what is read goes without passing through here, for splice_left bytes
    cdef long long splice_left
    cdef int pipe[2]  # holds `piped` of the `buffered` bytes, the first ones
    cdef Py_ssize_t piped
    cdef read(self)
    cdef splice_on(self)
    cdef deliver(self, bytes data)
    cdef int update(self) except -1
    cdef grow_up(self)
    cpdef write(self, bytes data)
    cdef press(self)
    cdef send_piped(self)
    cdef flush(self)
    cdef end(self, error)
