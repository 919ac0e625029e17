from sidecar.proxy.sweep cimport Sweep


cdef class ProxyContext:
    cdef public object loop, network, clock, monotonic, resolver, pipes_elsewhere, checks, recorder, recording
    cdef public Sweep sweep
    cdef public double head_timeout, idle_timeout
    cdef public long min_body_rate, max_clients, clients, copies, refused
    cdef public bint draining
    cdef public set listening
    cdef public dict hedge_timers
