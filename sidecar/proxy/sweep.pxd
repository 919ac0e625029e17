cdef class Sweep:
    cdef public object _clock, _handle, _loop
    cdef public set members
    cdef public double soon
