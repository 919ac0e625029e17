cimport cython
from sidecar.http1.message cimport RequestHead, ResponseHead
from sidecar.model.endpoint cimport EndpointState
from sidecar.proxy.exchange cimport Exchange
from sidecar.proxy.hedge cimport HedgedExchange


cdef int SWITCHED


cdef class RecordedExchange(HedgedExchange):
    cdef public int answer, tries
    cdef public EndpointState where
    cdef public double connected, connect_time, first_byte
    cdef public long long request_bytes, response_bytes
    cdef public bytes request_id
    cdef public object trace
    cpdef begin(self, RequestHead head, bytes body, bint done)
    cpdef send_body(self, bytes piece, bint done, Py_ssize_t spliced=*)
    cpdef _send(self, connection)
    cpdef _attempt_over(self, outcome, double now)
    cpdef note_attempt(self, EndpointState endpoint, outcome, double began, double now)
    @cython.locals(come=Py_ssize_t)
    cpdef respond(self, ResponseHead head, bytes data, Py_ssize_t at)
    cpdef relay(self, bytes piece, bint done, bint excess, Py_ssize_t spliced=*)
    cdef _end(self, int status, reason, double now)
