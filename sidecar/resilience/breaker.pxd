cdef class Breaker:
    cdef public int threshold, failures
    cdef public double _open_for, _max_open_for, _jitter, open_until
    cdef public object _uniform, state, journal
    cdef public long permit
    cdef public bint probing
    cdef public dict transitions
    cdef public int _opened_in_a_row
