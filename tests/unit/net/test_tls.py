"""TLS over a transport in memory: both sides, every end, and whatever may come in between."""

import ssl
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from support.tls import TlsPeer, client_context, hands_shaken, server_context
from support.transports import MemoryTransport

from sidecar.net.receiver import Receiver
from sidecar.net.tls import TlsTransport
from sidecar.proxy.relay import reset


class Later:
    """A loop of which only `call_soon` is asked."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []

    def call_soon(self, call: Callable[[], None]) -> None:
        self.calls.append(call)

    def turn(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call()


class Line:
    """A protocol that remembers. keeps_open: it goes on writing when the other side has said all."""

    def __init__(self) -> None:
        self.data = b""
        self.pieces = 0
        self.events: list[object] = []
        self.keeps_open = False
        self.on_data: Callable[[], None] | None = None

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.pieces += 1
        if self.on_data is not None:
            self.on_data()

    def eof_received(self) -> bool:
        self.events.append("eof")
        return self.keeps_open

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append(exc)


class Typed(Receiver):
    """A protocol as the data path's are."""

    def __init__(self) -> None:
        self.data = b""

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, exc: Exception | None) -> None:
        pass


class Side:
    """One TlsTransport, its owner and its protocol; the peer is in memory too."""

    def __init__(self, *, client: bool = True, version: str = "", peer: TlsPeer | None = None) -> None:
        self.client = client
        self.version = version
        self.loop = Later()
        self.line = Line()
        self.told: list[object] = []
        self.at_start: Callable[[], None] | None = None
        self.tls = TlsTransport(self.loop, self)  # type: ignore[arg-type] # a double
        other = server_context(version=version) if client else client_context(version=version)
        self.peer = peer or TlsPeer(server=client, context=other)
        self.wire = MemoryTransport(self.tls)

    def connected(self, tls: TlsTransport) -> None:
        if self.client:
            made = client_context(version=self.version).wrap_bio(
                tls.incoming, tls.outgoing, server_hostname="service.example"
            )
        else:
            made = server_context(version=self.version).wrap_bio(tls.incoming, tls.outgoing, server_side=True)
        tls.start(made)

    def secured(self, tls: TlsTransport) -> None:
        self.told.append("secured")
        tls.set_protocol(self.line)
        if self.at_start is not None:
            self.at_start()

    def unsecured(self, tls: TlsTransport, error: Exception) -> None:
        self.told.append(error)

    def heard(self, tls: TlsTransport) -> None:
        self.told.append("heard")

    def refused(self, tls: TlsTransport, error: Exception) -> None:
        self.told.append(("refused", error))

    def shake(self, split: Callable[[bytes], list[bytes]] | None = None) -> None:
        hands_shaken(self.wire, self.peer, split)
        assert self.told[0] == "secured"

    def sent(self) -> bytes:
        """What the peer has read of it since the last time."""
        self.peer.take(self.wire.taken())
        received, self.peer.received = self.peer.received, b""
        return received


BODY = bytes(range(251)) * 100  # no period that a lost or doubled part would fit into
SIDES = pytest.mark.parametrize("client", [True, False], ids=["client", "server"])
VERSIONS = pytest.mark.parametrize("version", ["1.2", "1.3"])


@SIDES
@VERSIONS
def test_both_sides_talk(client: bool, version: str) -> None:
    side = Side(client=client, version=version)
    side.shake()
    side.tls.write(b"question")
    assert side.sent() == b"question"
    side.wire.feed(side.peer.says(b"answer"))
    assert side.line.data == b"answer"
    assert side.told == ["secured", "heard"]


@SIDES
@VERSIONS
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_any_split_of_the_handshake_is_the_same(client: bool, version: str, size: int) -> None:
    side = Side(client=client, version=version)
    side.shake(lambda said: [said[at : at + size] for at in range(0, len(said), size)])
    side.wire.feed(side.peer.says(b"answer"))
    assert side.line.data == b"answer"


@SIDES
def test_data_with_the_last_flight_of_the_handshake_is_delivered(client: bool) -> None:
    side = Side(client=client, version="1.3")
    side.peer.take(side.wire.taken())
    side.wire.feed(side.peer.records())
    if client:  # the server's data come with its tickets
        side.peer.take(side.wire.taken())
    else:
        side.peer.take(side.wire.taken())
        assert not side.told
    assert side.peer.established
    side.wire.feed(side.peer.says(b"at once"))
    assert side.line.data == b"at once"
    assert side.told == ["secured", "heard"]


