from sidecar.proxy.session cimport Session


cdef class TcpSession(Session):
    cdef public object _delay, _dial, _tried
    cdef public bytes _early
    cdef public long _permit
    cdef public double _began, _wait_due
    cdef public unsigned long long _key
    cdef public int _retries_left
    cpdef data_received(self, bytes data)
