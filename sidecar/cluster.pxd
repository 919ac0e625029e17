from sidecar.balance.picker cimport Picker
from sidecar.model.endpoint cimport EndpointState
from sidecar.model.policy cimport UpstreamPolicy
from sidecar.model.stats cimport UpstreamStats
from sidecar.pool cimport ConnectionLimit


cdef object _SUCCESS


cdef class Cluster:
    cdef public object _clock
    cdef public UpstreamPolicy policy
    cdef public double _probe_at
    cdef public dict endpoints
    cdef public ConnectionLimit limit
    cdef public str name, scheme, source
    cdef public Picker picker
    cdef public UpstreamStats stats
    cdef public object watcher
    cpdef EndpointState pick(self, double now, tried=*)
    cpdef report(self, EndpointState state, outcome, double now, long permit)
