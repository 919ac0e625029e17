"""However the network cuts what two TLS sides say to each other, both hear the same."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tls import ANY_NAME, client_context, server_context
from support.transports import MemoryTransport

from sidecar.net.tls import TlsTransport

WORDS = st.lists(st.integers(0, 40_000), max_size=4)  # sizes of what is written at once


class End:
    """One side of the two: an owner, and a protocol that remembers what it hears. sizes: of what it says at once."""

    def __init__(self, version: str, *, server: bool, sizes: list[int]) -> None:
        self._server = server
        self._version = version
        self.says = [bytes([index + 1]) * size for index, size in enumerate(sizes)]
        self.data = b""
        self.ends: list[object] = []
        self.tls = TlsTransport(None, self)  # type: ignore[arg-type] # no loop: nothing pauses
        self.wire = MemoryTransport(self.tls)

    def connected(self, tls: TlsTransport) -> None:
        context = (server_context if self._server else client_context)(version=self._version)
        name = None if self._server else ANY_NAME
        tls.start(
            context.wrap_bio(tls.incoming, tls.outgoing, server_side=self._server, server_hostname=name)
        )

    def secured(self, tls: TlsTransport) -> None:
        tls.set_protocol(self)
        for data in self.says:
            tls.write(data)
        tls.write_eof()

    def unsecured(self, tls: TlsTransport, error: Exception) -> None:
        raise error

    def heard(self, tls: TlsTransport) -> None:
        pass

    def refused(self, tls: TlsTransport, error: Exception) -> None:
        raise error

    def data_received(self, data: bytes) -> None:
        assert data
        self.data += data

    def eof_received(self) -> bool:
        self.ends.append("eof")
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.ends.append(exc)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """`data` in pieces of these sizes, again and again."""
    found, at, turn = [], 0, 0
    while at < len(data):
        size = cuts[turn % len(cuts)]
        found.append(data[at : at + size])
        at, turn = at + size, turn + 1
    return found


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@settings(deadline=None, max_examples=40)
@given(client=WORDS, server=WORDS, cuts=st.lists(st.integers(1, 70_000), min_size=1, max_size=5))
def test_both_hear_all_and_the_end(
    version: str, client: list[int], server: list[int], cuts: list[int]
) -> None:
    ends = [
        End(version, server=False, sizes=client),
        End(version, server=True, sizes=server),
    ]
    moved = True
    while moved:
        moved = False
        for one, other in (ends, ends[::-1]):
            for piece in pieces(one.wire.taken(), cuts):
                moved = True
                other.wire.feed(piece)
    assert ends[0].data == b"".join(ends[1].says)
    assert ends[1].data == b"".join(ends[0].says)
    assert [end.ends for end in ends] == [["eof"], ["eof"]]
