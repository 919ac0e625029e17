"""The bytes of the matrix: every way known of saying how long a message is, and of saying it so that two disagree.

`%(n)d` stands for the length of the body, `%(cut)d` for where in it a second, hidden message begins.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

__all__ = [
    "BODIES",
    "CHUNKS",
    "CODINGS",
    "HIDDEN",
    "LENGTHS",
    "REQUESTS",
    "RESPONSE",
    "UNDERSCORED",
    "WRONG_HOSTS",
    "Body",
    "bodies",
    "chunked_bodies",
    "framed",
    "hidden",
    "request",
]

CR, LF = b"\r", b"\n"


def hidden(target: bytes = b"/smuggled") -> bytes:
    """The request that nobody is to take for one while it is part of a body."""
    return b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n"


HIDDEN = hidden()
# The same for responses: a status that nobody else sends.
RESPONSE = b"HTTP/1.1 299 Smuggled\r\nContent-Length: 0\r\n\r\n"

# Header lines with their line ends. The absent ones make the pairs of each form with nothing.
LENGTHS = {
    "absent": b"",
    "right": b"Content-Length: %(n)d\r\n",
    "up to the hidden request": b"Content-Length: %(cut)d\r\n",
    "too long": b"Content-Length: %(long)d\r\n",
    "zero": b"Content-Length: 0\r\n",
    "lower case": b"content-length: %(n)d\r\n",
    "upper case": b"CONTENT-LENGTH: %(n)d\r\n",
    "no blank": b"Content-Length:%(n)d\r\n",
    "many blanks": b"Content-Length:   %(n)d   \r\n",
    "tabs": b"Content-Length:\t%(n)d\t\r\n",
    "twice the same": b"Content-Length: %(n)d\r\nContent-Length: %(n)d\r\n",
    "twice, right first": b"Content-Length: %(n)d\r\nContent-Length: %(cut)d\r\n",
    "twice, right last": b"Content-Length: %(cut)d\r\nContent-Length: %(n)d\r\n",
    "twice, with another between": b"Content-Length: %(n)d\r\nX: y\r\ncontent-length: %(cut)d\r\n",
    "twice, one empty": b"Content-Length: %(n)d\r\nContent-Length:\r\n",
    "a list of equals": b"Content-Length: %(n)d, %(n)d\r\n",
    "a list, right first": b"Content-Length: %(n)d, %(cut)d\r\n",
    "a list, right last": b"Content-Length: %(cut)d,%(n)d\r\n",
    "a list with an empty element": b"Content-Length: %(n)d,\r\n",
    "plus": b"Content-Length: +%(n)d\r\n",
    "minus": b"Content-Length: -%(n)d\r\n",
    "minus one": b"Content-Length: -1\r\n",
    "hexadecimal": b"Content-Length: 0x%(n)x\r\n",
    "hexadecimal letters": b"Content-Length: %(n)xh\r\n",
    "octal": b"Content-Length: 0o%(n)o\r\n",
    "an underscore in the number": b"Content-Length: 1_0\r\n",
    "a leading zero": b"Content-Length: 0%(n)d\r\n",
    "many leading zeros": b"Content-Length: 000000000000%(n)d\r\n",
    "a blank in the number": b"Content-Length: 1 %(n)d\r\n",
    "a fraction": b"Content-Length: %(n)d.0\r\n",
    "an exponent": b"Content-Length: 1e1\r\n",
    "empty": b"Content-Length:\r\n",
    "blank": b"Content-Length: \r\n",
    "a word behind": b"Content-Length: %(n)d bytes\r\n",
    "a semicolon behind": b"Content-Length: %(n)d;\r\n",
    "a letter before": b"Content-Length: x%(n)d\r\n",
    "quoted": b'Content-Length: "%(n)d"\r\n',
    "a dash": b"Content-Length: %(n)d-%(n)d\r\n",
    "18 digits": b"Content-Length: 999999999999999999\r\n",
    "beyond 64 bits": b"Content-Length: %(wrapped)d\r\n",
    "huge": b"Content-Length: 99999999999999999999999999\r\n",
    "Arabic digits": "Content-Length: \u0661\r\n".encode(),
    "folded": b"Content-Length:\r\n %(n)d\r\n",
    "folded by a tab": b"Content-Length:\r\n\t%(n)d\r\n",
    "folded behind": b"Content-Length: %(n)d\r\n 0\r\n",
    "a folded line of another": b"X: y\r\n Content-Length: %(n)d\r\n",
    "a blank before the colon": b"Content-Length : %(n)d\r\n",
    "a tab before the colon": b"Content-Length\t: %(n)d\r\n",
    "a blank before the name": b" Content-Length: %(n)d\r\n",
    "no colon": b"Content-Length %(n)d\r\n",
    "two colons": b"Content-Length:: %(n)d\r\n",
    "a blank in the name": b"Content Length: %(n)d\r\n",
    "no dash in the name": b"ContentLength: %(n)d\r\n",
    "vertical tab before": b"Content-Length:\x0b%(n)d\r\n",
    "vertical tab behind": b"Content-Length: %(n)d\x0b\r\n",
    "form feed before": b"Content-Length: \x0c%(n)d\r\n",
    "NUL before": b"Content-Length: \x00%(n)d\r\n",
    "NUL behind": b"Content-Length: %(n)d\x00\r\n",
    "NUL in the name": b"Content-Length\x00: %(n)d\r\n",
    "NBSP before": b"Content-Length: \xa0%(n)d\r\n",
    "NBSP behind": b"Content-Length: %(n)d\xa0\r\n",
    "NBSP behind the name": b"Content-Length\xa0: %(n)d\r\n",
    "DEL behind": b"Content-Length: %(n)d\x7f\r\n",
    "backspace before": b"Content-Length: 9\x08%(n)d\r\n",
    "behind a bare LF": b"X: y\nContent-Length: %(n)d\r\n",
    "behind a bare CR": b"X: y\rContent-Length: %(n)d\r\n",
    "ended by a bare LF": b"Content-Length: %(n)d\nX: y\r\n",
    "behind two CRs": b"X: y\r\r\nContent-Length: %(n)d\r\n",
    "a bare CR in the number": b"Content-Length: %(n)d\r0\r\n",
    "nominated in Connection": b"Connection: content-length\r\nContent-Length: %(n)d\r\n",
    "nominated after": b"Content-Length: %(n)d\r\nConnection: close, Content-Length\r\n",
    "in another's value": b"X: Content-Length: %(n)d\r\n",
    "a prefix": b"X-Content-Length: %(n)d\r\n",
}

CODINGS = {
    "absent": b"",
    "chunked": b"Transfer-Encoding: chunked\r\n",
    "lower-case name": b"transfer-encoding: chunked\r\n",
    "upper-case name": b"TRANSFER-ENCODING: chunked\r\n",
    "no blank": b"Transfer-Encoding:chunked\r\n",
    "many blanks": b"Transfer-Encoding:   chunked   \r\n",
    "tabs": b"Transfer-Encoding:\tchunked\t\r\n",
    "twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    "twice, identity last": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    "twice, identity first": b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
    "twice, a word last": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: cow\r\n",
    "twice, a word first": b"Transfer-Encoding: x\r\ntransfer-encoding: chunked\r\n",
    "twice, with another between": b"Transfer-Encoding: chunked\r\nX: y\r\nTransfer-encoding: cow\r\n",
    "identity": b"Transfer-Encoding: identity\r\n",
    "a list, identity first": b"Transfer-Encoding: identity, chunked\r\n",
    "a list, identity last": b"Transfer-Encoding: chunked, identity\r\n",
    "a list, gzip first": b"Transfer-Encoding: gzip, chunked\r\n",
    "a list, gzip last": b"Transfer-Encoding: chunked, gzip\r\n",
    "a list, chunked twice": b"Transfer-Encoding: chunked, chunked\r\n",
    "a list, an empty element first": b"Transfer-Encoding: , chunked\r\n",
    "a list, an empty element last": b"Transfer-Encoding: chunked,\r\n",
    "a list without a comma": b"Transfer-Encoding: identity chunked\r\n",
    "x-chunked": b"Transfer-Encoding: x-chunked\r\n",
    "xchunked": b"Transfer-Encoding: xchunked\r\n",
    "chunkedx": b"Transfer-Encoding: chunkedx\r\n",
    "chunk": b"Transfer-Encoding: chunk\r\n",
    "cow": b"Transfer-Encoding: cow\r\n",
    "gzip": b"Transfer-Encoding: gzip\r\n",
    "double quotes": b'Transfer-Encoding: "chunked"\r\n',
    "single quotes": b"Transfer-Encoding: 'chunked'\r\n",
    "brackets": b"Transfer-Encoding: [chunked]\r\n",
    "a parameter": b"Transfer-Encoding: chunked;q=1\r\n",
    "an empty parameter": b"Transfer-Encoding: chunked;\r\n",
    "chunked in a parameter": b'Transfer-Encoding: x;a=", chunked"\r\n',
    "a word behind": b"Transfer-Encoding: chunked x\r\n",
    "a word before": b"Transfer-Encoding: x chunked\r\n",
    "a dash before": b"Transfer-Encoding: -chunked\r\n",
    "a colon before": b"Transfer-Encoding: :chunked\r\n",
    "two colons": b"Transfer-Encoding:: chunked\r\n",
    "no colon": b"Transfer-Encoding chunked\r\n",
    "an equals sign": b"Transfer-Encoding=chunked\r\n",
    "an encoded word": b"Transfer-Encoding: =?utf-8?Q?chunked?=\r\n",
    "a Kelvin sign": "Transfer-Encoding: chun\u212aed\r\n".encode(),
    "empty": b"Transfer-Encoding:\r\n",
    "blank": b"Transfer-Encoding: \r\n",
    "folded": b"Transfer-Encoding:\r\n chunked\r\n",
    "folded by a tab": b"Transfer-Encoding:\r\n\tchunked\r\n",
    "folded behind": b"Transfer-Encoding: chunked\r\n , identity\r\n",
    "a folded line of another": b"X: y\r\n Transfer-Encoding: chunked\r\n",
    "a blank before the colon": b"Transfer-Encoding : chunked\r\n",
    "a tab before the colon": b"Transfer-Encoding\t: chunked\r\n",
    "a blank before the name": b" Transfer-Encoding: chunked\r\n",
    "a blank in the name": b"Transfer Encoding: chunked\r\n",
    "no dash in the name": b"TransferEncoding: chunked\r\n",
    "vertical tab before": b"Transfer-Encoding:\x0bchunked\r\n",
    "vertical tab behind": b"Transfer-Encoding: chunked\x0b\r\n",
    "form feed before": b"Transfer-Encoding: \x0cchunked\r\n",
    "NUL before": b"Transfer-Encoding: \x00chunked\r\n",
    "NUL behind": b"Transfer-Encoding: chunked\x00\r\n",
    "NUL in the name": b"Transfer-Encoding\x00: chunked\r\n",
    "NBSP before": b"Transfer-Encoding: \xa0chunked\r\n",
    "NBSP behind": b"Transfer-Encoding: chunked\xa0\r\n",
    "NBSP behind the name": b"Transfer-Encoding\xa0: chunked\r\n",
    "0xFF behind": b"Transfer-Encoding: chunked\xff\r\n",
    "DEL behind": b"Transfer-Encoding: chunked\x7f\r\n",
    "behind a bare LF": b"X: y\nTransfer-Encoding: chunked\r\n",
    "behind a bare CR": b"X: y\rTransfer-Encoding: chunked\r\n",
    "ended by a bare LF": b"Transfer-Encoding: chunked\nX: y\r\n",
    "LF before the value": b"Transfer-Encoding:\nchunked\r\n",
    "CR before the value": b"Transfer-Encoding:\rchunked\r\n",
    "LF before the name": b"\nTransfer-Encoding: chunked\r\n",
    "CR before the name": b"\rTransfer-Encoding: chunked\r\n",
    "behind two CRs": b"X: y\r\r\nTransfer-Encoding: chunked\r\n",
    "a CR in the value": b"Transfer-Encoding: chunked\r, identity\r\n",
    "nominated in Connection": b"Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n",
    "nominated after": b"Transfer-Encoding: chunked\r\nConnection: close, transfer-encoding\r\n",
    "in another's value": b"X: Transfer-Encoding: chunked\r\n",
    "in TE": b"TE: chunked\r\n",
    "a prefix": b"X-Transfer-Encoding: chunked\r\n",
    "the old name": b"Content-Transfer-Encoding: chunked\r\n",
}

# Legal names that mean nothing, except to who makes them into variables of an environment (RFC 3875 4.1.18).
UNDERSCORED = {
    "length in full": b"Content_Length: %(n)d\r\n",
    "length up to the hidden request": b"Content_Length: %(cut)d\r\n",
    "coding": b"Transfer_Encoding: chunked\r\n",
}

# Not of the form host:port (RFC 9110 7.2), though of its characters.
WRONG_HOSTS = {
    "a word for the port": b"Host: localhost:http\r\n",
    "two ports": b"Host: localhost:80:8080\r\n",
    "half a bracket": b"Host: [::1\r\n",
}


@dataclass(frozen=True, slots=True)
class Body:
    """What stands behind the head. cut: where in it the hidden request begins, or some other place."""

    data: bytes
    cut: int


def _body(before: bytes, concealed: bytes = b"", after: bytes = b"") -> Body:
    return Body(before + concealed + after, len(before) if concealed else min(4, len(before)))


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def bodies(concealed: bytes = HIDDEN) -> dict[str, Body]:
    """The shapes of a body, with this message in those that hide one."""
    size = b"%x\r\n" % len(concealed)
    return {
        "none": _body(b""),
        "plain": _body(b"hello, world"),
        "plain, hiding": _body(b"x=", concealed),
        "hidden alone": _body(b"", concealed),
        "chunked": _body(_chunk(b"hello") + b"0\r\n\r\n"),
        "chunked, hiding": _body(size, concealed, b"\r\n0\r\n\r\n"),
        "chunked to its end, hidden behind": _body(b"0\r\n\r\n", concealed),
        "chunked, broken off": _body(b"20\r\nhello"),
    }


BODIES = bodies()


def framed(lines: bytes, body: Body) -> bytes:
    """Header lines with the numbers of that body in them."""
    size = len(body.data)
    numbers = {b"n": size, b"cut": body.cut, b"long": size + 7, b"wrapped": (1 << 64) + body.cut}
    return lines % numbers if b"%(" in lines else lines


def request(
    lines: bytes, body: bytes, *, method: bytes = b"POST", target: bytes = b"/first", version: bytes = b"1.1"
) -> bytes:
    """One request with a Host; lines: further header lines with their ends."""
    return b"%b %b HTTP/%b\r\nHost: localhost:8080\r\n%b\r\n%b" % (method, target, version, lines, body)


def _chunked_bodies(concealed: bytes) -> Iterator[tuple[str, bytes]]:
    """Bodies behind `Transfer-Encoding: chunked`: liberties with the framing of chunks."""
    size = len(concealed)
    data = concealed + b"\r\n0\r\n\r\n"
    written = {
        "hexadecimal": b"%x",
        "upper case": b"%X",
        "leading zeros": b"0000%x",
        "15 digits": b"%015x",
        "16 digits": b"%016x",
        "many leading zeros": b"00000000000000000000000000%x",
        "0x": b"0x%x",
        "0X": b"0X%x",
        "x": b"x%x",
        "h": b"%xh",
        "plus": b"+%x",
        "minus": b"-%x",
        "an underscore": b"0_%x",
        "a blank before": b" %x",
        "a tab before": b"\t%x",
        "a blank behind": b"%x ",
        "a tab behind": b"%x\t",
        "a blank between": b"%x 0",
        "a word behind": b"%x bytes",
        "a comma": b"%x,0",
        "a dot": b"%x.0",
        "quotes": b'"%x"',
        "NUL behind": b"%x\x00",
        "NUL before": b"\x00%x",
        "vertical tab behind": b"%x\x0b",
        "form feed before": b"\x0c%x",
        "NBSP behind": b"%x\xa0",
        "CR behind": b"%x\r",
        "DEL behind": b"%x\x7f",
        "an exponent": b"%xe0g",
        "a colon": b"%x:",
        "an equals sign": b"%x=",
        "a hash": b"%x#",
    }
    for name, form in written.items():
        yield f"size: {name}", form % size + b"\r\n" + data
        yield f"last size: {name}", _chunk(b"hello") + form % 0 + b"\r\n\r\n" + concealed
    for bits in (31, 32, 63, 64):
        for label, surplus in (("0", 0), ("the right one", size), ("5", 5)):
            yield f"size: 2**{bits} + {label}", b"%x\r\n" % ((1 << bits) + surplus) + data
    yield "size: -1 in 64 bits", b"ffffffffffffffff\r\n" + data
    yield "size: empty", b"\r\n" + data
    yield "size: a blank", b" \r\n" + data
    yield "size: a word", b"size\r\n" + data
    extensions = {
        "a name": b";a",
        "a value": b";a=b",
        "a quoted value": b';a="b c"',
        "a semicolon in quotes": b';a=";b"',
        "an escaped quote": b';a="\\""',
        "several": b";a;b=c;d",
        "blanks around": b" ; a = b",
        "nothing": b";",
        "nothing twice": b";;",
        "a value without a name": b";=b",
        "a name without its value": b";a=",
        "an open quote": b';a="',
        "a blank in it": b";a b",
        "a number": b";0",
        "a comma": b";a,b",
        "UTF-8": b";\xc3\xa9",
        "NUL": b";a\x00",
        "a vertical tab": b";a\x0b",
        "a bare LF": b";a\n",
        "a bare LF and more": b";a\nb",
        "a bare LF at once": b";\n",
        "a bare LF and a size": b";a\n0",
        "a bare CR": b";a\rb",
        "a bare CR at its end": b";a\r",
        "a bare CR at once": b";\r",
        "a bare LF in quotes": b';a="\nb"',
        "CRLF in quotes": b';a="\r\nb"',
        "CRLF in quotes, then the end of the body": b';a="\r\n0\r\n\r\n"',
        "a request": b";GET /smuggled HTTP/1.1",
        "much": b";" + b"a" * 2000,
    }
    for name, extension in extensions.items():
        yield f"extension: {name}", b"%x%b\r\n" % (size, extension) + data
        yield f"extension of the last: {name}", _chunk(b"hello") + b"0%b\r\n\r\n" % extension + concealed
    ends = {
        "none": b"",
        "LF": LF,
        "CR": CR,
        "LF CR": b"\n\r",
        "CR CR LF": b"\r\r\n",
        "two bytes": b"XX",
        "a blank and CRLF": b" \r\n",
        "CRLF twice": b"\r\n\r\n",
    }
    for name, end in ends.items():
        yield f"end of data: {name}", b"%x\r\n%b%b0\r\n\r\n" % (size, concealed, end)
        yield f"end of size: {name}", b"%x%b%b" % (size, end, data)
        yield f"end of the last size: {name}", b"0%b\r\n%b" % (end, concealed)
        yield f"end of the body: {name}", b"0\r\n%b%b" % (end, concealed)
        yield f"end of all: {name}", b"0%b%b%b" % (end, end, concealed)
    yield "size one short", b"%x\r\n" % (size - 1) + data
    yield "size two short", b"%x\r\n" % (size - 2) + data
    yield "size one long", b"%x\r\n" % (size + 1) + data
    yield "size two long", b"%x\r\n" % (size + 2) + data
    yield "no last chunk", b"%x\r\n%b\r\n" % (size, concealed)
    yield "no end", b"%x\r\n%b\r\n0\r\n" % (size, concealed)
    yield "half a size", b"%x" % size
    trailers = {
        "an ordinary one": b"X-Checksum: 1\r\n",
        "a length": b"Content-Length: %d\r\n" % size,
        "a coding": b"Transfer-Encoding: chunked\r\n",
        "both": b"Transfer-Encoding: chunked\r\nContent-Length: %d\r\n" % size,
        "a Host": b"Host: other\r\n",
        "Connection": b"Connection: close, Host\r\n",
        "Trailer": b"Trailer: Content-Length\r\n",
        "Upgrade": b"Connection: upgrade\r\nUpgrade: h2c\r\n",
        "Expect": b"Expect: 100-continue\r\n",
        "a blank before the colon": b"Content-Length : %d\r\n" % size,
        "a fold": b"X: y\r\n Content-Length: %d\r\n" % size,
        "a blank first": b" X: y\r\n",
        "a bare LF": b"X: y\nContent-Length: %d\r\n" % size,
        "a bare CR": b"X: y\rContent-Length: %d\r\n" % size,
        "NUL": b"X: \x00\r\n",
        "no colon": b"X\r\n",
        "no name": b": y\r\n",
        "a request line": b"GET /smuggled HTTP/1.1\r\nHost: x\r\n",
        "a request line with a colon": b"GET /smuggled?a: HTTP/1.1\r\nHost: x\r\n",
        "a bare LF alone": LF,
        "a bare CR alone": CR,
        "too many": b"X: y\r\n" * 2000,
    }
    for name, lines in trailers.items():
        yield f"trailer: {name}", _chunk(b"hello") + b"0\r\n" + lines + b"\r\n" + concealed


def chunked_bodies(concealed: bytes = HIDDEN) -> dict[str, bytes]:
    """Bodies behind `Transfer-Encoding: chunked`, with this message in them or behind them."""
    return dict(_chunked_bodies(concealed))


CHUNKS = chunked_bodies()


def _requests() -> Iterator[tuple[str, bytes]]:
    """Whole heads: liberties with the request line and with Host, and what asks for another protocol."""
    host = b"Host: localhost:8080\r\n"
    long = b"Content-Length: %d\r\n" % len(HIDDEN)
    request_lines = {
        "usual": b"POST /first HTTP/1.1",
        "two blanks before the target": b"POST  /first HTTP/1.1",
        "two blanks behind the target": b"POST /first  HTTP/1.1",
        "a blank behind": b"POST /first HTTP/1.1 ",
        "a blank before": b" POST /first HTTP/1.1",
        "a tab before the target": b"POST\t/first HTTP/1.1",
        "a tab behind the target": b"POST /first\tHTTP/1.1",
        "tabs alone": b"POST\t/first\tHTTP/1.1",
        "a vertical tab": b"POST /first\x0bHTTP/1.1",
        "a form feed": b"POST /first\x0cHTTP/1.1 HTTP/1.1",
        "a NUL": b"POST /first\x00 HTTP/1.1",
        "a CR": b"POST /first\r HTTP/1.1",
        "CRs for blanks": b"POST\r/first\rHTTP/1.1",
        "a CR behind": b"POST /first HTTP/1.1\r",
        "a LF behind": b"POST /first HTTP/1.1\n",
        "a LF before": b"\nPOST /first HTTP/1.1",
        "a CR before": b"\rPOST /first HTTP/1.1",
        "an empty line before": b"\r\nPOST /first HTTP/1.1",
        "two empty lines before": b"\r\n\r\nPOST /first HTTP/1.1",
        "an empty line with a blank before": b" \r\nPOST /first HTTP/1.1",
        "the version twice": b"POST /first HTTP/1.1 HTTP/1.1",
        "another target": b"POST /first /second HTTP/1.1",
        "a second request": b"POST /first HTTP/1.1GET /smuggled HTTP/1.1",
        "a second request in the target": b"POST /first%0d%0aGET%20/smuggled HTTP/1.1",
        "a bare LF in the target": b"POST /first\nGET /smuggled HTTP/1.1",
        "a header in it": b"POST /first HTTP/1.1\rTransfer-Encoding: chunked",
        "no version": b"POST /first",
        "a blank for the version": b"POST /first ",
        "HTTP/0.9": b"POST /first HTTP/0.9",
        "HTTP/1.2": b"POST /first HTTP/1.2",
        "HTTP/1.10": b"POST /first HTTP/1.10",
        "HTTP/01.1": b"POST /first HTTP/01.1",
        "HTTP/1.": b"POST /first HTTP/1.",
        "HTTP/1": b"POST /first HTTP/1",
        "HTTP/2.0": b"POST /first HTTP/2.0",
        "lower-case version": b"POST /first http/1.1",
        "a comma in the version": b"POST /first HTTP/1,1",
        "a suffix": b"POST /first HTTP/1.1x",
        "a prefix": b"POST /first xHTTP/1.1",
        "lower-case method": b"post /first HTTP/1.1",
        "an unknown method": b"BREW /first HTTP/1.1",
        "a method with a colon": b"POST: /first HTTP/1.1",
        "a method in quotes": b'"POST" /first HTTP/1.1',
        "a slash in the method": b"P/OST /first HTTP/1.1",
        "GET": b"GET /first HTTP/1.1",
        "HEAD": b"HEAD /first HTTP/1.1",
        "OPTIONS": b"OPTIONS * HTTP/1.1",
        "TRACE": b"TRACE /first HTTP/1.1",
        "CONNECT": b"CONNECT localhost:8080 HTTP/1.1",
        "CONNECT a path": b"CONNECT /first HTTP/1.1",
        "an asterisk": b"POST * HTTP/1.1",
        "no slash": b"POST first HTTP/1.1",
        "a back-slash": b"POST \\first HTTP/1.1",
        "an authority": b"POST localhost:8080 HTTP/1.1",
        "two slashes": b"POST //first HTTP/1.1",
        "a fragment": b"POST /first#x HTTP/1.1",
        "UTF-8": "POST /fürst HTTP/1.1".encode(),
        "NBSP": b"POST /first\xa0HTTP/1.1 HTTP/1.1",
        "absolute": b"POST http://localhost:8080/first HTTP/1.1",
        "absolute in capitals": b"POST HTTP://LOCALHOST:8080/first HTTP/1.1",
        "absolute, another host": b"POST http://other/first HTTP/1.1",
        "absolute, a user": b"POST http://localhost:8080@other/first HTTP/1.1",
        "absolute, no path": b"POST http://localhost:8080 HTTP/1.1",
        "absolute, a query alone": b"POST http://localhost:8080?first HTTP/1.1",
        "absolute, no host": b"POST http:///first HTTP/1.1",
        "absolute, https": b"POST https://localhost:8080/first HTTP/1.1",
        "absolute, ftp": b"POST ftp://localhost:8080/first HTTP/1.1",
        "absolute, one slash": b"POST http:/localhost:8080/first HTTP/1.1",
    }
    for name, line in request_lines.items():
        yield f"request line: {name}", b"%b\r\n%b%b\r\n%b" % (line, host, long, HIDDEN)
        yield f"request line without a body: {name}", b"%b\r\n%b\r\n" % (line, host)
    hosts = {
        "none": b"",
        "empty": b"Host:\r\n",
        "twice": host + host,
        "twice, another": host + b"Host: other\r\n",
        "twice, in another case": host + b"hOsT: other\r\n",
        "a list": b"Host: localhost:8080, other\r\n",
        "two words": b"Host: localhost:8080 other\r\n",
        "a path": b"Host: localhost:8080/x\r\n",
        "a user": b"Host: localhost:8080@other\r\n",
        "a URL": b"Host: http://localhost:8080\r\n",
        "no port": b"Host: localhost:\r\n",
        "IPv6": b"Host: [::1]:8080\r\n",
        "a tab": b"Host:\tlocalhost\r\n",
        "a blank before the colon": b"Host : localhost\r\n",
        "folded": b"Host: localhost\r\n other\r\n",
        "folded first": b" X: y\r\n" + host,
        "NUL": b"Host: localhost\x00other\r\n",
        "NBSP": b"Host: localhost\xa0\r\n",
        "UTF-8": "Host: lokalhöst\r\n".encode(),
        "nominated": host + b"Connection: Host\r\n",
        "X-Forwarded-Host": host + b"X-Forwarded-Host: other\r\n",
        "behind a bare LF": b"X: y\nHost: localhost\r\n",
        "in the third line": b"X: y\r\nZ: y\r\n" + host,
    }
    for name, lines in hosts.items():
        yield f"Host: {name}", b"POST /first HTTP/1.1\r\n%b%b\r\n%b" % (lines, long, HIDDEN)
        yield f"Host in HTTP/1.0: {name}", b"POST /first HTTP/1.0\r\n%b%b\r\n%b" % (lines, long, HIDDEN)
    asking = {
        "Expect": b"Expect: 100-continue\r\n",
        "Expect in capitals": b"EXPECT: 100-CONTINUE\r\n",
        "Expect with more": b"Expect: y 100-continue\r\n",
        "Expect twice": b"Expect: 100-continue\r\nExpect: 100-continue\r\n",
        "Expect behind a new line": b"Expect:\r\n 100-continue\r\n",
        "Expect something": b"Expect: the-unexpected\r\n",
        "WebSocket": b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
        "h2c": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
        "h2c and WebSocket": b"Connection: upgrade\r\nUpgrade: h2c, websocket\r\n",
        "h2c twice": b"Connection: upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n",
        "Upgrade alone": b"Upgrade: websocket\r\n",
        "Connection alone": b"Connection: upgrade\r\n",
        "TLS": b"Connection: upgrade\r\nUpgrade: TLS/1.0\r\n",
        "TE": b"TE: trailers\r\nConnection: TE\r\n",
        "TE chunked": b"TE: chunked\r\n",
        "Trailer": b"Trailer: Content-Length, Transfer-Encoding\r\n",
        "Keep-Alive": b"Keep-Alive: timeout=5\r\nConnection: keep-alive\r\n",
        "Proxy-Connection": b"Proxy-Connection: keep-alive, Transfer-Encoding\r\n",
        "Connection with all": b"Connection: Host, Content-Length, Transfer-Encoding, Connection, close\r\n",
        "Connection twice": b"Connection: keep-alive\r\nConnection: close\r\n",
        "Connection with blanks": b"Connection: , ,\tkeep-alive,,\r\n",
        "Connection in quotes": b'Connection: "close"\r\n',
        "a method override": b"X-HTTP-Method-Override: GET\r\n",
    }
    framings: Iterable[tuple[str, bytes, bytes]] = (
        ("a hiding body", long, HIDDEN),
        ("a hiding chunk", CODINGS["chunked"], BODIES["chunked, hiding"].data),
        ("no framing", b"", HIDDEN),
        ("a length of nothing", b"Content-Length: 0\r\n", HIDDEN),
        ("a body to come", b"Content-Length: %d\r\n" % (2 * len(HIDDEN)), HIDDEN),
        ("both", long + CODINGS["chunked"], BODIES["chunked to its end, hidden behind"].data),
    )
    for name, lines in asking.items():
        for kind, framing, body in framings:
            yield f"{name}: {kind}", request(lines + framing, body)
            yield (
                f"protocols: {kind}, {name}, HTTP/1.0",
                request(framing + lines, body, method=b"GET", version=b"1.0"),
            )


REQUESTS = dict(_requests())
