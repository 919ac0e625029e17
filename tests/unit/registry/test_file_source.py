"""The file source: what a file may say, what of it is left out, and when a stream says something."""

# ruff: noqa: ASYNC240 - these files are small, and nobody else is held up
import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from support.clock import FakeClock
from support.volumes import ConfigMapVolume

from sidecar.config.settings import RegistrySettings
from sidecar.errors import SourceError
from sidecar.model import Endpoint, Snapshot
from sidecar.registry.sources import file as module
from sidecar.registry.sources.file import FileSource
from sidecar.registry.sources.lists import read_lists
from sidecar.registry.sources.source import MAX_ENDPOINTS, Surroundings, Wanted

WEB = Wanted("web", "web")


async def never(host: str, port: int) -> list[Any]:
    """No name is looked up here."""
    raise AssertionError(host)


def source_of(path: Path, stale_after: float = 60.0) -> FileSource:
    """The source of one file."""
    settings = RegistrySettings("lists", "file", path=str(path), stale_after=stale_after)
    return FileSource(settings, Surroundings(FakeClock(), {}, never))


async def heard(stream: AsyncIterator[Snapshot | None], count: int = 1) -> list[Snapshot]:
    """The next snapshots."""
    found: list[Snapshot] = []
    async with asyncio.timeout(10.0):
        while len(found) < count:
            if (snapshot := await anext(stream)) is not None:
                found.append(snapshot)
    return found


async def first(path: Path, *wanted: Wanted) -> dict[str, tuple[Endpoint, ...]]:
    """What the file says first, by upstream."""
    async with aclosing(source_of(path).watch(wanted or (WEB,))) as stream:
        found = await heard(stream, len(wanted) or 1)
    assert {snapshot.source for snapshot in found} == {"lists"}
    return {snapshot.upstream: snapshot.endpoints for snapshot in found}


