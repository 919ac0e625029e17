from libc.stdint cimport uint32_t


cdef class Reactor:
    cdef object _loop
    cdef int _epoll
    cdef char* _buffer
    cdef set _open
    cdef list _kept  # what was closed while events may still name it
    cdef list _tried, _ended, _young
    cdef object _young_timer
    cdef bint _dispatching
    cdef int _pipes[64]  # idle ones: two descriptors each
    cdef int _idle_pipes, _used_pipes
    cdef bint _take_pipe(self, int* ends) noexcept
    cdef void _give_pipe(self, int* ends, bint clean) noexcept
    cdef void _close_idle_pipes(self) noexcept
    cdef Others _others
    cdef _wait(self, int milliseconds)
    cdef bint _settle_all(self) except -1
    cdef int _note_ended(self, SocketTransport transport) except -1
    cdef int _forget(self, Watched watched) except -1
    cdef int _note_tried(self, Connector connector) except -1
    cdef int _note_young(self, SocketTransport transport) except -1


cdef class Watched:
    cdef Reactor _reactor
    cdef int _fd
    cdef uint32_t _interest
    cdef ready(self, uint32_t events)
    cdef failed(self, error)
    cdef int _watch(self, uint32_t interest) except -1
    cdef void _unwatch(self) noexcept


cdef class Others(Watched):
    cdef bint _are_ready


cdef class Connector(Watched):
    cdef object _factory, _told
    cdef int _error
    cdef int _close(self) except -1
    cdef _finish(self)


cdef class SocketTransport(Watched):
    cdef object _protocol, _backlog, _error, _socket
    cdef int _kind
    cdef Py_ssize_t _buffered, _offset
    cdef bint _reading, _read_ended, _closing, _eof_wanted, _full, _young, _written, _large
    cdef SocketTransport _splice_to  # where what is read goes without passing through here, for _splice_left bytes
    cdef long long _splice_left
    cdef int _pipe[2]  # holds _piped of the _buffered bytes, the first ones
    cdef Py_ssize_t _piped
    cdef _splice(self)
    cdef _send_piped(self)
    cdef _press(self)
    cdef int _update(self) except -1
    cdef bint _is_asked(self) except -1
    cdef _grow_up(self)
    cdef _read(self)
    cdef _deliver(self, bytes data)
    cdef _flush(self)
    cdef _end(self, error)
    cpdef write(self, bytes data)
