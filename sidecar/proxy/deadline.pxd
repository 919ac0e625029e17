cimport cython
from sidecar.http1.message cimport RequestHead
from sidecar.proxy.downstream cimport DownstreamConnection
from sidecar.proxy.exchange cimport Exchange


cdef class TimedExchange(Exchange):
    cdef public double _due
    cdef public int _place
    cdef public bint _ruled
    cdef public bytes _name
    cdef public str _problem
    @cython.locals(client=DownstreamConnection)
    cpdef begin(self, RequestHead head, bytes body, bint done)
    cpdef _attempt(self, double now)
    cpdef _send(self, connection)
    cpdef _outcome_of(self, int status)
    @cython.locals(client=DownstreamConnection)
    cpdef _touch(self)
