cimport cython

cdef int _BUCKETS, _CLASSES, _REASONS
cdef double _QUICK


cdef class UpstreamStats:
    cdef public object attempts, requests, durations, duration_sums
    cdef long long[::1] _requests, _durations
    cdef double[::1] _duration_sums
    cdef public list checks, connects, hedges, mirrored, retries, secret_loads, sessions, overflows, proxy_headers, tls_expiry, tls_failures, tls_reloads
    cdef public long long reuse_failures, deadlines_exceeded, retries_refused, bytes_sent, bytes_received
    cdef public long in_flight, sessions_active, retries_active
    cdef public dict routed, transitions
    @cython.locals(code_class=cython.int, bucket=cython.int)
    cpdef count_request(self, int method, int status, int reason, double seconds)