def test_what_is_said_at_once_leaves_with_the_end_of_the_handshake() -> None:
    side = Side()
    side.at_start = lambda: side.tls.write(b"question")
    side.peer.take(side.wire.taken())
    side.wire.feed(side.peer.records())
    assert len(side.wire.writes) == 1
    assert side.sent() == b"question"


@SIDES
def test_many_records_of_one_read_are_delivered_at_once(client: bool) -> None:
    side = Side(client=client)
    side.shake()
    data = bytes(range(256)) * 1024
    side.wire.feed(side.peer.says(data))
    assert side.line.data == data
    assert side.line.pieces == 1


@SIDES
@VERSIONS
def test_a_large_write_arrives_whole(client: bool, version: str) -> None:
    side = Side(client=client, version=version)
    side.shake()
    data = bytes(range(256)) * 2048
    side.tls.write(data)
    assert side.sent() == data
    side.tls.write(b"")
    assert not side.wire.writes


@SIDES
@VERSIONS
def test_closing_says_so(client: bool, version: str) -> None:
    side = Side(client=client, version=version)
    side.shake()
    side.tls.write(b"last words")
    side.tls.close()
    assert side.tls.is_closing()
    assert side.wire.closing
    assert not side.wire.aborted
    assert side.sent() == b"last words"
    assert side.peer.ended
    side.tls.write(b"nothing")
    side.tls.write_eof()
    side.tls.close()
    assert not side.wire.writes
    side.wire.lose()
    assert side.line.events == [None]


@SIDES
@VERSIONS
def test_who_has_said_all_goes_on_reading(client: bool, version: str) -> None:
    side = Side(client=client, version=version)
    side.shake()
    side.line.keeps_open = True
    assert side.tls.can_write_eof()
    side.tls.write_eof()
    side.peer.take(side.wire.taken())
    assert side.peer.ended
    assert side.wire.eof_written
    side.tls.write(b"nothing")
    assert not side.wire.writes
    side.wire.feed(side.peer.says(b"there is more"))
    assert side.line.data == b"there is more"
    side.wire.feed(side.peer.bids_farewell())
    assert side.line.events == ["eof"]
    assert not side.tls.is_closing()


@SIDES
def test_who_has_heard_all_goes_on_writing(client: bool) -> None:
    side = Side(client=client)
    side.shake()
    side.line.keeps_open = True
    side.wire.feed(side.peer.says(b"all") + side.peer.bids_farewell())
    assert side.line.data == b"all"
    assert side.line.events == ["eof"]
    assert side.wire.feed_eof()
    side.tls.write(b"answer")
    side.wire.feed(b"behind the end")  # RFC 8446 6.1: ignored
    assert side.line.data == b"all"
    assert side.line.events == ["eof"]
    assert side.wire.data
    side.tls.close()
    assert not side.wire.feed_eof()


def test_an_end_that_nobody_keeps_open_closes() -> None:
    side = Side()
    side.shake()
    side.wire.feed(side.peer.bids_farewell())
    assert side.line.events == ["eof"]
    assert side.wire.closing
    assert not side.wire.aborted
    side.wire.lose()
    assert side.line.events == ["eof", None]


@SIDES
def test_a_connection_that_is_cut_is_no_clean_end(client: bool) -> None:
    side = Side(client=client)
    side.shake()
    side.wire.feed(side.peer.says(b"half of"))
    assert not side.wire.feed_eof()
    assert side.wire.aborted
    side.wire.lose()
    (error,) = side.line.events
    assert isinstance(error, ssl.SSLEOFError)
    assert "close_notify" in str(error)


def test_a_bad_record_ends_the_connection_with_an_alert() -> None:
    side = Side()
    side.shake()
    record = bytearray(side.peer.says(b"good") + side.peer.says(b"bad"))
    record[-1] ^= 1
    side.wire.feed(bytes(record))
    assert side.line.data == b"good"
    assert side.wire.closing
    with pytest.raises(ssl.SSLError, match=r"(?i)alert bad record mac"):
        side.peer.take(side.wire.taken())
    side.wire.lose()
    (error,) = side.line.events
    assert isinstance(error, ssl.SSLError)
    assert error.reason == "DECRYPTION_FAILED_OR_BAD_RECORD_MAC"


