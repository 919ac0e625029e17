"""One question and one answer: as bytes (RFC 1035 section 4), and as much of them as endpoints need."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "AAAA",
    "NO_TARGET",
    "SRV",
    "A",
    "Answer",
    "Question",
    "ServiceRecord",
    "UnusableAnswerError",
    "by_number",
    "is_truncated",
    "serves_nobody",
    "wants_no_edns",
]

A, AAAA, SRV = 1, 28, 33  # RFC 1035 3.2.2, RFC 3596 2.1, RFC 2782
NO_TARGET = "."  # the service is decidedly not available (RFC 2782, Target)
UDP_PAYLOAD = 1232  # bytes that fit every path without fragments (https://www.dnsflagday.net/2020/)
MAX_TTL = 0x7FFFFFFF  # a TTL with the highest bit set is to be read as 0 (RFC 2181 section 8)
_HEAD = 12  # bytes
_TRUNCATED = 0x02  # of the third byte
_THE_NAME = 0xC00C  # a pointer to the question's (RFC 1035 4.1.4)
# Records as they are where the name is such a pointer: name, type, class, TTL, length, address (RFC 1035 3.2.1).
_ADDRESSES = {
    A: (struct.Struct("!HHHIH4s"), socket.AF_INET),
    AAAA: (struct.Struct("!HHHIH16s"), socket.AF_INET6),
}
_KINDS = {A: "A", AAAA: "AAAA", SRV: "SRV"}
# Recursion desired, one question, and for EDNS one additional record.
_PLAIN = b"\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"
_EXTENDED = b"\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01"
# The OPT record (RFC 6891 section 6.1.2): root, type 41, the payload as its class, no flags, no options.
_OPT = b"\x00\x00\x29" + UDP_PAYLOAD.to_bytes(2, "big") + bytes(6)
_MAPPED = bytes(10) + b"\xff\xff"  # an IPv4 address as one of IPv6 (RFC 4291 2.5.5.2)
_WITHOUT_QUESTION = (dns.rcode.FORMERR, dns.rcode.SERVFAIL, dns.rcode.NOTIMP, dns.rcode.REFUSED)
# What servers say that do not know EDNS (RFC 6891 section 7).
_WITHOUT_EDNS = (dns.rcode.FORMERR, dns.rcode.NOTIMP)


class UnusableAnswerError(Exception):
    """An answer to the question, and none to use. Its text says what it is, such as `SERVFAIL`."""


class ServiceRecord(NamedTuple):
    """One SRV record (RFC 2782). target: without a dot at its end; `NO_TARGET` for none."""

    priority: int
    target: str
    port: int
    weight: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server has said to one question.

    exists: False where it said that there is no such name (NXDOMAIN).
    addresses, services: what was asked for, sorted; none of either is NODATA.
    ttl: seconds, the least one over the chain of CNAMEs.
    follow: the name to ask for next, where a chain leaves what this server told; else empty.
    extra: addresses of targets that were told beside, each with its TTL.
    """

    exists: bool
    ttl: int
    addresses: tuple[str, ...] = ()
    services: tuple[ServiceRecord, ...] = ()
    follow: str = ""
    extra: Mapping[str, tuple[tuple[str, ...], int]] = field(default_factory=dict)

    def after(self, before: Answer) -> Answer:
        """The same, at the end of the chain that `before` began."""
        return replace(self, ttl=min(self.ttl, before.ttl))


class Question:
    """The name and the type that are asked for. name: complete, with or without a dot at its end, and checked."""

    __slots__ = ("_section", "_seen", "kind", "name")

    def __init__(self, name: str, kind: int) -> None:
        self.name = name
        self.kind = kind
        wire = (
            dns.name.from_text(name).to_wire() or b""
        )  # it would be None only for one that is written to a file
        self._section = wire + kind.to_bytes(2, "big") + b"\x00\x01"  # class IN
        # The last answer, read: the next one is mostly the same, and to read it takes longer than all else.
        self._seen: tuple[bytes, Answer] = (b"", Answer(exists=False, ttl=0))

    def __str__(self) -> str:
        """`backend.example (A)`."""
        return f"{self.name} ({_KINDS[self.kind]})"

    def query(self, number: int, extended: bool = True) -> bytes:
        """The message that asks it, with EDNS or without."""
        head = number.to_bytes(2, "big")
        return head + (_EXTENDED + self._section + _OPT if extended else _PLAIN + self._section)

    def answered_by(self, reply: bytes) -> bool:
        """Whether a message with the right number is a response, and to this question.

        Case does not matter, and a refusal may come without the question. Whatever else comes is somebody else's word.
        """
        if len(reply) < _HEAD or reply[2] & 0xF8 != 0x80:  # a response, to a query
            return False
        if reply[4:6] == b"\x00\x00":
            return reply[3] & 0x0F in _WITHOUT_QUESTION
        end = _HEAD + len(self._section)
        return reply[4:6] == b"\x00\x01" and reply[_HEAD:end].lower() == self._section.lower()

    def read(self, reply: bytes) -> Answer:
        """The answer in `reply`, one that is answered_by. Raises UnusableAnswerError."""
        if reply[2:] == self._seen[0]:
            return self._seen[1]
        answer = _read(reply, _HEAD + len(self._section), self.kind)
        self._seen = (reply[2:], answer)
        return answer


