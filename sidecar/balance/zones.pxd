from sidecar.balance.picker cimport Picker
from sidecar.model.endpoint cimport EndpointState

cdef unsigned long long _SPREAD


cdef class ZonePreference(Picker):
    cdef public Picker own, others
    cdef public double _share, _owed
    cdef public bint _hashes
    cdef bint _is_own(self, unsigned long long key) except -1
    cpdef EndpointState pick(self, unsigned long long key, double now)
    cpdef EndpointState pick_untried(self, unsigned long long key, double now, tried)
    cpdef observe(self, EndpointState state, double seconds, bint failed, double now)
