"""Copies of requests for another upstream: of which, how many, and that the request itself waits for none."""

from typing import Any

import pytest
from support.transports import MemoryTransport
from unit.proxy.harness import ok, request
from unit.proxy.routed import Routed

from sidecar.model import Snapshot
from sidecar.proxy.follow import follow_times
from sidecar.proxy.front import Front
from sidecar.proxy.header_rules import Edits, FieldRules
from sidecar.proxy.mirror import MAX_ANSWER, MAX_BODY, Copies, Nobody


class Mirrored(Routed):
    """`one` is mirrored to `two`; requests come through a router that knows only `one`."""

    def __init__(self, share: float = 1.0, most: int = 64, **keywords: Any) -> None:
        super().__init__("one two", {"targets": [("one", 1)]}, **keywords)
        one, two = self.others["one"], self.others["two"]
        self.copies = Copies(self.context, two, one.stats, share, most)  # type: ignore[arg-type] # a double
        one.front = Front(mirror=self.copies)

    def asked(self, *pieces: bytes) -> tuple[MemoryTransport, MemoryTransport]:
        """A client's request, with its endpoint's connection."""
        client = self.client(*pieces)
        return client, self.accept()

    @property
    def mirrored(self) -> list[int]:
        """Sent, dropped, skipped."""
        return list(self.others["one"].stats.mirrored)

    def finish(self) -> None:
        """See `Routed.finish`; copies end as the process does."""
        self.loop.turn()
        for member in tuple(self.context.sweep.members):
            if isinstance(member, Nobody):
                member.shut()
                member.shut()  # is nothing the second time
        assert self.copies.in_flight == 0
        super().finish()


def host_of(transport: MemoryTransport) -> str:
    host: str = transport.protocol.endpoint.endpoint.host
    return host


def test_a_copy_goes_to_the_mirror_and_its_answer_nowhere() -> None:
    proxy = Mirrored()
    client, endpoint = proxy.asked(request("POST /a?b", "X-Id: 7", "Content-Length: 2", body=b"hi"))
    assert host_of(endpoint) == "10.0.1.1"
    assert b"x-sidecar-mirrored" not in endpoint.data
    mirror = proxy.accept()
    assert host_of(mirror) == "10.0.1.2"
    assert mirror.data.startswith(b"POST /a?b HTTP/1.1\r\n")
    assert b"Host: 10.0.1.2:80\r\n" in mirror.data
    assert b"X-Id: 7\r\n" in mirror.data
    assert mirror.data.endswith(b"\r\nx-sidecar-mirrored: 1\r\n\r\nhi")
    mirror.feed(ok(b"unheard"))
    assert client.data == b""
    endpoint.feed(ok(b"heard"))
    assert client.data.endswith(b"\r\n\r\nheard")
    assert proxy.counts("one") == proxy.counts("two") == {("2xx", "none"): 1}
    assert proxy.mirrored == [1, 0, 0]
    assert not mirror.closing  # it rests for the next copy
    assert proxy.copies.in_flight == 0
    proxy.finish()


def test_the_request_goes_first() -> None:
    proxy = Mirrored()
    _, endpoint = proxy.asked(request())
    endpoint.feed(ok())
    proxy.accept().feed(ok())
    proxy.client(request())
    assert [transport.protocol.exchange is not None for transport in proxy.upstreams] == [True, False]
    proxy.loop.turn()
    assert [transport.protocol.exchange is not None for transport in proxy.upstreams] == [True, True]
    proxy.finish()


@pytest.mark.parametrize(("chance", "sent"), [(0.0, 1), (0.09, 1), (0.1, 0), (0.9, 0)])
def test_a_share_of_them(chance: float, sent: int) -> None:
    proxy = Mirrored(share=0.1, chances=(chance,))
    _, endpoint = proxy.asked(request())
    assert len(proxy.connecting) == sent
    assert proxy.mirrored == [sent, 0, 0]
    endpoint.feed(ok())
    if sent:
        proxy.accept().feed(ok())
    proxy.finish()


