"""Three readers of HTTP/1.1 that describe what they read in one way: ours, h11 and httptools.

`Ours` drives the scanners and body readers as DownstreamConnection and UpstreamConnection do, piece by piece,
and keeps what would go on to the other side. `read_h11` and `read_httptools` are what the two sides of a
proxy are often made of. A `Reading` of each says the same things, so that two of them can be compared.
"""

from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import h11
import httptools

from sidecar.errors import ProtocolError
from sidecar.http1 import (
    BodyReader,
    ChunkedReader,
    LengthReader,
    RequestHead,
    ResponseHead,
    UntilCloseReader,
    scan_request,
    scan_response,
)
from sidecar.http1.head import CHUNKED, UNTIL_CLOSE
from sidecar.model.stats import METHODS

__all__ = [
    "READERS",
    "Ending",
    "Kind",
    "Message",
    "Ours",
    "Reading",
    "read_h11",
    "read_httptools",
    "read_ours",
]

Fields = tuple[tuple[bytes, bytes], ...]

NO_LIMIT = 1 << 30  # h11 bounds an unfinished event; what is compared here is meaning
SWITCHING = 101
NOT_FOUND = 404


class Kind(Enum):
    """What is read: requests, or the responses to GET or to HEAD. The value is that method."""

    REQUESTS = b""
    RESPONSES = b"GET"
    HEAD_RESPONSES = b"HEAD"


class Ending(Enum):
    """Why reading stopped."""

    WAITING = "for more bytes, or for the end of a body that lasts until close"
    CLOSES = "the last message ends the connection"
    SWITCHES = "another protocol follows"
    REFUSED = "the bytes are not acceptable"


