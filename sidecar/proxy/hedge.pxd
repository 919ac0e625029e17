from sidecar.http1.message cimport RequestHead, ResponseHead
from sidecar.model.endpoint cimport EndpointState
from sidecar.proxy.deadline cimport TimedExchange
from sidecar.proxy.exchange cimport Exchange


cdef class HedgedExchange(TimedExchange):
    cdef public double _hedge_due
    cdef public bint _in_heap, _undecided
    cdef public Rival rival
    cpdef begin(self, RequestHead head, bytes body, bint done)
    cpdef _fail(self, reason, int status=*, str message=*)
    cpdef _touch(self)
    cpdef _begin_try(self)
    cpdef respond(self, ResponseHead head, bytes data, Py_ssize_t at)
    cpdef note_attempt(self, EndpointState endpoint, outcome, double began, double now)


cdef class Rival(Exchange):
    cdef public HedgedExchange _main
    cpdef _attempt_over(self, outcome, double now)
    cpdef respond(self, ResponseHead head, bytes data, Py_ssize_t at)
