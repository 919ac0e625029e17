cimport cython

cdef int _BUCKETS


cdef class SlidingWindow:
    cdef long long[::1] _buckets
    cdef public double seconds, _width, _end
    cdef public long long _good, _bad
    cdef public int _at
    cpdef clear(self)
    cpdef count(self, bint good, double now)
    @cython.locals(steps=cython.longlong)
    cdef _turn(self, double now)