def is_truncated(reply: bytes) -> bool:
    """Whether there is more than came."""
    return bool(reply[2] & _TRUNCATED)


def wants_no_edns(reply: bytes) -> bool:
    """Whether the same question without EDNS may be answered."""
    return reply[3] & 0x0F in _WITHOUT_EDNS


def by_number(addresses: Iterable[str]) -> tuple[str, ...]:
    """Addresses without duplicates, IPv4 first, each family by its number: the same set in the same order."""
    return tuple(sorted(set(addresses), key=_number))


def serves_nobody(address: str) -> bool:
    """Whether nobody can be connected to there: an unspecified address or one of a group (multicast)."""
    packed = _number(address)[1]
    if packed.startswith(_MAPPED):
        packed = packed[12:]
    if len(packed) == 4:
        return packed == bytes(4) or 224 <= packed[0] <= 239
    return packed == bytes(16) or packed[0] == 0xFF


def _number(address: str) -> tuple[int, bytes, str]:
    bare, _, zone = address.partition("%")  # a literal of the configuration may have one
    packed = socket.inet_pton(socket.AF_INET6 if ":" in bare else socket.AF_INET, bare)
    return len(packed), packed, zone


def _read(reply: bytes, begin: int, kind: int) -> Answer:
    """The answer of a message with its records from `begin` on. Raises UnusableAnswerError."""
    code = reply[3] & 0x0F
    if code == dns.rcode.NOERROR and kind in _ADDRESSES:
        plain = _plain_addresses(reply, begin, kind)
        if plain is not None:
            return plain
    if code not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        raise UnusableAnswerError(dns.rcode.to_text(dns.rcode.Rcode(code)))
    try:
        message = dns.message.from_wire(reply)
        assert isinstance(message, dns.message.QueryMessage)
        return _answer(message)
    except dns.message.ChainTooLong:
        raise UnusableAnswerError("its CNAMEs go in a circle") from None
    except UnusableAnswerError:
        raise
    except Exception as error:  # whatever a reader of messages comes to, it is the message's fault
        words = " ".join(str(error).split())
        raise UnusableAnswerError(f"an answer that cannot be read ({words})") from None


def _plain_addresses(reply: bytes, begin: int, kind: int) -> Answer | None:
    """The answer of nothing but addresses of the very name, which most are; None for any other, for dnspython to read.

    It takes as long for one message as all the rest of the question and its answer: with twenty addresses 300 us.
    """
    records, family = _ADDRESSES[kind]
    count = int.from_bytes(reply[6:8], "big")
    end = begin + count * records.size
    if not count or len(reply) < end or reply[8:10] != b"\x00\x00":
        return None
    beside, rest = reply[10:12], reply[end:]
    if (beside, rest) != (b"\x00\x00", b"") and not (
        beside == b"\x00\x01" and len(rest) == len(_OPT) and rest[:3] == _OPT[:3] and not any(rest[5:])
    ):
        return None
    addresses = set()
    least = MAX_TTL
    for name, of, zone_class, ttl, size, packed in records.iter_unpack(reply[begin:end]):
        if (name, of, zone_class, size) != (_THE_NAME, kind, 1, len(packed)):
            return None
        addresses.add(packed)
        least = min(least, _seconds(ttl))
    found = tuple(socket.inet_ntop(family, packed) for packed in sorted(addresses))
    return Answer(exists=True, ttl=least, addresses=found)


def _answer(message: dns.message.QueryMessage) -> Answer:
    if message.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):  # EDNS has more of them, as BADVERS
        raise UnusableAnswerError(dns.rcode.to_text(message.rcode()))
    chain = message.resolve_chaining()
    found = chain.answer
    if found is None:
        ends = message.rcode() == dns.rcode.NXDOMAIN or not chain.cnames or _has_soa(message)
        follow = "" if ends else chain.canonical_name.to_text(omit_final_dot=True)
        return Answer(message.rcode() != dns.rcode.NXDOMAIN, _seconds(chain.minimum_ttl), follow=follow)
    ttl = min(_seconds(found.ttl), *(_seconds(cname.ttl) for cname in chain.cnames), MAX_TTL)
    if found.rdtype != dns.rdatatype.SRV:
        return Answer(exists=True, ttl=ttl, addresses=by_number(record.address for record in found))
    services = {
        ServiceRecord(one.priority, one.target.to_text(omit_final_dot=True), one.port, one.weight)
        for one in found
    }
    return Answer(exists=True, ttl=ttl, services=tuple(sorted(services)), extra=_extra(message.additional))


def _has_soa(message: dns.message.QueryMessage) -> bool:
    """Whether it speaks for the chain's end too: an answer that there is nothing carries the zone's SOA (RFC 2308)."""
    return any(there.rdtype == dns.rdatatype.SOA for there in message.authority)


def _extra(additional: list[dns.rrset.RRset]) -> dict[str, tuple[tuple[str, ...], int]]:
    extra: dict[str, tuple[tuple[str, ...], int]] = {}
    for there in additional:
        if there.rdclass == dns.rdataclass.IN and there.rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA):
            name = there.name.to_text(omit_final_dot=True).lower()
            before, ttl = extra.get(name, ((), MAX_TTL))
            addresses = by_number((*before, *(record.address for record in there)))
            extra[name] = addresses, min(ttl, _seconds(there.ttl))
    return extra


def _seconds(ttl: int) -> int:
    return ttl if ttl <= MAX_TTL else 0
