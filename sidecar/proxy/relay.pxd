cdef class ReadGate:
    cdef public object _transport
    cdef public int reasons
    cpdef hold(self, int reason)
    cpdef release(self, int reason)
