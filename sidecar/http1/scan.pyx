"""The head scanner of the compiled build: the usual head in one pass over its bytes, any other by `head`.

`scan_request` and `scan_response` are those of `head`, its twin, to the letter: they answer here what is complete,
valid and without anything that a proxy has to think about, and hand everything else (an error, an end that has not
come, HTTP/1.0, absolute-form, Upgrade, Expect, ...) to the twin. So there is one place that decides what is refused
and how that is said, and what stands here only has to be right about what it takes itself:
tests/property/test_scan_twin.py holds the two against each other.

A head that was scanned here has no lines. It remembers the bytes it came in and where not to copy from: the value
of Host, and the lines that end on this hop.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memchr, memcmp, memcpy

cdef extern from *:
    int __builtin_ctzll(unsigned long long)

from sidecar.http1.message cimport RequestHead, ResponseHead

from sidecar.http1 import head as twin
from sidecar.http1.fields import CONTROLS, TOKEN
from sidecar.http1.message import CHUNKED, HEAD_METHOD, NO_EXTRAS, UNTIL_CLOSE
from sidecar.model.stats import METHODS

__all__ = ["scan_request", "scan_response"]

cdef enum:
    MAX_CUTS = 4  # lines left out: Connection, Keep-Alive, Proxy-Connection, and one more
    MAX_DIGITS = 18
    MAX_HOST = 255

# What a line can mean here.
cdef enum:
    ORDINARY = 0
    HOST = 1
    LENGTH = 2
    CODING = 3
    CONNECTION = 4
    DROPPED = 5
    UNUSUAL = 6

cdef unsigned long long CASE = 0x2020202020202020, SPACES = 0x2020202020202020, DELETES = 0x7F7F7F7F7F7F7F7F
cdef unsigned long long ONES = 0x0101010101010101, HIGHS = 0x8080808080808080

cdef unsigned char LOWER[256]  # of a character of a token; 0 for any other
cdef bint VALUE[256]  # whether it may stand in a value
cdef bint TARGET[256]  # whether it may stand in a target
cdef bint AUTHORITY[256]  # whether it stands in the usual host name or IPv4 address
cdef int _chunked = CHUNKED, _until_close = UNTIL_CLOSE, _head_method = HEAD_METHOD
cdef int _max_lines = twin.MAX_LINES
cdef object _no_extras = NO_EXTRAS
cdef object _scan_request = twin.scan_request, _scan_response = twin.scan_response
cdef int _GET = METHODS.index("GET"), _HEAD = METHODS.index("HEAD"), _POST = METHODS.index("POST")
cdef int _PUT = METHODS.index("PUT"), _DELETE = METHODS.index("DELETE"), _PATCH = METHODS.index("PATCH")


cdef void _fill_tables():
    cdef int c
    for c in range(256):
        LOWER[c] = bytes([c]).lower()[0] if c in TOKEN else 0
        VALUE[c] = c not in CONTROLS
        TARGET[c] = c > 32 and c != 127
        AUTHORITY[c] = bytes([c]).isalnum() or c in b"-._"


_fill_tables()


cdef struct Cut:
    Py_ssize_t start  # offsets in the input
    Py_ssize_t end


cdef struct Fields:
    # What the lines of one head say. at: where the next line begins, after `_read_fields` behind the blank line.
    Py_ssize_t at
    Py_ssize_t host_from  # the colon behind Host
    Py_ssize_t host_to  # and the end of its line
    long long length  # -1: none
    bint chunked
    bint closes
    bint connection
    int cuts
    Cut cut[MAX_CUTS]


cdef inline unsigned long long _word(const void* text) noexcept:
    cdef unsigned long long word
    memcpy(&word, text, 8)
    return word


cdef inline bint _is(const unsigned char* name, const char* other, Py_ssize_t size) noexcept:
    """Whether a name is `other`, of letters, hyphens and underscores, in any case. Both have `size` bytes.

    Eight at a time, but for the bit that tells lower from upper case: of two characters of a token that differ in
    that bit alone, one is a letter, or neither is any of these.
    """
    cdef Py_ssize_t i
    if size >= 8:
        return (
            (_word(name) ^ _word(other)) | CASE == CASE
            and (_word(name + size - 8) ^ _word(other + size - 8)) | CASE == CASE
            and (size <= 16 or (_word(name + 8) ^ _word(other + 8)) | CASE == CASE)
        )
    for i in range(size):
        if LOWER[name[i]] != <unsigned char> other[i]:
            return False
    return True


cdef inline int _plain(const unsigned char* text) noexcept:
    """How many of the next eight bytes are no control characters, which tab, CR and DEL are too.

    Each byte at once: bit 7 of x - 32 shows a borrow, that of (x ^ 127) - 1 a DEL (Warren, Hacker's Delight, 6-1).
    A borrow can make the byte above look like one, never hide the first.
    """
    cdef unsigned long long x = _word(text), found
    found = ((x - SPACES) | ((x ^ DELETES) - ONES)) & ~x & HIGHS
    return __builtin_ctzll(found) >> 3 if found else 8


cdef int _kind(const unsigned char* name, Py_ssize_t size, bint request) noexcept:
    """What a field name means; it is a token."""
    if size == 4:
        return HOST if request and _is(name, b"host", 4) else ORDINARY
    if size == 10:
        if _is(name, b"connection", 10):
            return CONNECTION
        return DROPPED if _is(name, b"keep-alive", 10) else ORDINARY
    if size == 14:
        if _is(name, b"content-length", 14):
            return LENGTH
        if _is(name, b"http2-settings", 14):
            return DROPPED
        return UNUSUAL if request and _is(name, b"content_length", 14) else ORDINARY
    if size == 17:
        if _is(name, b"transfer-encoding", 17):
            return CODING
        return UNUSUAL if request and _is(name, b"transfer_encoding", 17) else ORDINARY
    if size == 16:
        return DROPPED if _is(name, b"proxy-connection", 16) else ORDINARY
    if size == 7:
        return UNUSUAL if _is(name, b"upgrade", 7) or _is(name, b"trailer", 7) else ORDINARY
    if size == 6:
        return UNUSUAL if _is(name, b"expect", 6) else ORDINARY
    if size == 12:
        return UNUSUAL if _is(name, b"max-forwards", 12) else ORDINARY
    if size == 2:
        return UNUSUAL if _is(name, b"te", 2) else ORDINARY
    return ORDINARY


cdef bint _is_usual_authority(const unsigned char* value, Py_ssize_t size) noexcept:
    """Whether a Host is a plain name or IPv4 address, perhaps with a port."""
    cdef Py_ssize_t i = 0
    cdef int port = 0
    if not 0 < size <= MAX_HOST:
        return False
    while i < size and AUTHORITY[value[i]]:
        i += 1
    if i == size:
        return True
    if value[i] != b":" or not i or not 1 <= size - i - 1 <= 5:
        return False
    for i in range(i + 1, size):
        if not b"0" <= value[i] <= b"9":
            return False
        port = port * 10 + (value[i] - <unsigned char> b"0")
    return port <= 65535


cdef bint _read_value(
    const unsigned char* text, Fields* fields, int kind, Py_ssize_t line, Py_ssize_t colon, Py_ssize_t end
) noexcept:
    """Take one line that means something: it begins at `line`, its CRLF is at `end`. False: it is the twin's."""
    cdef Py_ssize_t start = colon + 1, stop = end, size, i
    cdef long long length = 0
    while start < stop and (text[start] == b" " or text[start] == b"\t"):
        start += 1
    while stop > start and (text[stop - 1] == b" " or text[stop - 1] == b"\t"):
        stop -= 1
    size = stop - start
    if kind == HOST:
        if fields.host_to or not _is_usual_authority(text + start, size):
            return False
        fields.host_from = colon
        fields.host_to = end
        return True
    if kind == LENGTH:
        if fields.length >= 0 or not 1 <= size <= MAX_DIGITS or (text[start] == b"0" and size > 1):
            return False
        for i in range(start, stop):
            if not b"0" <= text[i] <= b"9":
                return False
            length = length * 10 + (text[i] - <unsigned char> b"0")
        fields.length = length
        return True
    if kind == CODING:
        if fields.chunked or end - colon != 9 or memcmp(text + colon, b": chunked", 9):
            return False
        fields.chunked = True
        return True
    if kind == CONNECTION:
        if fields.connection:
            return False
        if size == 5 and _is(text + start, b"close", 5):
            fields.closes = True
        elif size != 10 or not _is(text + start, b"keep-alive", 10):
            return False
        fields.connection = True
    elif kind == UNUSUAL:
        return False
    if fields.cuts == MAX_CUTS:
        return False
    fields.cut[fields.cuts].start = line
    fields.cut[fields.cuts].end = end + 2
    fields.cuts += 1
    return True


cdef bint _read_fields(const unsigned char* text, Py_ssize_t size, Fields* fields, bint request) noexcept:
    """Read the lines from `fields.at` to the blank one. False: the head is the twin's."""
    cdef Py_ssize_t line, at = fields.at, colon
    cdef int kind, plain, lines = 0
    fields.host_from = fields.host_to = 0
    fields.length = -1
    fields.chunked = fields.closes = fields.connection = False
    fields.cuts = 0
    # The input may be cut anywhere; a bytes object has a zero behind it, which belongs nowhere in a head.
    while True:
        line = at
        while LOWER[text[at]]:
            at += 1
        if text[at] != b":" or at == line:
            break
        colon = at
        while at + 8 <= size:
            plain = _plain(text + at)
            at += plain
            if plain < 8:
                break
        while VALUE[text[at]]:
            at += 1
        if text[at] != b"\r" or text[at + 1] != b"\n":
            return False
        kind = _kind(text + line, colon - line, request)
        if kind != ORDINARY and not _read_value(text, fields, kind, line, colon, at):
            return False
        lines += 1
        at += 2
    if at != line or text[at] != b"\r" or text[at + 1] != b"\n" or at + 2 > size or lines > _max_lines:
        return False
    fields.at = at + 2
    return not (fields.chunked and fields.length >= 0)


cdef inline Py_ssize_t _line_end(const unsigned char* text, Py_ssize_t at, Py_ssize_t stop) noexcept:
    """Where the line that holds `at` ends, before its CR LF; at `stop` at the latest."""
    cdef const unsigned char* found = <const unsigned char*> memchr(text + at, b"\r", stop - at)
    return stop if found is NULL else found - text


cdef class ScannedRequest(RequestHead):
    """A usual request head: the bytes it came in, and what of them does not go on."""

    cdef bytes _data
    cdef Py_ssize_t _start, _end, _host_from, _host_to
    cdef int _cuts
    cdef Cut _cut[MAX_CUTS]

    cpdef bytes field(self, bytes name):
        """See `RequestHead.field`. Every line has been looked at before: it has a name, a colon and an end."""
        cdef const unsigned char* text = <const unsigned char*> PyBytes_AS_STRING(self._data)
        cdef const unsigned char* wanted = <const unsigned char*> PyBytes_AS_STRING(name)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(name), at = self._start, end, stop = self._end, i
        while True:
            end = _line_end(text, at, stop)
            if end + 2 >= stop:
                return None
            at = end + 2
            if at + size < stop and text[at + size] == b":":
                i = 0
                while i < size and LOWER[text[at + i]] == wanted[i]:
                    i += 1
                if i == size:
                    end = _line_end(text, at, stop)
                    return self._data[at + size + 1:end].strip(b" \t")

    def unpacked(self):
        """See `RequestHead.unpacked`."""
        cdef list lines = self.render(b"")[:-4].split(b"\r\n")
        cdef RequestHead head = RequestHead(lines, self.method, self.target, self.minor, self.size)
        head.length = self.length
        head.keep_alive = self.keep_alive
        head._host = head.places(b"host")[0]
        return head

    def copy(self):
        """See `RequestHead.copy`."""
        return self.unpacked()

    cpdef bytes render(self, bytes authority, bytes body=b""):
        """See `RequestHead.render`."""
        cdef const char* text = PyBytes_AS_STRING(self._data)
        cdef Py_ssize_t named = PyBytes_GET_SIZE(authority), more = PyBytes_GET_SIZE(body)
        cdef Py_ssize_t size = self._end - self._start + more, at = self._start
        cdef int i = 0
        cdef bint host = named > 0
        cdef bytes made
        cdef char* out
        for i in range(self._cuts):
            size -= self._cut[i].end - self._cut[i].start
        if host:
            size += 2 + named - (self._host_to - self._host_from)
        made = PyBytes_FromStringAndSize(NULL, size)
        out = PyBytes_AS_STRING(made)
        i = 0
        while True:
            if host and (i == self._cuts or self._host_from < self._cut[i].start):
                memcpy(out, text + at, self._host_from - at)
                out += self._host_from - at
                memcpy(out, b": ", 2)
                memcpy(out + 2, PyBytes_AS_STRING(authority), named)
                out += 2 + named
                at = self._host_to
                host = False
            elif i < self._cuts:
                memcpy(out, text + at, self._cut[i].start - at)
                out += self._cut[i].start - at
                at = self._cut[i].end
                i += 1
            else:
                break
        memcpy(out, text + at, self._end - at)
        memcpy(out + (self._end - at), PyBytes_AS_STRING(body), more)
        return made


cdef class ScannedResponse(ResponseHead):
    """A usual response head: the bytes it came in, and what of them does not go on."""

    cdef bytes _data
    cdef Py_ssize_t _start, _end
    cdef int _cuts
    cdef Cut _cut[MAX_CUTS]

    cpdef bytes render(self, bytes extra, bytes data=b"", Py_ssize_t at=0):
        """See `ResponseHead.render`."""
        if self._lines is not None:
            return ResponseHead.render(self, extra, data, at)
        cdef const char* text = PyBytes_AS_STRING(self._data)
        cdef Py_ssize_t added = PyBytes_GET_SIZE(extra), more = PyBytes_GET_SIZE(data) - at
        cdef Py_ssize_t size = self._end - self._start + added + more, head = self._start
        cdef int i
        cdef bytes made
        cdef char* out
        for i in range(self._cuts):
            size -= self._cut[i].end - self._cut[i].start
        made = PyBytes_FromStringAndSize(NULL, size)
        out = PyBytes_AS_STRING(made)
        for i in range(self._cuts):
            memcpy(out, text + head, self._cut[i].start - head)
            out += self._cut[i].start - head
            head = self._cut[i].end
        memcpy(out, text + head, self._end - 2 - head)
        out += self._end - 2 - head
        memcpy(out, PyBytes_AS_STRING(extra), added)
        memcpy(out + added, b"\r\n", 2)
        memcpy(out + added + 2, PyBytes_AS_STRING(data) + at, more)
        return made

    cpdef drop_coding(self):
        """See `ResponseHead.drop_coding`."""
        self._unpack()
        ResponseHead.drop_coding(self)

    cpdef drop_framing(self):
        """See `ResponseHead.drop_framing`."""
        self._unpack()
        ResponseHead.drop_framing(self)

    def edit(self, fixed, added):
        """See `ResponseHead.edit`."""
        self._unpack()
        ResponseHead.edit(self, fixed, added)

    cdef _unpack(self):
        """Give it lines: somebody wants to take some of them out."""
        if self._lines is None:
            self._lines = self.render(b"")[:-4].split(b"\r\n")


cdef inline bint _is_http11(const unsigned char* text) noexcept:
    # As one comparison, which reads no further than the first byte that differs.
    return (
        text[0] == b"H" and text[1] == b"T" and text[2] == b"T" and text[3] == b"P"
        and text[4] == b"/" and text[5] == b"1" and text[6] == b"." and text[7] == b"1"
    )


cdef inline int _method(const unsigned char* text, Py_ssize_t* size) noexcept:
    """The index of a usual method, and its size with the space behind it; -1: the twin's."""
    if text[0] == b"G" and text[1] == b"E" and text[2] == b"T" and text[3] == b" ":
        size[0] = 4
        return _GET
    if text[0] == b"P":
        if text[1] == b"O" and text[2] == b"S" and text[3] == b"T" and text[4] == b" ":
            size[0] = 5
            return _POST
        if text[1] == b"U" and text[2] == b"T" and text[3] == b" ":
            size[0] = 4
            return _PUT
        if text[1] == b"A" and text[2] == b"T" and text[3] == b"C" and text[4] == b"H" and text[5] == b" ":
            size[0] = 6
            return _PATCH
    if text[0] == b"H" and text[1] == b"E" and text[2] == b"A" and text[3] == b"D" and text[4] == b" ":
        size[0] = 5
        return _HEAD
    if (
        text[0] == b"D" and text[1] == b"E" and text[2] == b"L" and text[3] == b"E" and text[4] == b"T"
        and text[5] == b"E" and text[6] == b" "
    ):
        size[0] = 7
        return _DELETE
    return -1


cpdef RequestHead scan_request(bytes data, Py_ssize_t start=0, Py_ssize_t limit=65536):
    """`head.scan_request`, faster for the usual head."""
    cdef const unsigned char* text = <const unsigned char*> PyBytes_AS_STRING(data)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(data), at = start, target, skip = 0
    cdef int method
    cdef Fields fields
    cdef ScannedRequest head
    if 0 <= start < size:
        method = _method(text + at, &skip)
        at += skip
        if method >= 0 and text[at] == b"/":
            target = at
            while TARGET[text[at]]:
                at += 1
            if text[at] == b" " and _is_http11(text + at + 1) and text[at + 9] == b"\r" and text[at + 10] == b"\n":
                fields.at = at + 11
                if _read_fields(text, size, &fields, True) and fields.host_to and fields.at - start <= limit:
                    head = ScannedRequest.__new__(ScannedRequest)
                    head._data = data
                    head._start = start
                    head._end = fields.at
                    head._host_from = fields.host_from
                    head._host_to = fields.host_to
                    head._cuts = fields.cuts
                    memcpy(head._cut, fields.cut, fields.cuts * sizeof(Cut))
                    head.method = method
                    head.target = PyBytes_FromStringAndSize(<const char*> text + target, at - target)
                    head.minor = 1
                    head.length = _chunked if fields.chunked else (fields.length if fields.length > 0 else 0)
                    head.size = fields.at - start
                    head.keep_alive = not fields.closes
                    head.extras = _no_extras
                    return head
    return _scan_request(data, start, limit)


cpdef ResponseHead scan_response(bytes data, Py_ssize_t start, int method, Py_ssize_t limit=65536):
    """`head.scan_response`, faster for the usual head."""
    cdef const unsigned char* text = <const unsigned char*> PyBytes_AS_STRING(data)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(data), at = start
    cdef int status
    cdef Fields fields
    cdef ScannedResponse head
    if (
        0 <= start < size and _is_http11(text + at) and text[at + 8] == b" " and b"2" <= text[at + 9] <= b"5"
        and b"0" <= text[at + 10] <= b"9" and b"0" <= text[at + 11] <= b"9"
    ):
        status = (text[at + 9] - 48) * 100 + (text[at + 10] - 48) * 10 + (text[at + 11] - 48)
        at += 12
        if text[at] == b" ":
            while VALUE[text[at]]:
                at += 1
        if text[at] == b"\r" and text[at + 1] == b"\n":
            fields.at = at + 2
            if _read_fields(text, size, &fields, False) and fields.at - start <= limit:
                if status == 204 and (fields.chunked or fields.length >= 0):
                    return _scan_response(data, start, method, limit)
                head = ScannedResponse.__new__(ScannedResponse)
                head._data = data
                head._start = start
                head._end = fields.at
                head._cuts = fields.cuts
                memcpy(head._cut, fields.cut, fields.cuts * sizeof(Cut))
                head.status = status
                head.minor = 1
                head.size = fields.at - start
                head.keep_alive = not fields.closes
                head.passes_whole = not fields.cuts
                head.extras = _no_extras
                if status == 204 or status == 304 or method == _head_method:
                    head.length = 0
                elif fields.chunked:
                    head.length = _chunked
                elif fields.length >= 0:
                    head.length = fields.length
                else:
                    head.length = _until_close
                    head.keep_alive = False
                return head
    return _scan_response(data, start, method, limit)
