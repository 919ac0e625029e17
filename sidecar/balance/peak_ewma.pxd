cimport cython
from sidecar.balance.least_request cimport TwoChoices
from sidecar.model.endpoint cimport EndpointState

cdef double _DECAY, _PENALTY, _UNKNOWN, _LEAST

cdef double _kept(double age) except? -1


cdef class PeakEwma(TwoChoices):
    cdef bint _prefers_second(self, EndpointState first, EndpointState second, double now) except -1
    cdef double _cost(self, EndpointState state, double now) except? -1
    @cython.locals(kept=cython.double)
    cpdef observe(self, EndpointState state, double seconds, bint failed, double now)
