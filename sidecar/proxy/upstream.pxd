cimport cython
from sidecar.http1.message cimport RequestHead, ResponseHead
from sidecar.http1.scan cimport scan_response
from sidecar.model.endpoint cimport EndpointState
from sidecar.net.receiver cimport Receiver
from sidecar.net.writing cimport write_to
from sidecar.pool cimport EndpointPool
from sidecar.proxy.context cimport ProxyContext
from sidecar.proxy.exchange cimport Exchange
from sidecar.proxy.relay cimport ReadGate


cdef class UpstreamConnection(Receiver):
    cdef public ProxyContext _context
    cdef public EndpointState endpoint
    cdef public EndpointPool pool
    cdef public Exchange exchange
    cdef public ReadGate gate
    cdef public object transport, reader
    cdef public bytes _held
    cdef public Py_ssize_t _limit
    cdef public int _interims
    cdef public long served
    cdef public bint _booked, heard, proxied, write_full
    cdef public double deadline
    cpdef start(self, Exchange exchange, bytes request)
    cpdef rest(self, double idle_timeout)
    @cython.locals(exchange=Exchange)
    cpdef data_received(self, bytes data)
    @cython.locals(at=Py_ssize_t, head=ResponseHead)
    cdef _receive_head(self, Exchange exchange, bytes data)