@pytest.mark.parametrize(
    "raw",
    [
        request("POST /", "Content-Length: 3"),
        request("POST /", "Transfer-Encoding: chunked", body=b"1\r\na\r\n"),
        request("POST /", f"Content-Length: {MAX_BODY + 1}", body=b"x" * (MAX_BODY + 1)),
        request("POST /", "Expect: 100-continue", "Content-Length: 3"),
        request("GET /", "Connection: upgrade", "Upgrade: chat"),
    ],
    ids=["body to come", "chunks to come", "long body", "expects", "upgrade"],
)
def test_what_is_not_copied_is_counted(raw: bytes) -> None:
    proxy = Mirrored()
    proxy.asked(raw)
    assert not proxy.connecting
    assert proxy.mirrored == [0, 0, 1]
    proxy.finish()


def test_a_whole_body_is_copied_however_it_is_framed() -> None:
    proxy = Mirrored()
    _, endpoint = proxy.asked(request("POST /", "Transfer-Encoding: chunked", body=b"2\r\nhi\r\n0\r\n\r\n"))
    assert proxy.accept().data.endswith(b"\r\n\r\n2\r\nhi\r\n0\r\n\r\n")
    endpoint.feed(ok())
    proxy.finish()


def test_no_more_than_so_many_at_once() -> None:
    proxy = Mirrored(most=1)
    _, first = proxy.asked(request())
    mirror = proxy.accept()
    first.feed(ok())
    proxy.client(request())
    assert not proxy.connecting
    assert proxy.mirrored == [1, 1, 0]
    mirror.feed(ok())
    first.feed(ok())
    proxy.client(request())
    assert proxy.mirrored == [2, 1, 0]
    proxy.finish()


def test_a_copy_is_not_mirrored_itself() -> None:
    proxy = Mirrored()
    two = proxy.others["two"]
    two.front = Front(mirror=Copies(proxy.context, proxy.others["one"], two.stats, 1.0, 64))  # type: ignore[arg-type]
    proxy.asked(request())
    proxy.accept()
    assert not proxy.connecting
    assert two.stats.mirrored == [0, 0, 0]
    # Nor is one that another sidecar has made.
    proxy.asked(request("GET /", "X-Sidecar-Mirrored: 1"))
    assert not proxy.connecting
    assert proxy.mirrored == [1, 0, 0]
    proxy.finish()


def test_a_mirror_that_has_nobody_changes_nothing() -> None:
    proxy = Mirrored()
    proxy.others["two"].apply(Snapshot("two", (), "static"))
    client, endpoint = proxy.asked(request())
    proxy.loop.turn()
    assert proxy.counts("two") == {("5xx", "no_endpoints"): 1}
    endpoint.feed(ok())
    assert client.data.startswith(b"HTTP/1.1 200 ")
    proxy.finish()


def test_a_mirror_that_refuses_breaks_off_or_talks_nonsense_changes_nothing() -> None:
    proxy = Mirrored(policies={"two": {"retries": 0}})
    for trouble in ("refused", "reset", "nonsense", "cut"):
        client = proxy.client(request())
        endpoint = proxy.accept() if host_is(proxy, "10.0.1.1") else proxy.busy[0]
        if trouble == "refused":
            proxy.refuse()
        else:
            mirror = proxy.accept()
            if trouble == "reset":
                mirror.lose()
            elif trouble == "nonsense":
                mirror.feed(b"nonsense\r\n\r\n")
            else:
                mirror.feed(ok(b"a", "Content-Length: 9", length=False))
                mirror.lose()
        endpoint.feed(ok(trouble.encode()))
        assert client.data.endswith(trouble.encode())
        assert proxy.copies.in_flight == 0
    assert proxy.counts("one") == {("2xx", "none"): 4}
    assert proxy.counts("two") == {
        ("5xx", "connect_refused"): 1,
        ("5xx", "reset_before_headers"): 1,
        ("5xx", "bad_response"): 1,
        ("2xx", "reset_after_headers"): 1,
    }
    proxy.finish()


def host_is(proxy: Mirrored, host: str) -> bool:
    return bool(proxy.connecting) and proxy.connecting[0].host == host


def test_a_slow_mirror_is_given_up_after_its_own_time() -> None:
    proxy = Mirrored(policies={"two": {"timeout": 3.0, "retries": 0}})
    client, endpoint = proxy.asked(request())
    mirror = proxy.accept()
    endpoint.feed(ok())
    proxy.pass_time(3.3)
    assert mirror.closing
    assert proxy.counts("two") == {("5xx", "request_timeout"): 1}
    assert not client.closing
    proxy.finish()


