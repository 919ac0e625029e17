"""What a configuration file says of one port, or one unix socket, that an upstream listens on; part of `schema`."""

# Annotations are read at run time by the decoder, so they must not be postponed to strings.
from typing import Annotated

from sidecar.config.containers import Section
from sidecar.config.record import Record
from sidecar.config.rules import Flag, UpstreamName
from sidecar.config.schema_tls import ServerTls
from sidecar.config.socket_rules import FileMode
from sidecar.config.unset import UNSET, UnsetType

__all__ = ["PortListener", "SocketListener"]


class PortListener(Record):
    """A value of `sidecar.ports`, the long form."""

    to: Annotated[str | UnsetType, UpstreamName()] = UNSET
    accept_proxy: Annotated[bool | UnsetType, Flag()] = UNSET
    tls: Annotated[ServerTls | UnsetType, Section(ServerTls)] = UNSET


class SocketListener(PortListener):
    """A value of `sidecar.sockets`, the long form."""

    mode: Annotated[int | UnsetType, FileMode()] = UNSET
