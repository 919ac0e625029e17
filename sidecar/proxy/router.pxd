cimport cython
from sidecar.cluster cimport Cluster
from sidecar.http1.message cimport RequestHead
from sidecar.proxy.downstream cimport DownstreamConnection

cdef int _QUERY, _SLASH


cdef class Route:
    cdef public int position
    cdef public tuple targets, fields
    cdef public bytes host, path
    cdef public frozenset methods
    cdef bint _below
    cdef bytes _host, _prefix
    cdef list _targets
    cdef long long _total
    @cython.locals(prefix=bytes, target=bytes, size=Py_ssize_t)
    cpdef bint fits(self, RequestHead head, bytes host)
    @cython.locals(targets=list, point=double, bound=cython.longlong)
    cpdef Cluster choose(self, uniform)


cdef class Routes:
    cdef public list routes
    cdef bint _looks_at_host
    cdef object _uniform
    cdef dict _counts
    @cython.locals(host=bytes, route=Route, cluster=Cluster)
    cpdef direct(self, DownstreamConnection client, RequestHead head)
