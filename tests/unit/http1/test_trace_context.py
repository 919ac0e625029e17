"""W3C Trace Context, level 2: what is valid, what begins a new trace, and what goes on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.http1.trace_context import (
    MAX_MEMBERS,
    RANDOM,
    SAMPLED,
    TraceParent,
    read_trace_id,
    read_traceparent,
    read_tracestate,
    render_traceparent,
)

TRACE = b"0af7651916cd43dd8448eb211c80319c"
PARENT = b"b7ad6b7169203331"
VALID = b"00-%b-%b-01" % (TRACE, PARENT)


@pytest.mark.parametrize(
    ("digits", "flags"),
    [
        (b"00", 0),
        (b"01", SAMPLED),
        (b"02", RANDOM),
        (b"03", SAMPLED | RANDOM),
        (b"ff", SAMPLED | RANDOM),  # what the others mean, nobody has said
        (b"fc", 0),
    ],
)
def test_flags(digits: bytes, flags: int) -> None:
    found = read_traceparent(b"00-%b-%b-%b" % (TRACE, PARENT, digits))
    assert found == TraceParent(TRACE, PARENT, flags)
    assert found.sampled is bool(flags & SAMPLED)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"00",
        VALID[:-1],
        VALID[:-3],
        VALID + b"0",
        VALID + b"-",
        VALID + b"-more",  # of version 00 that is all there is
        b" " + VALID,
        VALID + b"\n",
        VALID.replace(b"-", b"_"),
        VALID.replace(b"-", b""),
        VALID.replace(TRACE, TRACE.upper()),
        VALID.replace(PARENT, PARENT.upper()),
        VALID[:-2] + b"0A",
        b"0A" + VALID[2:],
        VALID.replace(TRACE, b"0" * 32),
        VALID.replace(PARENT, b"0" * 16),
        VALID.replace(TRACE, TRACE[1:]),
        VALID.replace(TRACE, TRACE + b"0"),
        VALID.replace(PARENT, PARENT[1:]),
        VALID.replace(PARENT, PARENT + b"0"),
        VALID.replace(TRACE, b"g" + TRACE[1:]),
        VALID.replace(PARENT, b"." + PARENT[1:]),
        VALID[:-2] + b"0x",
        b"ff" + VALID[2:],
        b"ff" + VALID[2:] + b"-more",
        b"0" + VALID[2:],
        b"000" + VALID[2:],
        b"zz" + VALID[2:],
        b"cc" + VALID[2:] + b"more",  # a later version goes on behind a hyphen, or not at all
        b"cc" + VALID[2:] + b".",
        b"\xc2\xb20" + VALID[2:],
        VALID + b"," + VALID,
    ],
)
def test_what_is_malformed(value: bytes) -> None:
    assert read_traceparent(value) is None
    assert read_trace_id(value) is None


@pytest.mark.parametrize("more", [b"", b"-", b"-what-the-future-will-be-like", b"-\n"])
def test_a_later_version_is_read_as_far_as_it_is_known(more: bytes) -> None:
    assert read_traceparent(b"cc" + VALID[2:] + more) == TraceParent(TRACE, PARENT, SAMPLED)


def hexadecimal(size: int) -> st.SearchStrategy[bytes]:
    return st.text("0123456789abcdef", min_size=size, max_size=size).map(str.encode)


@given(
    trace=hexadecimal(32).filter(lambda text: text.strip(b"0")),
    parent=hexadecimal(16).filter(lambda text: text.strip(b"0")),
    flags=st.integers(0, 3),
)
def test_what_is_rendered_is_read(trace: bytes, parent: bytes, flags: int) -> None:
    value = render_traceparent(trace, parent, flags)
    assert len(value) == 55
    assert read_traceparent(value) == TraceParent(trace, parent, flags)
    assert read_trace_id(value) == trace


@given(st.binary(max_size=70) | st.text("0123456789abcdef-", min_size=50, max_size=60).map(str.encode))
def test_what_is_read_can_go_on(value: bytes) -> None:
    found = read_traceparent(value)
    assert read_trace_id(value) == (None if found is None else found.trace_id)
    if found is not None:
        assert read_traceparent(render_traceparent(found.trace_id, found.parent_id, found.flags)) == found


@pytest.mark.parametrize(
    ("values", "members"),
    [
        ([], []),
        ([b""], []),
        ([b"a=1"], [(b"a", b"1")]),
        ([b"a=1,b=2"], [(b"a", b"1"), (b"b", b"2")]),
        ([b"a=1 \t, \tb=2", b"c=3"], [(b"a", b"1"), (b"b", b"2"), (b"c", b"3")]),
        ([b"a=1,,b=2,"], [(b"a", b"1"), (b"b", b"2")]),
        ([b"fw529a3039@dt=FfSgQ0oZ"], [(b"fw529a3039@dt", b"FfSgQ0oZ")]),
        ([b'0_-*/@=!"#+-:;<>~ x'], [(b"0_-*/@", b'!"#+-:;<>~ x')]),
        ([b"a" * 256 + b"=" + b"b" * 256], [(b"a" * 256, b"b" * 256)]),
    ],
)
def test_members_of_a_tracestate(values: list[bytes], members: list[tuple[bytes, bytes]]) -> None:
    assert read_tracestate(values) == members


@pytest.mark.parametrize(
    "value",
    [
        b"a",
        b"=1",
        b"a=",
        b"a= ",
        b"A=1",
        b"_a=1",
        b"a b=1",
        b"a =1",
        b"a=1=2",
        b"a=\x7f",
        b"a=\xe9",
        b"a=1\tx",
        b"a=1,b",
        b"a=1,a=2",
        b"a=1;b=2=3",
        b"a" * 257 + b"=1",
        b"a=" + b"b" * 257,
    ],
)
def test_what_is_no_tracestate(value: bytes) -> None:
    assert read_tracestate([value]) is None


def test_a_tracestate_has_a_bound() -> None:
    members = [b"k%d=1" % number for number in range(MAX_MEMBERS)]
    assert read_tracestate([b",".join(members)]) is not None
    assert read_tracestate([b",".join(members), b"one=more"]) is None
    assert read_tracestate([b"a=1", b"a=2"]) is None, "twice, in two fields"
