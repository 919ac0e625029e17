from sidecar.model.endpoint cimport EndpointState


cdef class Picker:
    cpdef EndpointState pick(self)
