"""Any bytes as a name server's answer: read, or refused in one line; and the quick reader says what dnspython does."""

import socket

import dns.message
from hypothesis import given, settings
from hypothesis import strategies as st
from support.dns import rrsets

from sidecar.registry.dns import answer
from sidecar.registry.dns.answer import AAAA, SRV, A, Answer, Question, UnusableAnswerError, by_number

NAME = "backend.example"
KINDS = {A: "A", AAAA: "AAAA"}
ttls = st.one_of(st.integers(0, 300), st.sampled_from([2**31 - 1, 2**31, 2**32 - 1]))
addresses = {A: st.ip_addresses(v=4).map(str), AAAA: st.ip_addresses(v=6).map(str)}


def response(question: Question, lines: list[str], extended: bool) -> bytes:
    made = dns.message.make_response(dns.message.from_wire(question.query(7, extended)))
    made.answer += rrsets(*lines)
    return made.to_wire(max_size=65535)


def outcome(read: object) -> Answer | str:
    try:
        return read()  # type: ignore[operator,no-any-return]
    except UnusableAnswerError as error:
        return str(error)


def is_told(found: Answer | str) -> bool:
    return isinstance(found, Answer) or (found != "" and "\n" not in found)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.data(), st.sampled_from([A, AAAA]), st.booleans(), ttls)
def test_addresses_are_what_dnspython_reads(data: st.DataObject, kind: int, extended: bool, ttl: int) -> None:
    found = data.draw(st.lists(addresses[kind], min_size=1, max_size=40))
    question = Question(NAME, kind)
    reply = response(question, [f"{NAME} {ttl} {KINDS[kind]} {one}" for one in found], extended)
    plain = answer._plain_addresses(reply, len(question.query(7, extended=False)), kind)
    assert plain == answer._answer(dns.message.from_wire(reply))  # type: ignore[arg-type]
    assert plain is not None
    family = socket.AF_INET6 if kind == AAAA else socket.AF_INET
    assert plain.addresses == by_number(
        socket.inet_ntop(family, socket.inet_pton(family, one)) for one in found
    )
    assert plain.ttl == (ttl if ttl < 2**31 else 0)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.data(), st.sampled_from([A, AAAA]), st.booleans())
def test_what_is_broken_is_read_alike_by_both_or_by_dnspython_alone(
    data: st.DataObject, kind: int, extended: bool
) -> None:
    question = Question(NAME, kind)
    found = data.draw(st.lists(addresses[kind], min_size=1, max_size=3))
    reply = bytearray(response(question, [f"{NAME} 30 {KINDS[kind]} {one}" for one in found], extended))
    begin = len(question.query(7, extended=False))
    for _ in range(data.draw(st.integers(0, 3))):
        # Not the question, and of the head the counts alone: all else is looked at before.
        place = data.draw(st.one_of(st.integers(6, 11), st.integers(begin, len(reply) - 1)))
        reply[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(begin, len(reply)))
    wire = bytes(reply[:cut]) if data.draw(st.booleans()) else bytes(reply)
    plain = answer._plain_addresses(wire, begin, kind)
    if plain is not None:
        message = dns.message.from_wire(wire)
        assert isinstance(message, dns.message.QueryMessage)
        assert plain == answer._answer(message)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.sampled_from([A, AAAA, SRV]), st.binary(max_size=200))
def test_any_bytes_are_an_answer_or_a_refusal(kind: int, tail: bytes) -> None:
    question = Question(NAME, kind)
    head = question.query(7, extended=False)
    reply = head[:2] + b"\x81\x80\x00\x01" + tail[:6].ljust(6, b"\x00") + head[12:] + tail[6:]
    assert question.answered_by(reply)
    assert is_told(outcome(lambda: question.read(reply)))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.binary(max_size=60))
def test_any_bytes_at_all_are_looked_at(reply: bytes) -> None:
    question = Question(NAME, A)
    if question.answered_by(reply):
        assert is_told(outcome(lambda: question.read(reply)))
