cimport cython
from sidecar.http1.message cimport RequestHead, ResponseHead
from sidecar.http1.state cimport follow
from sidecar.model.endpoint cimport EndpointState
from sidecar.model.stats cimport UpstreamStats
from sidecar.net.writing cimport write_to
from sidecar.proxy.attempt cimport Attempts
from sidecar.proxy.downstream cimport DownstreamConnection
from sidecar.proxy.relay cimport ReadGate
from sidecar.proxy.upstream cimport UpstreamConnection

cdef int _DRAINING, _IDLE, _SENT, _REQUEST_WHOLE, _RESPONSE_WHOLE, _FIRST_BAD_STATUS
cdef object _NONE, _SUCCESS


cdef class Exchange(Attempts):
    cdef public double _body_due, _started
    cdef public bint _reusable
    cdef public int _status
    cdef public long long _unsent
    cpdef begin(self, RequestHead head, bytes body, bint done)
    @cython.locals(upstream=UpstreamConnection, client=DownstreamConnection, gate=ReadGate)
    cpdef _send(self, connection)
    @cython.locals(connection=UpstreamConnection, client=DownstreamConnection)
    cpdef send_body(self, bytes piece, bint done, Py_ssize_t spliced=*)
    @cython.locals(client=DownstreamConnection, extra=bytes, whole=cython.bint)
    cpdef respond(self, ResponseHead head, bytes data, Py_ssize_t at)
    @cython.locals(client=DownstreamConnection)
    cpdef relay(self, bytes piece, bint done, bint excess, Py_ssize_t spliced=*)
    cpdef _after_piece(self, bint done, bint excess)
    @cython.locals(connection=UpstreamConnection, client=DownstreamConnection, endpoint=EndpointState)
    cdef _complete(self, double now)
    cpdef _outcome_of(self, int status)
    @cython.locals(stats=UpstreamStats)
    cdef _end(self, int status, reason, double now)
    @cython.locals(client=DownstreamConnection)
    cpdef _touch(self)
