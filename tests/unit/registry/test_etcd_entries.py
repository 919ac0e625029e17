"""What is under etcd's keys: entries as instances write them, and what becomes of a service's."""

import asyncio
import json
import logging
from typing import Any

import pytest

from sidecar.errors import SourceError
from sidecar.model import Endpoint
from sidecar.registry.sources import etcd_entries
from sidecar.registry.sources.etcd_entries import Complaints, Entry, Service, entry_value, parse_entry
from sidecar.registry.sources.etcd_gateway import to_base64
from sidecar.registry.sources.http import AT_A_TIME
from sidecar.registry.sources.source import Wanted


@pytest.mark.parametrize(
    ("value", "entry"),
    [
        ('{"host": "10.0.0.1", "port": 8080}', Entry("10.0.0.1", 8080)),
        (
            '{"host": "api-1.example", "port": 80, "weight": 2, "zone": "a"}',
            Entry("api-1.example", 80, 2, "a"),
        ),
        ('{"address": "10.0.0.1", "port": "8080", "other": []}', Entry("10.0.0.1", 8080)),
        ('{"address": "10.0.0.1:8080"}', Entry("10.0.0.1", 8080)),
        ('{"host": "::1", "port": 1}', Entry("::1", 1)),
        ('{"host": "::1"}', Entry("::1", 0)),
        ('{"host": "10.0.0.1"}', Entry("10.0.0.1", 0)),
        ("10.0.0.1:8080\n", Entry("10.0.0.1", 8080)),
        ('"10.0.0.1:8080"', Entry("10.0.0.1", 8080)),
        ("[::1]:8080", Entry("::1", 8080)),
        ('{"host": "a", "port": 1, "weight": 0}', Entry("a", 1, 1)),
        ('{"host": "a", "port": 1, "weight": -5}', Entry("a", 1, 1)),
        ('{"host": "a", "port": 1, "weight": 1000}', Entry("a", 1, 256)),
        ('{"host": "a", "port": 1, "weight": 2.9}', Entry("a", 1, 2)),
        ('{"host": "a", "port": 1, "weight": NaN}', Entry("a", 1, 1)),
        ('{"host": "a", "port": 1, "weight": Infinity}', Entry("a", 1, 256)),
        ('{"host": "a", "port": 1, "weight": "heavy"}', Entry("a", 1, 1)),
        ('{"host": "a", "port": 1, "weight": true}', Entry("a", 1, 1)),
        ('{"host": "a", "port": 1, "zone": "not a zone"}', Entry("a", 1, 1, "")),
        ('{"host": "a", "port": 1, "zone": 5}', Entry("a", 1, 1, "")),
    ],
)
def test_what_is_read(value: str, entry: Entry) -> None:
    assert parse_entry(value.encode()) == entry


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (b"", "neither"),
        (b"nonsense", "neither"),
        (b"\xff\xfe", "neither"),
        (b"8080", "neither"),
        (b"null", "neither"),
        (b'["10.0.0.1", 80]', "neither"),
        (b"10.0.0.1:0", "neither"),
        (b"[" * 8000, "neither"),
        (b"9" * 5000, "neither"),
        (b"{}", "has no host"),
        (b'{"host": 5, "port": 80}', "has no host"),
        (b'{"host": "http://a", "port": 80}', "has a host that is none"),
        (b'{"host": "a:b"}', "has a host that is none"),
        (b'{"host": "a\\nb", "port": 80}', "has a host that is none"),
        (b'{"host": "a", "port": 0}', "has no port"),
        (b'{"host": "a", "port": 65536}', "has no port"),
        (b'{"host": "a", "port": -1}', "has no port"),
        (b'{"host": "a", "port": 80.0}', "has no port"),
        (b'{"host": "a", "port": true}', "has no port"),
        (b'{"host": "a", "port": null}', "has no port"),
        (b'{"host": "a", "port": "http"}', "has no port"),
        (b'{"host": "a", "port": 80, "more": "' + b"x" * 8192 + b'"}', "longer than 8192"),
    ],
)
def test_what_is_not(value: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_entry(value)


@pytest.mark.parametrize("entry", [Entry("10.0.0.1", 80, 3, "a"), Entry("::1", 1)])
def test_what_is_written_is_read(entry: Entry) -> None:
    assert parse_entry(entry_value(entry).encode()) == entry


def kv(key: str, value: object, at: int, created: int = 0) -> dict[str, str]:
    """As the gateway has one; created: where it is no new key."""
    text = value if isinstance(value, str) else json.dumps(value)
    return {
        "key": to_base64(f"/services/api/{key}"),
        "value": to_base64(text),
        "mod_revision": str(at),
        "create_revision": str(created or at),
    }


def put(key: str, value: object, at: int, created: int = 0) -> dict[str, Any]:
    return {"kv": kv(key, value, at, created)}


def delete(key: str, at: int) -> dict[str, Any]:
    return {
        "type": "DELETE",
        "kv": {"key": to_base64(f"/services/api/{key}"), "mod_revision": str(at)},
    }


def take(api: Service, answer: dict[str, Any]) -> None:
    asyncio.run(api.take_listing(answer))


def listing(revision: int, *kvs: dict[str, str], count: int = 0) -> dict[str, Any]:
    answer = {"header": {"revision": str(revision)}, "kvs": list(kvs), "count": str(count or len(kvs))}
    return {name: value for name, value in answer.items() if value not in ([], "0")}


def service(*wanted: Wanted, complaints: Complaints | None = None) -> Service:
    return Service(
        "etcd", "/services", "api", wanted or [Wanted("api", "api")], complaints or Complaints("etcd")
    )


def ports(one: Service) -> list[int]:
    """Those of the snapshot that is new."""
    (snapshot,) = one.snapshots()
    return [endpoint.port for endpoint in snapshot.endpoints]


def test_a_listing_and_what_follows() -> None:
    api = service()
    take(api, listing(7, kv("1", "a:1", 3), kv("2", "a:2", 5)))
    assert ports(api) == [1, 2]
    assert api.snapshots() == ()
    api.apply([delete("1", 8)])
    assert ports(api) == [2]
    api.apply([put("0", "a:3", 9), put("2", "a:4", 9, created=5)])
    assert ports(api) == [3, 4]
    assert (api.count, api.revision) == (2, 9)
    take(api, listing(12))
    assert ports(api) == []
    assert (api.count, api.revision) == (0, 12)


def test_the_first_listing_is_news_even_without_endpoints() -> None:
    api = service()
    take(api, listing(1))
    assert ports(api) == []


def test_what_is_known_already_changes_nothing() -> None:
    """Streams may overlap: one that is late does not take anybody back."""
    api = service()
    take(api, listing(7, kv("1", "a:1", 7)))
    assert ports(api) == [1]
    api.apply([put("1", "a:9", 6)])
    api.apply([delete("1", 7)])
    assert api.snapshots() == ()
    api.apply([delete("1", 9)])
    assert ports(api) == []
    api.apply([put("1", "a:1", 8)])
    assert api.snapshots() == ()
    assert api.count == 0


def test_a_change_that_changes_no_endpoint_is_no_news() -> None:
    api = service()
    take(api, listing(7, kv("1", {"host": "a", "port": 1}, 7)))
    assert ports(api) == [1]
    api.apply([put("1", "a:1", 8, created=7)])
    assert api.snapshots() == ()
    assert api.revision == 8


def test_one_place_under_several_keys_is_one_endpoint() -> None:
    api = service()
    first, second = {"host": "a", "port": 1, "weight": 2}, {"host": "a", "port": 1, "weight": 3}
    take(api, listing(7, kv("2", second, 6), kv("1", first, 7)))
    assert api.snapshots()[0].endpoints == (Endpoint("a", 1, 2),)
    api.apply([delete("1", 8)])
    assert api.snapshots()[0].endpoints == (Endpoint("a", 1, 3),)


def test_an_entry_without_a_port_takes_the_upstream_s(caplog: pytest.LogCaptureFixture) -> None:
    api = service(
        Wanted("named", "api", port="81", default_port=80),
        Wanted("own", "api", default_port=80),
        Wanted("word", "api", port="http", default_port=80),
        Wanted("none", "api"),
    )
    take(api, listing(7, kv("1", {"host": "a"}, 6), kv("2", "b:1", 7)))
    told = {
        snapshot.upstream: [endpoint.address for endpoint in snapshot.endpoints]
        for snapshot in api.snapshots()
    }
    assert told == {
        "named": ["a:81", "b:1"],
        "own": ["a:80", "b:1"],
        "word": ["a:80", "b:1"],
        "none": ["b:1"],
    }
    assert [record.getMessage() for record in caplog.records] == [
        "etcd: /services/api/1 is left out: it has no port, nor has none"
    ]


def test_what_is_wrong_is_said_once_and_again_when_it_is_something_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    complaints = Complaints("etcd")
    for _ in range(2):  # streams come and go
        api = service(complaints=complaints)
        take(api, listing(7, kv("1", "bad", 7)))
        api.apply([put("1", "bad too", 8, created=7)])
        assert ports(api) == []
    assert len(caplog.records) == 1
    assert caplog.records[0].levelno == logging.WARNING
    api.apply([put("1", {"host": "a", "port": 0}, 9, created=7)])
    assert len(caplog.records) == 2
    api.apply([put("1", "a:1", 10, created=7)])
    api.apply([put("1", {"host": "a", "port": 0}, 11, created=7)])
    assert len(caplog.records) == 3
    api.apply([delete("1", 12)])
    api.apply([put("1", {"host": "a", "port": 0}, 13)])
    assert len(caplog.records) == 4
    take(api, listing(14))
    take(api, listing(15, kv("1", {"host": "a", "port": 0}, 15)))
    assert len(caplog.records) == 5


def test_a_key_is_shown_so_that_it_stays_one_line(caplog: pytest.LogCaptureFixture) -> None:
    api = service()
    take(api, listing(7, kv("1\nERROR all is lost\x1b[31m" + "x" * 1000, "bad", 7)))
    (record,) = caplog.records
    assert record.getMessage().isprintable()
    assert len(record.getMessage()) < 400


def test_more_than_there_is_room_for(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(etcd_entries, "MAX_ENDPOINTS", 10)
    api = service()
    ten = [kv(str(number), f"a:{number}", 5) for number in range(1, 11)]
    take(api, listing(7, *ten, count=11))
    assert len(ports(api)) == 10
    api.apply([put("another", "a:99", 8)])
    assert api.snapshots() == ()
    assert api.count == 12
    assert len(caplog.records) == 1
    assert "/services/api/ has more than 10 entries" in caplog.records[0].getMessage()
    api.apply([delete("1", 9)])
    assert not api.has_room_again
    api.apply([delete("2", 10)])
    assert api.has_room_again  # eight of ten are held
    take(api, listing(11, *ten[2:], kv("another", "a:99", 8), count=9))
    assert not api.has_room_again
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    "answer",
    [
        {"header": {"revision": "5"}, "kvs": "x"},
        {"header": {"revision": "5"}, "kvs": [5]},
        {"header": {"revision": "5"}, "kvs": [{}]},
        {"header": {"revision": "5"}, "kvs": [{"key": "&&&&"}]},
        {"header": {"revision": "5"}, "kvs": [{"key": 5}]},
        {"header": {"revision": "five"}},
        {"header": {"revision": []}},
        {"header": 5},
        {"kvs": []},
        {"header": {"revision": "5"}, "count": "many"},
    ],
)
def test_a_listing_that_is_none(answer: dict[str, Any]) -> None:
    with pytest.raises(SourceError, match="etcd"):
        take(service(), answer)


@pytest.mark.parametrize("event", [{"kv": {"mod_revision": "9"}}, {"kv": {"mod_revision": "x"}}])
def test_an_event_that_is_none(event: Any) -> None:
    api = service()
    take(api, listing(7, kv("1", "a:1", 7)))
    with pytest.raises(SourceError, match="etcd"):
        api.apply([event])


@pytest.mark.parametrize("event", [5, {}, {"kv": 5}])
def test_an_event_of_no_revision_is_no_news(event: Any) -> None:
    api = service()
    take(api, listing(7, kv("1", "a:1", 7)))
    assert ports(api) == [1]
    api.apply([event])
    assert api.snapshots() == ()


async def test_a_long_listing_leaves_the_loop_its_turns() -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    api, many = service(), 20 * AT_A_TIME
    await api.take_listing(listing(7, *(kv(str(number), f"a:{number + 1}", 7) for number in range(many))))
    counting.cancel()
    assert turns >= 20
    assert len(ports(api)) == many


def test_an_endpoint_that_stays_is_the_same_object_in_the_next_snapshot() -> None:
    api = service()
    take(api, listing(7, kv("1", "a:1", 6), kv("2", "b:2", 7)))
    ((before,), ()) = (api.snapshots(), api.snapshots())
    api.apply([{"kv": kv("2", "b:3", 8)}])
    (after,) = api.snapshots()
    assert after.endpoints[0] is before.endpoints[0]
    assert after.endpoints[1] == Endpoint("b", 3)
