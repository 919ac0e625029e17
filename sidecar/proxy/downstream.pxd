cimport cython
from sidecar.cluster cimport Cluster
from sidecar.http1.message cimport RequestHead
from sidecar.http1.scan cimport scan_request
from sidecar.net.receiver cimport Receiver
from sidecar.proxy.context cimport ProxyContext
from sidecar.proxy.exchange cimport Exchange
from sidecar.proxy.relay cimport ReadGate

cdef int IDLE, HEAD, BUSY, LINGER
cdef int _CR, _LF, _NOTHING_OPEN, _OTHER_METHOD


cdef class DownstreamConnection(Receiver):
    cdef public ProxyContext context
    cdef public Cluster cluster, home
    cdef public Exchange exchange
    cdef public ReadGate gate
    cdef public Exchange _parked
    cdef public list _routed
    cdef public object transport, peer, _reader
    cdef public bytes _held
    cdef public int state, _empty_lines
    cdef public bint keep_alive, outdated, write_full, _starting
    cdef public double deadline, head_began
    cdef public Py_ssize_t _lingered
    @cython.locals(state=cython.int)
    cpdef data_received(self, bytes data)
    cpdef bint is_asked(self)
    @cython.locals(at=Py_ssize_t, size=Py_ssize_t, limit=Py_ssize_t, head=RequestHead)
    cdef _start_requests(self, bytes data)
    @cython.locals(length=cython.longlong, size=Py_ssize_t, body=bytes)
    cdef Py_ssize_t _start_exchange(self, RequestHead head, bytes data, Py_ssize_t at) except -1
    @cython.locals(exchange=Exchange, found=Exchange, routed=list)
    cpdef take(self, Cluster cluster)
    @cython.locals(own=Exchange)
    cdef _go_home(self)
    cpdef bytes connection_line(self)
    cpdef exchange_over(self)
