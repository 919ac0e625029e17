cdef class Receiver:
    cpdef data_received(self, bytes data)
    cpdef bint is_asked(self)