@dataclass(frozen=True, slots=True)
class Message:
    """One message, complete or begun.

    method, target: of a request; status: of a response (else 0). minor: x of HTTP/1.x.
    fields, trailers: names in lower case and values without white space around them, in order.
    body: its data, without any framing. whole: the end has come. end: offset in the input behind it.
    keep_alive: another message may follow it on the connection.
    """

    method: bytes
    target: bytes
    status: int
    minor: int
    fields: Fields
    body: bytes = b""
    trailers: Fields = ()
    whole: bool = False
    end: int = 0
    keep_alive: bool = True

    def values(self, name: bytes) -> list[bytes]:
        """The values of the fields of that name."""
        return [value for key, value in self.fields if key == name]

    def members(self, name: bytes) -> list[bytes]:
        """The members of the lists in those fields, in lower case."""
        return [part.strip(b" \t") for value in self.values(name) for part in value.lower().split(b",")]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a reader made of some bytes; only the last message may be begun only. error: why it refused."""

    messages: tuple[Message, ...]
    ending: Ending
    error: str = ""


def field(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    """A field in the form that is compared; transfer codings have no case (RFC 9112 section 7)."""
    name, value = name.lower(), value.strip(b" \t")
    return name, value.lower() if name == b"transfer-encoding" else value


# Ours


def fields_of(lines: list[bytes]) -> Fields:
    """The fields in the lines of a head or trailer section that was accepted."""
    return tuple(field(name, value) for name, _, value in (line.partition(b":") for line in lines))


def decoded(wire: bytes) -> tuple[bytes, Fields]:
    """Data and trailers of a chunked body that was accepted, read in the plainest way."""
    data = b""
    while True:
        line, _, wire = wire.partition(b"\r\n")
        size = int(line.partition(b";")[0], 16)
        if not size:
            return data, fields_of(wire.split(b"\r\n")[:-2])
        data, wire = data + wire[:size], wire[size + 2 :]


class Ours:
    """Our side of one connection, fed piece by piece.

    forwarded: for each message what goes on to the other side. reframe: give a body that lasts until close
    out in chunks, as a client of HTTP/1.1 gets it. error: the refusal.
    """

    def __init__(self, kind: Kind, *, reframe: bool = False) -> None:
        self.messages: list[Message] = []
        self.forwarded: list[bytes] = []
        self.ending = Ending.WAITING
        self.error: ProtocolError | None = None
        self._kind = kind
        self._reframe = reframe
        self._wire = b""  # all that has come
        self._at = 0  # offset of what is not consumed yet
        self._waiting = False  # what is not consumed is a head that has begun
        self._body_at = 0
        self._reader: BodyReader | None = None  # of the body that is going on
        self._decoder: BodyReader | None = None  # the same once more, for its data

    @property
    def reading(self) -> Reading:
        """What was made of all that has come."""
        return Reading(tuple(self.messages), self.ending, str(self.error or ""))

    @property
    def finished(self) -> list[bytes]:
        """`forwarded`, once the other side has closed after a body that lasts until then."""
        reader = self._reader
        if isinstance(reader, UntilCloseReader):
            return [*self.forwarded[:-1], self.forwarded[-1] + reader.ending]
        return self.forwarded

    def feed(self, piece: bytes) -> None:
        """Bytes have come. What comes behind a refusal, a last message or a switch is thrown away."""
        if self.ending is not Ending.WAITING:
            return
        self._wire += piece
        if self._waiting and b"\n" not in piece and not self._may_be_refused(piece):
            return
        try:
            if self._reader is not None:
                self._feed_body(piece, 0, len(self._wire) - len(piece))
            while self._reader is None and self.ending is Ending.WAITING and self._at < len(self._wire):
                if not self._skip_empty_line() and not self._feed_head():
                    return
        except ProtocolError as error:
            self.error = error
            self.ending = Ending.REFUSED
            if self._reader is not None:
                self.forwarded[-1] += error.passed

    def _may_be_refused(self, piece: bytes) -> bool:
        """Whether a head that has begun is looked at again though no line has ended, as the connections do."""
        begun = self._wire[self._at : len(self._wire) - len(piece)]
        return (
            b"\r" in piece or begun.endswith(b"\r") or (self._kind is not Kind.REQUESTS and len(begun) <= 7)
        )

    def _skip_empty_line(self) -> bool:
        """Whether an empty line stood before a request line, as may be (RFC 9112 2.2), or has begun to."""
        at = self._at
        if self._kind is not Kind.REQUESTS or not b"\r\n".startswith(self._wire[at : at + 2]):
            return False
        self._waiting = self._wire[at:] == b"\r"
        self._at = at if self._waiting else at + 2
        return not self._waiting

    def _feed_head(self) -> bool:
        """Whether a head has come."""
        data, at = self._wire, self._at
        if data[at:] == b"\r" and self._kind is Kind.REQUESTS:
            return False
        head: RequestHead | ResponseHead | None
        if self._kind is Kind.REQUESTS:
            head = scan_request(data, at)
        else:
            head = scan_response(data, at, METHODS.index(self._kind.value.decode()))
        self._waiting = head is None
        if head is None:
            return False
        self._at = self._body_at = at + head.size
        self._begin(head, data[at : self._at - 4].split(b"\r\n"))
        return True

    def _begin(self, head: RequestHead | ResponseHead, lines: list[bytes]) -> None:
        """A message has begun: what it says, and what of it goes on."""
        first, fields = lines[0].split(b" ", 2), fields_of(lines[1:])
        if isinstance(head, RequestHead):
            message = Message(first[0], first[1], 0, head.minor, fields, keep_alive=head.keep_alive)
            rendered = head.render(b"")
        else:
            interim = head.status < 200  # whatever it says, the final response follows
            keep_alive = interim or head.keep_alive
            message = Message(b"", b"", head.status, head.minor, fields, keep_alive=keep_alive)
            reframed = self._reframe and head.length == UNTIL_CLOSE
            rendered = head.render(b"Transfer-Encoding: chunked\r\n" if reframed else b"")
        self.messages.append(replace(message, end=self._at))
        self.forwarded.append(rendered)
        if head.length == CHUNKED:
            self._reader, self._decoder = chunked_reader(message), ChunkedReader(decode=True)
        elif head.length == UNTIL_CLOSE:
            self._reader = UntilCloseReader(reframe=self._reframe)
            self._decoder = UntilCloseReader(reframe=False)
        elif head.length:
            self._reader, self._decoder = LengthReader(head.length), LengthReader(head.length)
        else:
            self._complete(())
            return
        self._feed_body(self._wire, self._at, 0)

    def _feed_body(self, data: bytes, start: int, offset: int) -> None:
        """More of a body; `data` stands at `offset` of all that has come."""
        assert self._reader is not None
        assert self._decoder is not None
        try:
            piece, end = self._reader.feed(data, start)
        except ProtocolError:
            self._end_refused(data, start)
            raise
        body, same_end = self._decoder.feed(data, start)
        assert (self._reader.done, end) == (self._decoder.done, same_end), "decoding changes no framing"
        self.forwarded[-1] += piece
        last = self.messages[-1]
        self._at = min(offset + end, len(self._wire))
        self.messages[-1] = replace(last, body=last.body + body, end=self._at)
        if self._reader.done:
            trailers: Fields = ()
            if isinstance(self._reader, ChunkedReader):
                plain, trailers = decoded(self._wire[self._body_at : self._at])
                assert plain == self.messages[-1].body, "the data is what the chunks hold"
            self._reader = self._decoder = None
            self._complete(trailers)

    def _end_refused(self, data: bytes, start: int) -> None:
        """What of a body's data came before the fault."""
        assert self._decoder is not None
        try:
            self._decoder.feed(data, start)
        except ProtocolError as error:
            last = self.messages[-1]
            self.messages[-1] = replace(last, body=last.body + error.passed)
            return
        raise AssertionError("decoding refuses the same bodies")

    def _complete(self, trailers: Fields) -> None:
        last = self.messages[-1] = replace(self.messages[-1], whole=True, trailers=trailers)
        if last.status == SWITCHING:
            self.ending = Ending.SWITCHES
        elif not last.keep_alive:
            self.ending = Ending.CLOSES