def test_other_times_of_clients_are_none_of_a_copys() -> None:
    proxy = Mirrored(policies={"two": {"timeout": 30.0}})
    _, endpoint = proxy.asked(request())
    mirror = proxy.accept()
    endpoint.feed(ok())
    follow_times(proxy.context, head=5.0, idle=proxy.context.idle_timeout - 40.0, body_rate=0)
    proxy.pass_time(1.0)
    assert not mirror.closing
    mirror.feed(ok())
    assert proxy.counts("two") == {("2xx", "none"): 1}
    proxy.finish()


def test_a_client_that_leaves_takes_no_copy_along() -> None:
    proxy = Mirrored()
    client, _ = proxy.asked(request())
    mirror = proxy.accept()
    client.lose()
    mirror.feed(ok())
    assert proxy.counts("two") == {("2xx", "none"): 1}
    proxy.finish()


def test_copies_end_with_the_process_and_it_does_not_wait_for_them() -> None:
    proxy = Mirrored()
    _, endpoint = proxy.asked(request())
    mirror = proxy.accept()
    endpoint.feed(ok())
    assert proxy.context.copies == proxy.others["two"].stats.in_flight == 1
    now = proxy.clock.monotonic() + 5.0
    busy = [member for member in tuple(proxy.context.sweep.members) if member.retire(now)]
    assert busy == [] or all(member is not mirror.protocol.exchange for member in busy)
    assert proxy.context.copies == proxy.others["two"].stats.in_flight == 0
    assert mirror.closing
    # Nor are any made from then on.
    proxy.context.draining = True
    proxy.client(request())
    assert proxy.mirrored == [1, 0, 1]
    proxy.finish()


def test_long_answers_and_those_in_pieces_are_thrown_away() -> None:
    proxy = Mirrored()
    client, endpoint = proxy.asked(request())
    mirror = proxy.accept()
    mirror.feed(ok(b"x" * 10, "Content-Length: 30", length=False), b"x" * 20)
    assert proxy.copies.in_flight == 0
    assert not mirror.closing
    endpoint.feed(ok())
    assert client.data.endswith(b"\r\n\r\nok")
    proxy.finish()


@pytest.mark.parametrize("framing", ["Content-Length: 99999999", "Transfer-Encoding: chunked"])
def test_an_answer_without_an_end_is_broken_off(framing: str) -> None:
    proxy = Mirrored()
    client, endpoint = proxy.asked(request())
    mirror = proxy.accept()
    mirror.feed(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n".encode())
    piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    for _ in range(MAX_ANSWER // 65536 + 1):
        mirror.feed(piece)
    proxy.loop.turn()
    assert mirror.closing
    assert proxy.copies.in_flight == proxy.context.copies == 0
    assert proxy.counts("two") == {("4xx", "client_gone"): 1}
    assert not client.closing
    endpoint.feed(ok())
    assert client.data.endswith(b"\r\n\r\nok")
    proxy.finish()


def test_rules_and_token_of_the_upstream_are_not_the_mirrors() -> None:
    proxy = Mirrored()
    rules = FieldRules(Edits((("X-A", "one"),), (("X-B", "one"),), ("Cookie",)), Edits())
    rules.carry(b"secret")
    proxy.others["one"].front = Front(rules=rules, mirror=proxy.copies)
    theirs = FieldRules(Edits(added=(("X-B", "two"),)), Edits())
    proxy.others["two"].front = Front(rules=theirs)
    _, endpoint = proxy.asked(request("GET /", "Cookie: a", "X-A: 0"))
    assert endpoint.data.endswith(b"X-A: one\r\nAuthorization: Bearer secret\r\nX-B: one\r\n\r\n")
    mirror = proxy.accept()
    assert mirror.data.endswith(b"Cookie: a\r\nX-A: 0\r\nx-sidecar-mirrored: 1\r\nX-B: two\r\n\r\n")
    mirror.feed(ok())
    endpoint.feed(ok())
    proxy.finish()


def test_a_copy_says_where_the_client_is() -> None:
    proxy = Mirrored(policies={"two": {"strategy": "ring_hash", "hash_on": "client"}})
    _, endpoint = proxy.asked(request())
    nobody = next(one for one in proxy.context.sweep.members if isinstance(one, Nobody))
    assert nobody.transport.get_extra_info("peername") == ("127.0.0.1", 40000)
    assert nobody.transport.get_extra_info("socket") is None
    endpoint.feed(ok())
    proxy.accept().feed(ok())
    proxy.finish()
