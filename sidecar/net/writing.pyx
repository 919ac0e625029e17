"""Writing to a transport of whatever kind, from C to C where it is the reactor's."""

from sidecar.net.transport cimport SocketTransport

__all__ = ["write_to"]


cpdef write_to(transport, bytes data):
    """What `transport.write(data)` does; for what every request writes."""
    if type(transport) is SocketTransport:
        (<SocketTransport> transport).write(data)
    else:
        transport.write(data)
