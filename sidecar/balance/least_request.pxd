cimport cython
from sidecar.balance.picker cimport Picker
from sidecar.model.endpoint cimport EndpointState


cdef class TwoChoices(Picker):
    cdef public list _cycle
    @cython.locals(cycle=list, endpoints=list, others=Py_ssize_t, first=EndpointState, second=EndpointState)
    cpdef EndpointState pick(self, unsigned long long key, double now)
    cdef bint _prefers_second(self, EndpointState first, EndpointState second, double now) except -1


cdef class LeastRequest(TwoChoices):
    cdef bint _prefers_second(self, EndpointState first, EndpointState second, double now) except -1
