cdef bytes _FLAT
cdef int _EVENTS, _ILLEGAL

cpdef int follow(int state, int event) except -1
