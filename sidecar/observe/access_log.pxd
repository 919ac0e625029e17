cimport cython
from sidecar.cluster cimport Cluster
from sidecar.http1.message cimport RequestHead
from sidecar.model.endpoint cimport EndpointState
from sidecar.proxy.downstream cimport DownstreamConnection
from sidecar.proxy.recording cimport RecordedExchange
from sidecar.proxy.session cimport Session

cdef int _FULL, _NONE, _CLIENT_GONE
cdef list _REASONS, _CLOSE_REASONS, _METHODS


cdef class AccessLog:
    cdef object _file, _chance, _monotonic, _wall, _loop, _timer
    cdef double _share, _offset
    cdef bint _query
    cdef list _lines
    cdef Py_ssize_t _size
    cdef long long _second
    cdef str _stamp
    cdef dict _places
    @cython.locals(number=cython.int, started=cython.double, head=RequestHead)
    cpdef exchange_over(self, RecordedExchange exchange, int status, reason, double now)
    cpdef refused(self, DownstreamConnection client, int method, error, double now)
    cpdef session_over(self, Session session, reason, double now)
    cdef bint _is_left_out(self) except -1
    @cython.locals(wall=cython.double, second=cython.longlong, micros=cython.int)
    cdef str _begin(self, double at)
    @cython.locals(text=str)
    cdef str _of_endpoint(self, Cluster cluster, EndpointState endpoint)
    @cython.locals(text=str)
    cdef str _path(self, bytes target)
    @cython.locals(size=Py_ssize_t)
    cdef _write(self, str line)
    cpdef _flush(self)
    cdef _wake(self)


@cython.locals(micros=cython.longlong)
cdef str _seconds(double seconds)
cdef str _escape(str text)
cdef str _trace_id(RecordedExchange exchange, RequestHead head)
@cython.locals(value=bytes, text=str)
cdef str _request_id(RecordedExchange exchange, RequestHead head)