def chunked_reader(message: Message) -> ChunkedReader:
    """The reader of a chunked body that goes on, told which trailers were announced."""
    return ChunkedReader(frozenset(message.members(b"trailer")))


def read_ours(wire: bytes, kind: Kind) -> Reading:
    """What our side makes of `wire`, whole."""
    ours = Ours(kind)
    ours.feed(wire)
    return ours.reading


# h11


def read_h11(wire: bytes, kind: Kind) -> Reading:
    """What h11 makes of `wire`, as a server or as a client; a new connection goes on where one message ended."""
    messages: list[Message] = []
    at = 0
    while at < len(wire):
        try:
            ending = _read_h11_exchange(wire, at, kind, messages)
        except h11.RemoteProtocolError as error:
            return Reading(tuple(messages), Ending.REFUSED, str(error))
        if ending is not None:
            return Reading(tuple(messages), ending)
        at = messages[-1].end
    return Reading(tuple(messages), Ending.WAITING)


def _read_h11_exchange(wire: bytes, start: int, kind: Kind, messages: list[Message]) -> Ending | None:
    """One message, with the interim ones before it; None when another may follow."""
    role = h11.SERVER if kind is Kind.REQUESTS else h11.CLIENT
    connection = h11.Connection(our_role=role, max_incomplete_event_size=NO_LIMIT)
    if kind is not Kind.REQUESTS:  # a request that allows for a switch, so that 101 is an answer to it
        asked = h11.Request(method=kind.value, target="/", headers=[("Host", "a"), ("Upgrade", "any")])
        connection.send(asked)
        connection.send(h11.EndOfMessage())
    connection.receive_data(wire[start:])
    while True:
        event = connection.next_event()
        end = len(wire) - len(connection.trailing_data[0])
        if isinstance(event, h11.Request | h11.Response | h11.InformationalResponse):
            interim = isinstance(event, h11.InformationalResponse)
            messages.append(
                Message(
                    event.method if isinstance(event, h11.Request) else b"",
                    event.target if isinstance(event, h11.Request) else b"",
                    0 if isinstance(event, h11.Request) else event.status_code,
                    int(event.http_version[2:]),
                    tuple(field(name, value) for name, value in event.headers),
                    whole=interim,
                    end=end,
                )
            )
            if interim and messages[-1].status == SWITCHING:
                return Ending.SWITCHES
        elif isinstance(event, h11.Data):
            messages[-1] = replace(messages[-1], body=messages[-1].body + bytes(event.data), end=end)
        elif isinstance(event, h11.EndOfMessage):
            trailers = tuple(field(name, value) for name, value in event.headers)
            keep_alive = _h11_goes_on(connection)
            messages[-1] = replace(
                messages[-1], whole=True, trailers=trailers, end=end, keep_alive=keep_alive
            )
            return None if keep_alive else Ending.CLOSES
        else:
            return Ending.WAITING


