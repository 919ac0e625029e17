cdef class LengthReader:
    cdef public long long left
    cdef public bint done
    cpdef tuple feed(self, bytes data, Py_ssize_t start=*)


cdef class UntilCloseReader:
    cdef public bint _reframe, done
    cpdef tuple feed(self, bytes data, Py_ssize_t start=*)


cdef class ChunkedReader:
    cdef public object _announced
    cdef public bint _decode, done
    cdef public bytes _held
    cdef public long long _left
    cdef public int _state, _trailer_bytes
    cpdef tuple feed(self, bytes data, Py_ssize_t start=*)
    cdef Py_ssize_t _follow(self, bytes data, Py_ssize_t at, list pieces) except -1
    cdef Py_ssize_t _data_end(self, bytes data, Py_ssize_t at, list pieces) except -1
