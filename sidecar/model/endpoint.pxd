from sidecar.pool cimport EndpointPool
from sidecar.resilience.breaker cimport Breaker


cdef class EndpointState:
    cdef public object endpoint, attempts, last_check, tls_session
    cdef public set sessions
    cdef long long[::1] _attempts, _totals
    cdef public bytes authority
    cdef public Breaker breaker
    cdef public EndpointPool pool
    cdef public long in_flight, weight
    cdef public double attempt_seconds, since, latency, latency_at
    cdef public bint drained, removed, in_rotation
    cpdef count(self, int outcome)