def test_a_fault_while_the_peer_reads_nothing_closes_at_once() -> None:
    side = Side()
    side.shake()
    side.wire.fill()
    side.wire.feed(b"GET / HTTP/1.1\r\n\r\n")
    assert side.wire.aborted
    assert side.line.events == ["pause"]
    side.wire.lose()
    assert isinstance(side.line.events[-1], ssl.SSLError)
    assert isinstance(side.told[-1], tuple)  # nothing had been heard


def test_resets_carry_no_close_notify() -> None:
    side = Side()
    side.shake()
    side.tls.write(b"half of")
    reset(side.tls)  # type: ignore[arg-type] # as far as it is asked, it is one
    assert side.wire.aborted
    assert side.sent() == b"half of"
    assert not side.peer.ended


def test_backpressure_passes_up_and_pausing_down() -> None:
    side = Side()
    side.shake()
    side.wire.fill(70000)
    assert side.tls.get_write_buffer_size() == 70000
    side.wire.drain()
    assert side.line.events == ["pause", "resume"]
    assert side.tls.is_reading()
    side.tls.pause_reading()
    assert not side.wire.reading
    assert not side.tls.is_reading()
    side.tls.resume_reading()
    assert side.wire.reading
    assert not side.loop.calls


def test_what_is_decrypted_already_waits_until_reading_goes_on() -> None:
    """Which happens at the end of a handshake: nobody has paused the transport below by then."""
    side = Side(version="1.3")
    side.at_start = side.tls.pause_reading
    side.peer.take(side.wire.taken())
    flight = side.peer.records()
    side.tls.data_received(flight)
    side.peer.take(side.wire.taken())
    side.tls.data_received(side.peer.says(b"early") + side.peer.bids_farewell())
    assert not side.line.data
    side.tls.resume_reading()
    side.tls.pause_reading()
    side.loop.turn()
    assert not side.line.data
    side.tls.resume_reading()
    assert not side.line.data  # nobody is called while it calls
    side.loop.turn()
    assert side.line.data == b"early"
    assert side.line.events == ["eof"]
    side.tls.resume_reading()
    side.loop.turn()
    assert side.line.data == b"early"


def test_what_comes_before_the_held_is_delivered_stays_behind_it() -> None:
    """Between the two is the loop's next turn, and the compiled loop reads before it."""
    side = Side()
    side.shake()
    side.tls.pause_reading()
    side.tls.data_received(side.peer.says(b"held, "))
    side.tls.resume_reading()
    side.tls.data_received(side.peer.says(b"then more, "))
    side.loop.turn()
    side.tls.data_received(side.peer.says(b"and the rest"))
    assert side.line.data == b"held, then more, and the rest"


def test_an_end_waits_behind_what_is_held() -> None:
    side = Side()
    side.shake()
    side.tls.pause_reading()
    side.tls.data_received(side.peer.says(b"held"))
    side.tls.data_received(b"\0\0\0")
    side.tls.data_received(b"no record")
    assert not side.line.events
    side.tls.resume_reading()
    side.loop.turn()
    assert side.line.data == b"held"
    assert side.wire.closing


def test_pausing_in_the_middle_of_a_delivery() -> None:
    side = Side()
    side.shake()
    side.line.on_data = side.tls.pause_reading
    side.wire.feed(side.peer.says(b"one"))
    assert side.line.data == b"one"
    with pytest.raises(AssertionError):
        side.wire.feed(side.peer.says(b"two"))


@pytest.mark.parametrize("end", ["close", "abort"])
def test_ending_in_the_middle_of_a_delivery(end: str) -> None:
    side = Side()
    side.shake()
    side.line.on_data = getattr(side.tls, end)
    side.wire.feed(side.peer.says(b"one") + side.peer.bids_farewell())
    assert side.line.data == b"one"
    assert side.line.events == []
    side.wire.lose()
    assert side.line.events == [None]


