cpdef write_to(transport, bytes data)
