from libc.stdint cimport uint32_t


cdef class Reactor:
    cdef object _loop
    cdef int _epoll
    cdef char* _buffer
    cdef set _open
    cdef list _ended, _young
    cdef object _young_timer
    cdef bint _dispatching
    cdef _dispatch_ready(self)
    cdef bint _settle_all(self) except -1
    cdef int _note_ended(self, SocketTransport transport) except -1
    cdef int _note_young(self, SocketTransport transport) except -1


cdef class Watched:
    cdef Reactor _reactor
    cdef int _fd
    cdef uint32_t _interest
    cdef ready(self, uint32_t events)
    cdef failed(self, error)
    cdef int _watch(self, uint32_t interest) except -1


cdef class SocketTransport(Watched):
    cdef object _protocol, _backlog, _error, _socket
    cdef int _kind
    cdef Py_ssize_t _buffered, _offset
    cdef bint _reading, _read_ended, _closing, _eof_wanted, _full, _young, _written, _large
    cdef int _update(self) except -1
    cdef _read(self)
    cdef _deliver(self, bytes data)
    cdef _flush(self)
    cdef _end(self, error)
    cpdef write(self, bytes data)
