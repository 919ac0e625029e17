cimport cython
from sidecar.cluster cimport Cluster
from sidecar.model.endpoint cimport EndpointState
from sidecar.net.receiver cimport Receiver
from sidecar.net.writing cimport write_to
from sidecar.proxy.context cimport ProxyContext
from sidecar.proxy.relay cimport ReadGate


cdef class Session(Receiver):
    cdef public ProxyContext _context
    cdef public Cluster cluster
    cdef public EndpointState _endpoint
    cdef public EndpointSide other
    cdef public ReadGate gate
    cdef public object peer, transport
    cdef public int _alive
    cdef public bint _ended, _read_ended
    cdef public double _idle_timeout, deadline, started
    cdef public long long _unsent_before, sent, received
    @cython.locals(size=Py_ssize_t)
    cpdef data_received(self, bytes data)
    @cython.locals(size=Py_ssize_t)
    cpdef relayed(self, bytes data)
    cpdef _touch(self)


cdef class EndpointSide(Receiver):
    cdef public Session _session
    cdef public ReadGate gate
    cdef public object transport
    cdef public bytes _early
    cdef public bint read_ended
    cpdef data_received(self, bytes data)
