cdef class ConnectionLimit:
    cdef public int maximum, max_pending, max_in_flight, per_endpoint, used
    cdef public object pending
    cdef public list pools


cdef class EndpointPool:
    cdef public ConnectionLimit limit
    cdef public list idle
    cdef public int open, share
    cpdef take(self)
    cpdef give_back(self, connection)
