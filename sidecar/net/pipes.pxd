cdef class Pipes:
    cdef int idle[64]  # two descriptors each
    cdef int idle_count
    cdef int given  # as they are used now
    cdef bint take(self, int* ends) noexcept
    cdef void give_back(self, int* ends, bint clean) noexcept
    cdef void close_idle(self) noexcept
