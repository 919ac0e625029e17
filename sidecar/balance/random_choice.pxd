cimport cython
from sidecar.balance.picker cimport Picker
from sidecar.model.endpoint cimport EndpointState


cdef class RandomChoice(Picker):
    cdef public list _cycle
    @cython.locals(cycle=list)
    cpdef EndpointState pick(self, unsigned long long key, double now)
