from sidecar.cluster cimport Cluster
from sidecar.http1.message cimport RequestHead
from sidecar.http1.scan cimport scan_request
from sidecar.proxy.context cimport ProxyContext
from sidecar.proxy.exchange cimport Exchange
from sidecar.proxy.relay cimport ReadGate


cdef class DownstreamConnection:
    cdef public ProxyContext context
    cdef public Cluster cluster
    cdef public Exchange exchange
    cdef public ReadGate gate
    cdef public object transport, _reader
    cdef public bytes _held
    cdef public int state, _empty_lines
    cdef public bint keep_alive, write_full, _starting
    cdef public double deadline
    cdef public Py_ssize_t _lingered
    cpdef data_received(self, bytes data)
    cdef _start_requests(self, bytes data)
    cdef Py_ssize_t _start_exchange(self, RequestHead head, bytes data, Py_ssize_t at) except -1
    cpdef bytes connection_line(self)
    cpdef exchange_over(self)