def test_another_protocol_takes_over_in_the_middle_of_a_delivery() -> None:
    side = Side()
    side.shake()
    other = Typed()
    side.line.on_data = lambda: side.tls.set_protocol(other)
    assert side.tls.get_protocol() is side.line
    side.wire.feed(side.peer.says(b"switch"))
    side.wire.feed(side.peer.says(b"other"))
    assert (side.line.data, other.data) == (b"switch", b"other")
    assert side.tls.get_protocol() is other
    side.wire.lose()
    side.tls.data_received(b"nothing")
    side.tls.pause_writing()
    side.tls.resume_writing()


def test_who_is_no_tls_server() -> None:
    side = Side()
    side.wire.feed(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    (error,) = side.told
    assert isinstance(error, ssl.SSLError)
    assert side.wire.closing
    side.wire.data and side.wire.lose()
    assert side.told == [error]


@pytest.mark.parametrize("how", ["eof", "lost", "reset"])
def test_an_end_during_the_handshake(how: str) -> None:
    side = Side()
    if how == "eof":
        assert not side.wire.feed_eof()
        assert side.wire.closing
    side.wire.lose(ConnectionResetError("reset") if how == "reset" else None)
    (error,) = side.told
    assert isinstance(error, ConnectionResetError)
    assert ("handshake" in str(error)) is (how != "reset")
    side.tls.data_received(b"late")


def test_giving_up_during_the_handshake_is_told_to_nobody() -> None:
    side = Side()
    side.tls.abort()
    assert side.wire.aborted
    side.tls.data_received(side.peer.records())
    side.wire.feed_eof()
    side.wire.lose()
    assert side.told == []
    side.tls.resume_reading()
    assert not side.tls.is_reading()


def test_what_comes_before_the_start_waits_for_it() -> None:
    class Patient(Side):
        def connected(self, tls: TlsTransport) -> None:
            if tls.incoming.pending:
                super().connected(tls)

    side = Patient(client=False)
    side.peer.take(b"")
    side.wire.feed(side.peer.records())
    assert not side.wire.writes
    side.connected(side.tls)
    assert side.wire.writes


def test_what_openssl_takes_in_parts_arrives_whole() -> None:
    class Parts:
        def __init__(self, tls: ssl.SSLObject) -> None:
            self._tls = tls

        def write(self, data: bytes) -> int:
            return self._tls.write(data[:1000])

        def __getattr__(self, name: str) -> Any:
            return getattr(self._tls, name)

    class Slow(Side):
        def connected(self, tls: TlsTransport) -> None:
            made = client_context().wrap_bio(tls.incoming, tls.outgoing, server_hostname="service.example")
            tls.start(Parts(made))  # type: ignore[arg-type] # a double

    side = Slow()
    side.shake()
    side.tls.write(BODY)
    assert side.sent() == BODY


def test_an_answer_in_clear() -> None:
    side = Side(client=False)
    side.unsecured = lambda tls, error: tls.close_in_clear(b"no TLS")  # type: ignore[method-assign]
    side.wire.feed(b"GET / HTTP/1.1\r\n\r\n")
    assert side.wire.data == b"no TLS"
    assert side.wire.closing


@pytest.mark.parametrize(("name", "expected"), [("peername", ("127.0.0.1", 40000)), ("socket", None)])
def test_what_the_connection_below_knows(name: str, expected: Any) -> None:
    side = Side()
    assert side.tls.get_extra_info(name) == expected
    assert isinstance(side.tls.get_extra_info("ssl_object"), ssl.SSLObject)


def test_new_keys_and_tickets_are_no_data() -> None:
    """A renegotiation, which only TLS 1.2 has, is refused by the context; nothing of it is delivered."""
    side = Side(version="1.3")
    side.peer.take(side.wire.taken())
    side.wire.feed(side.peer.records())
    side.peer.take(side.wire.taken())
    tickets = side.peer.records()
    assert tickets
    side.wire.feed(tickets)
    assert side.line.data == b""
    assert side.line.events == []
    assert side.told == ["secured"]


def test_of_what_has_ended_nothing_of_openssl_is_kept() -> None:
    side = Side()
    side.shake()
    secured = weakref.ref(side.tls.get_extra_info("ssl_object"))
    assert secured() is not None
    side.tls.connection_lost(None)
    assert secured() is None
    side.tls.write(b"late")
    side.tls.data_received(b"late")
    side.tls.resume_reading()
    side.tls.close()
    assert side.line.events == [None]
