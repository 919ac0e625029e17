from sidecar.resilience.window cimport SlidingWindow

cdef double _ROUNDING, _WINDOW


cdef class RetryBudget:
    cdef public double _least, _ratio
    cdef public SlidingWindow _window
    cpdef deposit(self, double now)
