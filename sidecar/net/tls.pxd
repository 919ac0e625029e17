cimport cython
from sidecar.net.receiver cimport Receiver

cdef Py_ssize_t _PIECE


cdef class TlsTransport(Receiver):
    cdef public object peer
    cdef readonly object incoming, outgoing
    cdef object _loop, _owner, _raw, _tls, _protocol, _error
    cdef Receiver _receiver
    cdef bytes _held
    cdef bint _closing, _established, _reading, _read_ended, _write_ended
    cpdef data_received(self, bytes data)
    @cython.locals(size=Py_ssize_t, done=Py_ssize_t)
    cpdef write(self, bytes data)
    @cython.locals(first=bytes)
    cdef bytes _decrypt(self, bytes data)
    @cython.locals(receiver=Receiver)
    cdef _deliver(self, bytes data)
