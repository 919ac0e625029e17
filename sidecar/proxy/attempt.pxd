cimport cython
from sidecar.cluster cimport Cluster
from sidecar.http1.message cimport RequestHead
from sidecar.model.endpoint cimport EndpointState
from sidecar.pool cimport EndpointPool
from sidecar.proxy.context cimport ProxyContext
from sidecar.resilience.breaker cimport Breaker

cdef object _NONE
cdef int _SENT
cdef long _VOID


cdef class Attempts:
    cdef public ProxyContext _context
    cdef public Cluster cluster
    # Not typed: their classes' declarations need this one's, as the base of Exchange. Exchange types its locals.
    cdef public object client, connection
    cdef public EndpointState endpoint
    cdef public RequestHead head
    cdef public bytes _body
    cdef public object _delay, _dial, _retry_reason, _tried
    cdef public long _permit
    cdef public double _answered, _began, _try_due, _wait_due
    cdef public unsigned long long _key
    cdef public bint _raced, _replayable
    cdef public int _retries_left, state
    cpdef _fail(self, reason, int status=*, str message=*)
    cpdef _touch(self)
    cpdef _outcome_of(self, int status)
    @cython.locals(endpoint=EndpointState)
    cpdef _attempt(self, double now)
    @cython.locals(breaker=Breaker)
    cpdef _take_place(self, EndpointState endpoint, double now, bint probe)
    cpdef _send(self, connection)
    cpdef _begin_try(self)
    @cython.locals(endpoint=EndpointState)
    cpdef _attempt_over(self, outcome, double now)
