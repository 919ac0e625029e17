from sidecar.model.endpoint cimport EndpointState
from sidecar.model.stats cimport UpstreamStats


cdef class Balancing:
    cdef public object uniform, ring
    cdef public list members
    cdef public UpstreamStats stats
    cdef public double max_load


cdef class Picker:
    cdef public list endpoints
    cdef public object _uniform
    cdef public bint observes
    cpdef EndpointState pick(self, unsigned long long key, double now)
    cpdef EndpointState pick_untried(self, unsigned long long key, double now, tried)
    cpdef observe(self, EndpointState state, double seconds, bint failed, double now)
