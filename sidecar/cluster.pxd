from sidecar.balance.picker cimport Balancing, Picker
from sidecar.model.endpoint cimport EndpointState
from sidecar.model.policy cimport UpstreamPolicy
from sidecar.model.stats cimport UpstreamStats
from sidecar.pool cimport ConnectionLimit
from sidecar.resilience.retry_budget cimport RetryBudget


cdef object _SUCCESS


cdef class Cluster:
    cdef public object _clock
    cdef public UpstreamPolicy policy
    cdef public Balancing _balancing
    cdef public double _look_at, _probe_at, _ramp_at
    cdef public bint gave_probe, hashes, leaving, panic, per_request
    cdef public RetryBudget budget
    cdef public dict _left, endpoints, outcomes
    cdef public ConnectionLimit limit
    cdef public str name, scheme, source
    cdef public Picker picker, _sound
    cdef public UpstreamStats stats
    cdef public object front, router, tls, watcher
    cdef public int proxy_protocol
    cpdef EndpointState pick(self, double now, tried=*, unsigned long long key=*)
    cpdef report(self, EndpointState state, outcome, double now, long permit, double seconds=*)
