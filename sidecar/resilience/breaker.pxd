from sidecar.resilience.window cimport SlidingWindow


cdef class Breaker:
    cdef public int threshold, failures, min_requests, rise, fall
    cdef public double _open_for, _max_open_for, _jitter, open_until, failure_rate
    cdef public object _uniform, state, journal
    cdef public SlidingWindow window
    cdef public long permit
    cdef public bint closed, probing, failing, tripped, _checked
    cdef public dict totals, transitions
    cdef public int _opened_in_a_row, _checks_in_a_row
    cpdef succeed(self, double now)