async def refused(path: Path, *wanted: Wanted) -> str:
    """Why its stream fails at once."""
    async with aclosing(source_of(path).watch(wanted or (WEB,))) as stream:
        with pytest.raises(SourceError) as caught:
            await heard(stream)
    text = str(caught.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    return text.removeprefix(str(path)).removeprefix(":").strip()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the endpoints are to be."""
    return tmp_path / "endpoints.yml"


# What a file may say


async def test_endpoints_as_text_and_as_mappings(file: Path) -> None:
    file.write_text("""
web:
  - a.example:8001
  - "[::1]:8002"
  - {host: b.example, port: 8003, weight: 2, zone: eu-1a}
  - host: fd00::1
    port: "8004"
  - {host: c.example, port: 8005, weight: 9999}
  - {host: d.example, port: 8006, weight: -3}
redis: []
other: [x:1]
""")
    assert await first(file, WEB, Wanted("cache", "redis"), Wanted("gone", "gone")) == {
        "web": (
            Endpoint("a.example", 8001),
            Endpoint("::1", 8002),
            Endpoint("b.example", 8003, 2, "eu-1a"),
            Endpoint("fd00::1", 8004),
            Endpoint("c.example", 8005, 256),
            Endpoint("d.example", 8006, 1),
        ),
        "cache": (),
        "gone": (),
    }


async def test_the_same_in_json(tmp_path: Path) -> None:
    services = {
        "web": ["a.example:8001", {"host": "b.example", "port": 8003, "weight": 2, "zone": None}],
        "redis": [],
    }
    expected = {"web": (Endpoint("a.example", 8001), Endpoint("b.example", 8003, 2)), "cache": ()}
    for name in ("endpoints.json", "endpoints.yml", "endpoints"):
        (tmp_path / name).write_text(json.dumps(services))
        assert await first(tmp_path / name, WEB, Wanted("cache", "redis")) == expected


async def test_yaml_that_begins_as_json_does(file: Path) -> None:
    file.write_text("{web: [a:1]}")
    assert await first(file) == {"web": (Endpoint("a", 1),)}


async def test_an_alias_is_what_it_stands_for(file: Path) -> None:
    file.write_text("web: &all\n- &one a:1\n- *one\n- {host: b, port: &p 2}\napi: *all\n")
    assert await first(file, Wanted("api", "api")) == {"api": (Endpoint("a", 1), Endpoint("b", 2))}


@pytest.mark.parametrize(
    ("wanted", "port"),
    [
        (Wanted("web", "web", default_port=80), 80),
        (Wanted("web", "web", "8080", 80), 8080),
        (Wanted("web", "web", "http", 80), 80),
    ],
)
async def test_an_entry_without_a_port_has_that_of_the_upstream(
    file: Path, wanted: Wanted, port: int
) -> None:
    file.write_text("web: [a, '::1', '[::2]', {host: b}, 'c:1', {host: d, port: 2}]")
    found = await first(file, wanted)
    ports = {endpoint.host: endpoint.port for endpoint in found["web"]}
    assert ports == {"a": port, "::1": port, "::2": port, "b": port, "c": 1, "d": 2}


async def test_services_of_several_upstreams(file: Path) -> None:
    file.write_text("web: [a]")
    wanted = (Wanted("one", "web", default_port=1), Wanted("two", "web", default_port=2))
    assert await first(file, *wanted) == {"one": (Endpoint("a", 1),), "two": (Endpoint("a", 2),)}


# What is left out


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("'no port'", "`no port` is not host:port"),
        ("a:0", "`a:0` has no port between 1 and 65535"),
        ("'a_b c:1'", "`a_b c:1` is no host"),
        ("fd00::1:80", "put an IPv6 address in brackets"),
        ("~", "is not host:port"),
        ("[a:1]", "is neither host:port nor {host: ..., port: ...}"),
        ("{port: 1}", "has no host"),
        ("{host: a}", "has no port"),
        ("{host: 'http://a', port: 1}", "host: `http://a` is no host"),
        ("{host: a, port: x}", "port: `x` is no port"),
        ("{host: a, port: 65536}", "port: `65536` is no port"),
        ("{host: [a], port: 1}", "`host` is no single value"),
        ("{host: {a: {b: {c: d}}}, port: 1}", "`host` is no single value"),
        ("{host: a, host: b, port: 1}", "`host` is there twice"),
    ],
)
async def test_an_entry_that_cannot_be_used(
    file: Path, entry: str, problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    file.write_text(f"web:\n- first:1\n- {entry}\n- last:1\n")
    assert await first(file) == {"web": (Endpoint("first", 1), Endpoint("last", 1))}
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith(f"{file}:3: web[1]: ")
    assert problem in said
    assert said.endswith("; it is left out")


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("{host: a, port: 1, weight: heavy}", "weight: `heavy` is no whole number; 1 is used"),
        ("{host: a, port: 1, zone: a b}", "zone: `a b` is no name of a zone"),
        ("{host: a, port: 1, wieght: 2}", "the key `wieght` means nothing here; did you mean `weight`?"),
    ],
)
async def test_what_is_not_worth_losing_an_endpoint_for(
    file: Path, entry: str, problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    file.write_text(f"web:\n- {entry}\n")
    assert await first(file) == {"web": (Endpoint("a", 1),)}
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith(f"{file}:2: web[0]: {problem}")


async def test_endpoints_and_services_that_are_there_twice(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.write_text("web: [x:9]\nweb:\n- a:1\n- {host: a, port: 1, weight: 3}\n")
    assert await first(file) == {"web": (Endpoint("a", 1),)}
    assert [record.getMessage() for record in caplog.records] == [
        f"{file}:2: web: is there twice; what is written last counts",
        f"{file}:4: web[1]: `a:1` is there twice; what is written first counts",
    ]


async def test_more_endpoints_than_an_upstream_may_have(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    file.write_text("web:\n" + "".join(f"- host-{number}:80\n" for number in range(MAX_ENDPOINTS + 2)))
    assert len((await first(file))["web"]) == MAX_ENDPOINTS
    (said,) = [record.getMessage() for record in caplog.records]
    assert f":{MAX_ENDPOINTS + 2}: web[{MAX_ENDPOINTS}]: has more than {MAX_ENDPOINTS} endpoints" in said


async def test_problems_are_named_once_and_only_some_of_them(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bad = "".join(f"- bad-{number}\n" for number in range(300))
    file.write_text("web:\n- a:1\n" + bad)
    source = source_of(file)
    for _ in range(2):  # the second stream of the same source finds nothing new
        async with aclosing(source.watch((WEB, Wanted("again", "web")))) as stream:
            await heard(stream, 2)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == module.SHOWN + 1
    assert said[-1] == f"{file}: and 95 more like these"
    caplog.clear()
    async with aclosing(source.watch((WEB,))) as stream:
        await heard(stream)
        file.write_text("web:\n- b:1\n- a:1\n- worse\n" + bad)
        await heard(stream)
    assert [record.getMessage().split("; ")[0] for record in caplog.records] == [
        f"{file}:4: web[2]: `worse` is not host:port"
    ]


# What makes a stream fail


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"web: [a:1", "2: is not valid YAML: "),
        (b"web:\n  - a:1\n - b:1\n", "3: is not valid YAML: "),
        (b"web: *nobody", "1: is not valid YAML: the alias `nobody` stands for nothing before it"),
        (b"web: &a [*a]", "1: is not valid YAML: the alias `a` stands for nothing before it"),
        (b"web: []\n---\nweb: []\n", "2: is not valid YAML: a second document begins"),
        (b"[a]: []", "1: is not valid YAML: a list or a mapping stands where a name should"),
        (b"web: [\x01]", "is not valid YAML: "),
        (b"web:\n- \xff:1\n", "2: is not UTF-8 text"),
        (b"", "is empty; write"),
        (b"# nothing\n", "is empty; write"),
        (b"- a:1\n", "is no mapping of services; write"),
        (b"a:1", "is no mapping of services; write"),
        (b"[" * 100_000, "1: is not valid YAML: "),
    ],
)
async def test_a_file_that_is_not_valid(file: Path, content: bytes, problem: str) -> None:
    file.write_bytes(content)
    assert (await refused(file)).startswith(problem)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"web": [\n"a:1"', "2: is not valid JSON: "),
        ('{"web": ' + "[" * 100_000, "is not valid JSON: "),
        ('{"web": ' + "1" * 10_000 + "}", "is not valid JSON: "),
        ("[]", "is no mapping of services; write"),
    ],
)
async def test_json_that_is_not_valid(tmp_path: Path, content: str, problem: str) -> None:
    file = tmp_path / "endpoints.json"
    file.write_text(content)
    assert (await refused(file)).startswith(problem)


@pytest.mark.parametrize("value", ["", "a:1", "~", "{a: 1}", "0"])
async def test_a_service_that_is_no_list(file: Path, value: str) -> None:
    file.write_text(f"other: []\nweb: {value}\n")
    assert await refused(file) == "2: web: is no list of endpoints; write [] where there is none"


async def test_a_list_of_which_nothing_can_be_used_is_not_empty(file: Path) -> None:
    file.write_text("web: [bad]")
    assert (await refused(file)).endswith(
        "it is left out, and `web` has no other: write [] where there is none"
    )
    file.write_text("web: [bad, worse]")
    said = await refused(file)
    assert said.startswith("1: web[0]: `bad` is not host:port")
    assert said.endswith("and so are all others of `web`: write [] where there is none")


async def test_services_that_can_be_used_are_told_before_the_stream_fails(file: Path) -> None:
    file.write_text("api: 1\nweb: [a:1]\ncache: 2\n")
    wanted = (Wanted("api", "api"), WEB, Wanted("cache", "cache"))
    async with aclosing(source_of(file).watch(wanted)) as stream:
        assert await heard(stream) == [Snapshot("web", (Endpoint("a", 1),), "lists")]
        with pytest.raises(SourceError, match=r":1: api: is no list .*; and 1 more$"):
            await heard(stream)


async def test_a_file_that_cannot_be_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await refused(file) == "no such file or directory"
    file.mkdir()
    assert await refused(file) == "is no regular file"
    file.rmdir()
    file.write_text("web: [a:1]")
    monkeypatch.setattr(module, "MAX_BYTES", 5)
    assert await refused(file) == "is larger than 5 bytes"


# When a stream says something


@pytest.mark.every_loop
async def test_only_what_changes_is_told_again(file: Path) -> None:
    file.write_text("web: [a:1]\napi: [b:1]\n")
    async with aclosing(source_of(file).watch((WEB, Wanted("api", "api")))) as stream:
        assert [snapshot.upstream for snapshot in await heard(stream, 2)] == ["web", "api"]
        file.write_text("web: [a:1]\napi: [b:1, c:1]\n")
        api = Snapshot("api", (Endpoint("b", 1), Endpoint("c", 1)), "lists")
        assert await heard(stream) == [api]
        file.write_text("# a comment\nweb: [a:1]\napi: [b:1, c:1]\n")
        async with asyncio.timeout(10.0):
            assert await anext(stream) is None
        file.write_text("api: [b:1, c:1]\n")
        assert await heard(stream) == [Snapshot("web", (), "lists")]


async def test_a_config_map(tmp_path: Path) -> None:
    volume = ConfigMapVolume(tmp_path / "volume")
    volume.update(endpoints_yml="web: [a:1]")
    source = source_of(volume.directory / "endpoints.yml")
    async with aclosing(source.watch((WEB,))) as stream:
        await heard(stream)
        for number in range(2, 5):
            volume.update(endpoints_yml=f"web: [a:{number}]")
            assert await heard(stream) == [Snapshot("web", (Endpoint("a", number),), "lists")]


async def test_a_stream_fails_when_its_file_does(file: Path) -> None:
    file.write_text("web: [a:1]")
    for ruin in (lambda: file.write_text("web: ["), file.unlink):
        async with aclosing(source_of(file).watch((WEB,))) as stream:
            await heard(stream)
            ruin()
            with pytest.raises(SourceError, match=r"is not valid YAML|no such file"):
                await heard(stream)
        file.write_text("web: [a:1]")


async def test_signs_of_life(file: Path) -> None:
    file.write_text("web: [a:1]")
    async with aclosing(source_of(file, 0.2).watch((WEB,))) as stream:
        await heard(stream)
        for _ in range(3):
            async with asyncio.timeout(1.0):
                assert await anext(stream) is None
        file.unlink()
        with pytest.raises(SourceError, match="no such file"):  # and no sign of life of what is not there
            await heard(stream)


async def test_the_loop_goes_on_while_a_file_is_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []

    def read(path: str, content: bytes) -> Any:
        threads.append(threading.current_thread())
        return read_lists(path, content)

    monkeypatch.setattr(module, "read_lists", read)
    file.write_text("web: [a:1]")
    assert await first(file) == {"web": (Endpoint("a", 1),)}
    assert threads
    assert threading.main_thread() not in threads


async def test_who_is_cancelled_while_a_file_is_read_leaves_nothing(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("web: [a:1]")
    reading = asyncio.Event()
    loop = asyncio.get_running_loop()
    read = module.read_bounded

    def slowly(path: str, most: int) -> bytes:
        loop.call_soon_threadsafe(reading.set)
        return read(path, most)

    monkeypatch.setattr(module, "read_bounded", slowly)

    async def consume(sources: Sequence[FileSource]) -> None:
        async with aclosing(sources[0].watch((WEB,))) as stream:
            async for _ in stream:
                pass

    task = asyncio.create_task(consume([source_of(file)]))
    async with asyncio.timeout(10.0):
        await reading.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_nothing_is_said_about_a_file_that_is_fine(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.write_text("web: [a:1]")
    with caplog.at_level(logging.DEBUG, "sidecar"):
        await first(file)
    assert not caplog.records


async def test_the_example(caplog: pytest.LogCaptureFixture) -> None:
    example = Path(__file__).parents[3] / "config" / "registries" / "endpoints.yml"
    found = await first(example, Wanted("ai", "ai-workers"), Wanted("api", "api"))
    assert {name: len(endpoints) for name, endpoints in found.items()} == {"ai": 2, "api": 2}
    assert not caplog.records
