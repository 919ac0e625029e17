cimport cython
from sidecar.balance.picker cimport Picker
from sidecar.model.endpoint cimport EndpointState
from sidecar.model.stats cimport UpstreamStats

cdef int _NOT_HOT, _PATIENCE


cdef class Ring:
    cdef public object of
    cdef public list counts, members, points
    cdef public unsigned long long mask


cdef class RingHash(Picker):
    cdef public Ring _ring
    cdef public object _live
    cdef public UpstreamStats _stats
    cdef public double _bound
    cdef public long _weights
    cpdef EndpointState pick(self, unsigned long long key, double now)
    cpdef EndpointState pick_untried(self, unsigned long long key, double now, tried)
    @cython.locals(points=list, members=list, live=bytearray, size=Py_ssize_t, start=Py_ssize_t, step=Py_ssize_t,
        at=Py_ssize_t, index=Py_ssize_t, mask=cython.ulonglong, seen=cython.int, room=cython.double, load=cython.long,
        state=EndpointState, full=EndpointState)
    cdef EndpointState _walk(self, unsigned long long key, tried)
