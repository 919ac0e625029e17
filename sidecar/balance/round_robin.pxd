cimport cython
from sidecar.balance.picker cimport Picker
from sidecar.model.endpoint cimport EndpointState


cdef class RoundRobin(Picker):
    cdef public list _cycle
    cdef public Py_ssize_t _next
    @cython.locals(cycle=list, index=Py_ssize_t)
    cpdef EndpointState pick(self, unsigned long long key, double now)
