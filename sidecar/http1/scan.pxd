from sidecar.http1.message cimport RequestHead, ResponseHead

cpdef RequestHead scan_request(bytes data, Py_ssize_t start=*, Py_ssize_t limit=*)
cpdef ResponseHead scan_response(bytes data, Py_ssize_t start, int method, Py_ssize_t limit=*)