def _h11_goes_on(connection: h11.Connection) -> bool:
    """Whether the connection lives on after the message that has ended; a request is answered for that."""
    if connection.our_role is h11.SERVER:
        connection.send(h11.Response(status_code=NOT_FOUND, headers=[("Content-Length", "0")]))
        connection.send(h11.EndOfMessage())
        return connection.our_state is h11.DONE
    return connection.their_state is h11.DONE


# httptools


class _Listener:
    """httptools' callbacks, in the order in which they come."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.parser: Any = None
        self.at = 0  # offset behind the byte that is being fed
        self._first = b""
        self._fields: list[tuple[bytes, bytes]] = []

    def on_message_begin(self) -> None:
        self._first = b""
        self._fields = []

    def on_url(self, url: bytes) -> None:
        self._first += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append(field(name, value))

    def on_headers_complete(self) -> None:
        request = isinstance(self.parser, httptools.HttpRequestParser)
        method = self.parser.get_method() if request else b""
        status = 0 if request else self.parser.get_status_code()
        minor = int(self.parser.get_http_version().partition(".")[2])
        self.messages.append(Message(method, self._first, status, minor, tuple(self._fields), end=self.at))
        self._fields = []

    def on_body(self, body: bytes) -> None:
        last = self.messages[-1]
        self.messages[-1] = replace(last, body=last.body + body, end=self.at)

    def on_message_complete(self) -> None:
        last = self.messages[-1]
        keep_alive = 100 <= last.status < 200 or self.parser.should_keep_alive()
        trailers = tuple(self._fields)
        self.messages[-1] = replace(last, whole=True, trailers=trailers, end=self.at, keep_alive=keep_alive)


def read_httptools(wire: bytes, kind: Kind) -> Reading:
    """What httptools makes of `wire`, byte by byte, as only so it tells where a message ends.

    It cannot be told that a response answers HEAD, and so reads only the first head of those.
    """
    listener = _Listener()
    make = httptools.HttpRequestParser if kind is Kind.REQUESTS else httptools.HttpResponseParser
    listener.parser = make(listener)
    ending = Ending.WAITING
    error = ""
    for at in range(len(wire)):
        listener.at = at + 1
        try:
            listener.parser.feed_data(wire[at : at + 1])
        except httptools.HttpParserUpgrade:
            ending = Ending.SWITCHES
        except httptools.HttpParserError as problem:
            ending, error = Ending.REFUSED, f"{type(problem).__name__}: {problem}"
        messages = listener.messages
        if messages and messages[-1].status == SWITCHING:
            ending = Ending.SWITCHES
        elif messages and messages[-1].whole and not messages[-1].keep_alive and ending is Ending.WAITING:
            ending = Ending.CLOSES
        if ending is not Ending.WAITING or (messages and kind is Kind.HEAD_RESPONSES):
            break
    return Reading(tuple(listener.messages), ending, error)


READERS = {"h11": read_h11, "httptools": read_httptools}
