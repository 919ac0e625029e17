cdef class Extras:
    cdef public bint expects, takes_trailers
    cdef public tuple upgrade
    cdef public object trailers
    cdef public int max_forwards


cdef class RequestHead:
    cdef public list _lines
    cdef public int _host, method, minor
    cdef public bytes target
    cdef public long long length
    cdef public Py_ssize_t size
    cdef public bint keep_alive
    cdef public Extras extras
    cpdef bytes field(self, bytes name)
    cpdef bytes render(self, bytes authority, bytes body=*)


cdef class ResponseHead:
    cdef public list _lines
    cdef public int status, minor
    cdef public long long length
    cdef public Py_ssize_t size
    cdef public bint keep_alive, passes_whole
    cdef public Extras extras
    cpdef drop_coding(self)
    cpdef drop_framing(self)
    cpdef bytes render(self, bytes extra, bytes data=*, Py_ssize_t at=*)
